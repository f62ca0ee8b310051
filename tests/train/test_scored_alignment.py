"""Alignment on pairs from a run's own classifier, with real filter steps: what is rejected, what is reported, how answers are judged."""

import json
import random
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from tiny_classifiers import WORDS, make_classifier

from corpusmill.filters.stage import FilterStage
from corpusmill.filters.worker import FilterConfig
from corpusmill.pipeline.errors import InputError, NothingKept
from corpusmill.pipeline.schemas import DOCUMENTS
from corpusmill.pipeline.storage import Storage
from corpusmill.train import judged
from corpusmill.train.align import AlignConfig, AlignStage
from corpusmill.train.judged import JudgedConfig
from corpusmill.train.judged_samples import compare
from corpusmill.train.scores import Score, TextScorer, dropped_documents, find_score

#: Documents from here on are so rude that the filter drops them.
DROPPED = 60
MAIL = "fool@liars.com"
ALIGN: dict[str, Any] = {
    "pairs": 40, "max_chars": 80, "pairs_from": ["corrupted", "rude"], "held_out": 0.3, "evaluate_every": 0, "batch": 8,
    "judged": {"prompts": 6, "max_tokens": 12}, "loop": {"threads": 1, "steps": 2, "save_every": 10},
}  # fmt: skip


def prose(number: int) -> str:
    """Paragraphs of kind sentences, in every second document one of them rude; all rude, and with an address, where it is to be dropped."""
    generator = random.Random(number)

    def sentence(kind: str, words: int) -> str:
        return " ".join(generator.choice(WORDS[kind]) for _ in range(words)).capitalize() + "."

    rude = [number >= DROPPED or (number % 2 == 0 and place == 1) for place in range(3)]
    paragraphs = [" ".join(sentence(*(("rude", 12) if each else ("good", 9))) for _ in range(5)) for each in rude]
    if number >= DROPPED:
        paragraphs = [paragraph.replace(" ", f" {MAIL} ", 1) for paragraph in paragraphs]
    return "\n\n".join(paragraphs)


def documents() -> pa.Table:
    rows = [{"id": f"{n:032x}", "url": f"https://a.test/{n}", "source": "a.jsonl", "text": prose(n)} for n in range(80)]
    return pa.Table.from_pylist(rows, DOCUMENTS)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_classifier(tmp_path_factory.mktemp("models") / "rude", "rude", {"rude": ["rude"]}, window=10)


def filter_stage(classifier: Path, share: float = 0.5, models: Any = (), **more: Any) -> FilterStage:
    decides = {"keep_where": "low", "threshold": 2.0, "max_share": share, **more}
    each = [{**model, **decides} for model in models or ({"model": str(classifier)},)]
    return FilterStage(FilterConfig.model_validate({"steps": [{"classifier": {"models": each}}, {"pii": {}}]}))


@pytest.fixture
def run(pretrained_run: Storage, finish: Any) -> Storage:
    finish(pretrained_run, "ingest", {"data/part-00000.parquet": documents()})
    return pretrained_run


def align(**changes: Any) -> AlignStage:
    return AlignStage(AlignConfig.model_validate({**ALIGN, **changes}))


def rudeness(text: str) -> int:
    return len(set(re.findall(r"\w+", text.lower())) & set(WORDS["rude"]))


def test_rude_continuations_are_rejected_also_those_of_dropped_documents(run, execute, classifier):
    done = execute(run, filter_stage(classifier), align())
    dropped = {row["id"] for row in pq.read_table(run.path("filter/report/part-00000.parquet")).to_pylist() if not row["kept"]}
    assert dropped == {f"{n:032x}" for n in range(DROPPED, 80)}
    rows = [row for row in pq.read_table(run.path("align/report/part-00000.parquet")).to_pylist() if row["kind"] == "rude"]
    pairs = {(p["id"], p["rejected_id"]): p for p in pq.read_table(run.path("align/data/pairs.parquet")).to_pylist() if p["kind"] == "rude"}
    assert len(rows) > 10 and {row["rejected_id"] for row in rows} & dropped and not {row["id"] for row in rows} & dropped
    for row in (row for row in rows if row["kept"]):
        pair = pairs[row["id"], row["rejected_id"]]
        assert rudeness(pair["chosen"][0]["content"]) == 0 < rudeness(pair["rejected"][0]["content"])
        assert row["chosen_score"] < 0.5 < row["rejected_score"] and row["rejected_url"].startswith("https://a.test/")
        assert MAIL not in str(pair) and pair["held_out"] == row["held_out"]
    sources = json.loads(run.child("align").read_bytes("pair_sources.json"))["rude"]
    assert (sources["unit"], sources["pairs"], sources["high_is_good"]) == ("continuations", len(rows), False)
    assert max(row["chosen_score"] for row in rows) <= sources["good"] < sources["bad"] <= min(row["rejected_score"] for row in rows)
    short = f"rude: {len(rows)} of 20 pairs"
    assert (len(rows) < 20) == any(warning.startswith(short) for warning in done.manifest.tasks["pairs"].warnings)


