import pyarrow as pa

from corpusmill.filters import step
from corpusmill.filters.statistics import LINES, REPETITION, WORDS, Needs


def test_a_text_is_measured_once_for_all_planned_steps(monkeypatch) -> None:
    passes = []
    real = step.measure
    monkeypatch.setattr(step, "measure", lambda text, rule, needs, marks: passes.append(needs) or real(text, rule, needs, marks))
    planned = [Needs(REPETITION), Needs(WORDS | LINES, stop_words=("the",))]
    batch = step.Batch(pa.table({}), pa.array(["the cat"], pa.large_string()), "words", planned)
    first = batch.statistics(planned[0])
    assert batch.statistics(planned[1]) is first
    assert passes == [Needs(REPETITION | WORDS | LINES, ("the",))]
    other = batch.statistics(Needs(WORDS, stop_words=("cat", "dog")))  # has to be measured by itself
    assert other is not first and len(passes) == 2
    assert other["stop_words"].tolist() == [1] and len(batch) == 1


def test_columns_of_steps_before_go_before_those_of_the_documents() -> None:
    batch = step.Batch(pa.table({"a": [1], "b": [2]}), pa.array(["x"], pa.large_string()), "words", values={"a": pa.array([3])})
    assert batch.column("a").to_pylist() == [3] and batch.column("b").to_pylist() == [2] and batch.column("c") is None
    assert batch.table().to_pydict() == {"a": [3], "b": [2], "text": ["x"]}
