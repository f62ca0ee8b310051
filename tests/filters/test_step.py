import pyarrow as pa

from corpusmill.filters import step
from corpusmill.filters.statistics import LINES, REPETITION, WORDS, Needs


def test_a_text_is_measured_once_for_all_planned_steps(monkeypatch) -> None:
    passes = []
    real = step.measure
    monkeypatch.setattr(step, "measure", lambda text, rule, needs: passes.append(needs) or real(text, rule, needs))
    planned = [Needs(REPETITION), Needs(WORDS | LINES, stop_words=("the",))]
    batch = step.Batch(pa.table({}), pa.array(["the cat"], pa.large_string()), "words", planned)
    first = batch.statistics(planned[0])
    assert batch.statistics(planned[1]) is first
    assert passes == [Needs(REPETITION | WORDS | LINES, ("the",))]
    other = batch.statistics(Needs(WORDS, stop_words=("cat", "dog")))  # has to be measured by itself
    assert other is not first and len(passes) == 2
    assert other["stop_words"].tolist() == [1] and len(batch) == 1
