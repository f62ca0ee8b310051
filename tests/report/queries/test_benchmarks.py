"""Tests the report on benchmarks: scores with errors, chance, test items in the corpus; and damaged or hostile scores."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from built_run import RunBuilder
from printed_queries import not_reproduced

from corpusmill.report.queries.training import Score, read_benchmarks, read_scores
from corpusmill.report.query.run import Run

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e"


def score(value: float, stderr: float | None = 0.004) -> dict:
    return {"value": value, "stderr": stderr}


def blimp(value: float) -> dict:
    parts = {"island": value - 0.2, "agreement": value + 0.1, HOSTILE: value}
    groups = {name: {"items": 30, "metrics": {"acc": score(of)}} for name, of in parts.items()}
    overlap = {"items": 67_000, "searched": 500, "found": 0, "documents": 0, "scored": 0, "without": None}
    return {"title": "BLiMP", "items": 90, "total": 67_000, "shots": 0, "cut": 0, "chance": 0.5, "metric": "acc",
            "metrics": {"acc": score(value)}, "groups": groups, "overlap": overlap}  # fmt: skip


def arc(value: float) -> dict:
    without = {"acc": score(0.2), "acc_norm": score(0.1875)}
    overlap = {"items": 570, "searched": 560, "found": 2, "documents": 3, "scored": 1, "without": without}
    return {"title": "ARC-Easy", "items": 570, "total": 570, "shots": 2, "cut": 4, "chance": 0.25, "metric": "acc_norm",
            "metrics": {"acc": score(0.3), "acc_norm": score(value, None), "bits_per_byte": score(1.25, 0.01)}, "groups": {},
            "overlap": overlap}  # fmt: skip


def lambada() -> dict:
    return {"title": "LAMBADA", "items": 5, "total": 5, "shots": 0, "cut": 0, "chance": None, "metric": "acc",
            "metrics": {"acc": score(0), "bits_per_byte": score(51_234_567.0, 2.4e6)}, "groups": {}, "overlap": {}}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tasks = {"sft": {"arc_easy": arc(0.25), "blimp": blimp(0.7)}}
    tasks["pretrain"] = {"arc_easy": arc(0.262), "blimp": blimp(0.65), "lambada": lambada()}
    scores = {model: {"bits_per_byte": {"value": 1.5}, "tasks": of} for model, of in tasks.items()}
    evaluate = tmp_path / "evaluate"
    evaluate.mkdir()
    (evaluate / "scores.json").write_text(json.dumps(scores))
    (tmp_path / "run.json").write_text(json.dumps({"recipe": {}}))
    found = [{"item": item, "field": "question", "share": share, "passage": f"passage {item} {HOSTILE}", "id": "d" * 32,
              "url": f"https://mill.test/{HOSTILE}", "documents": item} for item, share in ((1, 0.8), (7, 1.0))]  # fmt: skip
    rows = [{"item": 7, "contexts": [f"Question: Why {HOSTILE}?\nAnswer:"], "continuations": [" a", " because"], "gold": 1}]
    tables = {"overlap": found, "pretrain": rows}
    files = {f"benchmarks/{name}/arc_easy.parquet": pa.Table.from_pylist(of) for name, of in tables.items()}
    RunBuilder(tmp_path).stage("evaluate", [files])
    return tmp_path


def read(folder: Path):
    run = Run(str(folder))
    scores = read_scores(run.reader)
    return read_benchmarks(run, scores.models, scores.sections), scores, run


def test_scores_by_task_metric_and_model(folder):
    found, scores, _ = read(folder)
    assert found.models == ["pretrain", "sft"] and [task.name for task in found.tasks] == ["arc_easy", "blimp", "lambada"]
    arc_easy, minimal_pairs, words = found.tasks
    assert list(arc_easy.scores) == ["acc_norm", "acc", "bits_per_byte"]
    assert arc_easy.scores["acc_norm"] == {"pretrain": Score(0.262, None), "sft": Score(0.25, None)}
    assert (arc_easy.items, arc_easy.total, arc_easy.shots, arc_easy.cut) == (570, 570, 2, 4)
    assert (arc_easy.found, arc_easy.searched, arc_easy.documents) == (2, 560, 3)
    assert arc_easy.without == {"pretrain": Score(0.1875, 0.004), "sft": Score(0.1875, 0.004)}
    assert [name for name, _ in minimal_pairs.weakest()] == ["island", HOSTILE, "agreement"]
    assert words.scores["bits_per_byte"]["pretrain"].text("bits_per_byte") == "5.12e+07 ± 2.4e+06"
    assert minimal_pairs.scores["acc"]["sft"].text("acc") == "70.0% ± 0.4"
    assert arc_easy.scores["acc_norm"]["sft"].text("acc_norm") == "25.0%"
    assert [name for name, _ in scores.rows] == ["bits_per_byte.value"]  # a benchmark's own entry is no row there


def test_items_in_the_corpus_with_their_passages(folder):
    first, second = read(folder)[0].tasks[0].leaks
    assert (first["item"], first["share"], first["documents"]) == (7, 1.0, 7) and first["passage"].startswith("passage 7")
    assert first["text"] == f"Question: Why {HOSTILE}?\nAnswer: because"
    assert second["item"] == 1 and second["text"] == ""  # was not among those scored


@pytest.mark.parametrize("tasks", [7, {"blimp": {"metrics": {"acc": {"value": "much"}}}}, {"blimp": {"metrics": 3, "groups": 4}}])
def test_what_is_damaged_is_left_out(folder, tasks):
    (folder / "evaluate" / "scores.json").write_text(json.dumps({"pretrain": {"tasks": tasks}}))
    assert read(folder)[0].tasks == []


def test_tables_that_are_not_there_are_a_warning(folder):
    (folder / "evaluate" / "benchmarks" / "pretrain" / "arc_easy.parquet").write_bytes(b"PAR1 no more")
    found, _, run = read(folder)
    assert [leak["text"] for leak in found.tasks[0].leaks] == ["", ""] and "not a readable Parquet file" in run.warnings[0]
    (folder / "evaluate" / "benchmarks" / "overlap" / "arc_easy.parquet").unlink()
    assert read(folder)[0].tasks[0].leaks == []


def test_the_queries_give_what_the_page_says_of_them(folder):
    assert not_reproduced(str(folder)) == []