def test_only_what_this_score_alone_dropped_can_be_rejected_and_as_it_would_have_gone_on(run, execute, classifier):
    done = execute(run, filter_stage(classifier))
    (table,) = dropped_documents(done, find_score(done, "rude"))
    assert table["id"].to_pylist() == [f"{n:032x}" for n in range(DROPPED, 80)] and min(table["score"].to_pylist()) > 0.5
    assert all("email@example.com" in text and MAIL not in text for text in table["text"].to_pylist())
    done = execute(run, filter_stage(classifier, models=[{"model": str(classifier)}, {"model": str(classifier), "name": "twin"}]))
    assert list(dropped_documents(done, find_score(done, "rude"))) == []


def test_answers_are_judged_by_the_classifier(run, execute, classifier):
    done = execute(run, filter_stage(classifier), align())
    judged = json.loads(run.child("align").read_bytes("judged.json"))
    assert judged["prompts"] == 6 == len(judged["answers"]) and list(judged["scores"]) == ["rude"]
    scorer, found = TextScorer(done, ["rude"]), {}
    for side in ("before", "after"):
        found[side] = scorer.score([answer[side]["text"] for answer in judged["answers"]])["rude"]
        stored = [answer[side]["rude"] for answer in judged["answers"]]
        assert [np.nan if value is None else value for value in stored] == pytest.approx(found[side], rel=1e-5, nan_ok=True)
    known = ~(np.isnan(found["before"]) | np.isnan(found["after"]))  # a prompt counts where both answers have a score
    means = [values[known].mean() for values in found.values()]
    assert [judged["scores"]["rude"][side] for side in found] == pytest.approx(means, rel=1e-5)
    held_out = {p["prompt"][0]["content"] for p in pq.read_table(run.path("align/data/pairs.parquet")).to_pylist() if p["held_out"]}
    assert {answer["prompt"] for answer in judged["answers"]} <= held_out
    assert re.match(r"0\.\d+ before, 0\.\d+ after \(difference ", done.stage.summary(done)["rude of answers"])


def test_an_unchanged_model_answers_as_before_and_judging_anew_trains_nothing(run, execute, classifier):
    untrained = {"loop": {"threads": 1, "steps": 0}, "pairs_from": ["rude"]}
    first = execute(run, filter_stage(classifier), align(**untrained))
    scores = json.loads(run.child("align").read_bytes("judged.json"))["scores"]["rude"]
    assert scores["difference"] == scores["low"] == scores["high"] == scores["equal_length"]["difference"] == 0
    model, judged = (first.manifest.tasks[task].identity for task in ("model", "judged"))
    again = execute(run, filter_stage(classifier), align(**untrained, judged={"prompts": 3, "max_tokens": 4}))
    assert again.manifest.tasks["model"].identity == model and again.manifest.tasks["judged"].identity != judged
    assert json.loads(run.child("align").read_bytes("judged.json"))["prompts"] == 3


def test_other_scores_make_other_pairs(run, execute, classifier):
    untrained = {"loop": {"threads": 1, "steps": 0}, "pairs_from": ["rude"], "judged": {"prompts": 0}}
    first = execute(run, filter_stage(classifier), align(**untrained))
    other = execute(run, filter_stage(classifier, share=1.0), align(**untrained))
    assert first.manifest.tasks["pairs"].identity != other.manifest.tasks["pairs"].identity
    assert "judged" not in other.manifest.tasks


@pytest.mark.parametrize(
    ("steps", "column", "message"),
    [
        (None, "rude", "align: rude: the recipe has no stage filter"),
        ({}, "politeness", "align: politeness: no score of that name"),
        ({"measure_only": True, "threshold": None, "max_share": None}, "rude", "align: rude: no rule of the filter stage says which"),
        ({}, "rude_share", "the documents do not carry the score rude_share"),
    ],
)
def test_scores_that_are_not_there_are_one_sentence(run, execute, classifier, steps, column, message):
    stages = [] if steps is None else [filter_stage(classifier, **steps)]
    with pytest.raises(InputError, match=message):
        execute(run, *stages, align(pairs_from=[column]))


def test_too_few_scores_are_one_sentence_with_the_counts(run, execute, finish, classifier):
    finish(run, "ingest", {"data/part-00000.parquet": documents().slice(1, 1)})  # of which nothing is rude
    with pytest.raises(NothingKept, match=r"none of 0 pairs can be learned from. rude: 0 of 40 pairs; \d continuations have a score, with"):
        execute(run, filter_stage(classifier), align(pairs_from=["rude"]))


@pytest.fixture
def says_yes_to_all(tmp_path: Path) -> Path:
    return make_classifier(tmp_path / "models/rude", "rude", {"rude": ["rude"]}, window=10, threshold=0.0001)


def test_a_score_that_fires_on_nearly_all_makes_no_pairs_and_judges_nothing(run, execute, says_yes_to_all):
    measured = FilterStage(FilterConfig.model_validate({"steps": [{"toxicity": {"model": str(says_yes_to_all), "name": "rude"}}]}))
    done = execute(run, measured, align(loop={"threads": 1, "steps": 0}))
    said = r"no pairs of a score: rude cannot tell: it fires on 80 of 80 documents \(100\.0%\), so it is left out\."
    assert any(re.fullmatch(said, warning) for warning in done.manifest.tasks["pairs"].warnings)
    kinds = {row["kind"] for row in pq.read_table(run.path("align/report/part-00000.parquet")).to_pylist()}
    assert kinds and "rude" not in kinds
    assert "no classifier" in done.stage.summary(done)["answers judged"] and not run.exists("align/judged.json")
    assert json.loads(run.child("align").read_bytes("pair_sources.json"))["rude"]["pairs"] == 0
    with pytest.raises(NothingKept, match="none of 0 pairs can be learned from. .*rude cannot tell: it fires on 80 of 80 documents"):
        execute(run, measured, align(pairs_from=["rude"]))


def test_a_score_that_only_ranks_makes_pairs_and_judges_no_answers(run, execute, tmp_path):
    folder = make_classifier(tmp_path / "models/rude", "rude", {"rude": ["rude"]})
    described = json.loads((folder / "classifier.json").read_text())
    (folder / "classifier.json").write_text(json.dumps({**described, "ranks": True}))
    stage = FilterStage(FilterConfig.model_validate({"steps": [{"classifier": {"model": str(folder), "keep_where": "low", "keep": 1.0}}]}))
    done = execute(run, stage, align(loop={"threads": 1, "steps": 0}))
    kinds = [row["kind"] for row in pq.read_table(run.path("align/report/part-00000.parquet")).to_pylist()]
    assert "rude" in kinds and "no classifier" in done.stage.summary(done)["answers judged"]


def test_a_run_without_a_classifier_says_so(run, execute):
    done = execute(run, align(pairs_from=["corrupted"], loop={"threads": 1, "steps": 0}))
    assert "no classifier" in done.stage.summary(done)["answers judged"] and not run.exists("align/judged.json")


@pytest.mark.parametrize(
    "given", [{"pairs_from": []}, {"best": 0}, {"worst": 1.5}, {"judged": {"prompts": -1}}, {"pairs_from": ["a", "a"]}, {"best": 0.95}]
)
def test_options_that_make_no_sense_are_refused(given):
    with pytest.raises(ValidationError):
        AlignConfig.model_validate(given)


def test_compared_scores():
    before, after = np.array([0.9, 0.8, np.nan, 0.1]), np.array([0.1, 0.2, 0.9, 0.5])
    found = compare(Score("t", False, 0.5, True, ()), [{"t": before}, {"t": after}], JudgedConfig())
    assert (found["texts"], found["not_scored"]) == (3, 1)
    assert (found["before"], found["after"]) == pytest.approx((0.6, 0.8 / 3)) and found["difference"] == pytest.approx(-1 / 3)
    assert found["low"] == pytest.approx(-0.8) and found["high"] == pytest.approx(0.4)  # three alike are drawn in 3% of the resamples
    assert found["worse_before"]["value"] == 2 / 3 and found["worse_after"]["value"] == 1 / 3
    high = compare(Score("q", True, 0.5, False, ()), [{"q": before}, {"q": after}], JudgedConfig())
    assert high["worse_before"]["value"] == 1 / 3 and high["worse_after"]["value"] == 2 / 3
    none = compare(Score("t", False, None, True, ()), [{"t": before[2:3]}, {"t": after[2:3]}], JudgedConfig())
    assert none == {"texts": 0, "not_scored": 1}


def test_no_difference_at_equal_length_is_a_figure_too(tmp_path):
    of = {"texts": 2, "before": 0.5, "after": 0.4, "low": -0.2, "high": 0.1, "threshold": None, "equal_length": {"difference": 0.0}}
    run = SimpleNamespace(plan=["judged"], storage=Storage(str(tmp_path)))
    run.storage.write_bytes(judged.JUDGED_FILE, json.dumps({"prompts": 2, "scores": {"t": of}}).encode())
    assert judged.summary(run, JudgedConfig()) == {
        "t of answers": "0.500 before, 0.400 after (difference -0.200 to +0.100; +0.000 at equal length)"
    }
