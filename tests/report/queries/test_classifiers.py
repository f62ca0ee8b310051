"""Tests a run's report on the classifiers that it used."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from printed_queries import not_reproduced
from printing import printed

from corpusmill.filters.classifier.evaluate import evaluate
from corpusmill.pipeline.manifest import Manifest, TaskRow
from corpusmill.pipeline.shards import publish, read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.report.answers.terminal import render_report
from corpusmill.report.page.html import render
from corpusmill.report.queries.classifiers import doubts, read_classifiers
from corpusmill.report.queries.summary import read_summary
from corpusmill.report.query.run import Run

HOSTILE = "<b onclick=x>\x1b[31mred\u202e"


def measured(count: int, auc: float = 1.0) -> dict[str, Any]:
    random = np.random.default_rng(1)
    score = random.random(count)
    yes = np.where(random.random(count) < auc, score > 0.5, random.random(count) > 0.5)
    return evaluate(score, yes.astype(np.int8), [HOSTILE, "b"] * (count // 2), np.full(count, 80), 0.5, 0, resamples=20)


def described(**card: Any) -> dict[str, Any]:
    """Returns a classifier.json as the training writes it."""
    head = {"label": "rude", "file": "rude.ftz", "sha256": "0" * 64, "calibration": {"method": "platt"}, "threshold": 0.3125}
    return {"format": 1, "name": "posts", "form": "words", "window": None, "heads": [head], "card": card}


def card(**labels: Any) -> dict[str, Any]:
    facts = {
        "trained_on": {"yes": 1234, "no": 2345}, "parts": {"validation": {"yes": 55, "no": 66}}, "test": measured(600), **labels,
    }  # fmt: skip
    source = {"name": f"tweets {HOSTILE}", "licence": "CC <0>", "examples": 4321, "answers": {"rude": {"yes": 1500, "no": 2821}}}
    lengths = {"0.05": 10, "0.5": 20, "0.95": 30}
    return {"licence": "MIT", "data": {"sources": [source], "different": 4000, "bytes_of_a_line": lengths}, "labels": {"rude": facts}}


def add(folder: Path, files: dict[str, Any], rule: dict[str, Any] | None = None) -> None:
    """Adds the filter stage's files on its classifiers to a run, and their scores to its report."""
    storage = Storage(str(folder / "filter"))
    manifest = Manifest(storage)
    rows = list(manifest.rows())
    for place, row in enumerate(rows):
        path = next(output.path for output in row.outputs if output.path.startswith("report/"))
        report = read_table(storage, path)
        rules = json.loads(report.schema.metadata[b"corpusmill.rules"]) + ([rule] if rule else [])
        report = report.append_column("posts_rude", pa.array(np.linspace(0.1, 0.6, report.num_rows)))
        output = publish(storage, path, report.replace_schema_metadata({b"corpusmill.rules": json.dumps(rules).encode()}))
        outputs = [output if each.path == path else each for each in row.outputs]
        rows[place] = replace(row, outputs=outputs)
    outputs = [publish(storage, f"classifiers/{name}.json", json.dumps(content).encode()) for name, content in files.items()]
    (folder / "filter/manifest.jsonl").unlink()
    fresh = Manifest(storage)
    for row in [*rows, TaskRow("classifiers", "c", [], "c", "v", 0, 0, 0, 1, outputs)]:
        fresh.append(row)
    fresh.finish([*(row.task for row in rows), "classifiers"])


RULE = {"step": "classifier", "rule": "posts_rude", "column": "posts_rude", "comparison": ">=", "threshold": 0.3125}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, builder) -> Path:
    folder = tmp_path_factory.mktemp("classified") / "run"
    builder(folder)
    public = described(model="https://x.test/m.bin")
    add(folder, {"posts": described(**card(test=measured(600, 0.2))), "public": {**public, "window": 50}}, RULE)
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return render(read_summary(str(run)))


def test_read(run: Path) -> None:
    posts, public = read_classifiers(Run(str(run)), read_summary(str(run)).decisions["filter"])
    assert (posts.name, posts.licence, posts.different, posts.lengths, posts.decides) == ("posts", "MIT", 4000, (10, 20, 30), True)
    assert (public.decides, public.window, public.sources) == (False, 50, ())
    assert "nothing of how good it is" in public.warnings()[0]
    (label,) = posts.labels
    assert (label.name, label.yes, label.no, label.columns) == ("rude", 1234, 2345, ("posts_rude",))
    found = " ".join(posts.warnings())
    assert "trained on short texts (95% have at most 30 bytes) and judges documents of" in found and "with `window`" in found
    assert "rude: on the test part it tells yes from no poorly" in found


def test_the_terminal_warns_of_those_that_decide(run: Path) -> None:
    text = printed(render_report, str(run), width=120)
    assert "filter: classifier posts: it was trained on short texts" in text and "classifier public" not in text


@pytest.mark.parametrize(("comparison", "threshold", "decides"), [(">", 1.0, False), ("<", 0.01, True)])
def test_a_rule_that_no_score_fails_decides_nothing(tmp_path: Path, builder, comparison: str, threshold: float, decides: bool) -> None:
    builder(tmp_path / "run", stages=("ingest", "filter"))
    add(tmp_path / "run", {"posts": described(**card())}, {**RULE, "comparison": comparison, "threshold": threshold})
    assert read_summary(str(tmp_path / "run")).classifiers[0].decides is decides


def test_a_damaged_description_is_a_warning(tmp_path: Path, builder) -> None:
    builder(tmp_path / "run", stages=("ingest", "filter"))
    damaged = ([], {**described(), "heads": 5}, described(labels={"rude": {"test": {}}}), described(**card(test={"by_source": {}})))
    add(tmp_path / "run", {f"damaged{number}": content for number, content in enumerate(damaged)})
    summary = read_summary(str(tmp_path / "run"))
    assert summary.classifiers == []
    for number in range(len(damaged)):
        assert any(f"filter/classifiers/damaged{number}.json" in warning for warning in summary.warnings)
    assert 'id="classifiers"' not in render(summary)


def test_doubts_say_what_to_doubt() -> None:
    random = np.random.default_rng(0)
    guess = " ".join(doubts(evaluate(random.random(1000), random.random(1000) < 0.1, ["a"] * 1000, np.ones(1000), 0.5, 0, resamples=50)))
    assert "tells yes from no poorly" in guess and "are not calibrated" in guess and "most of its yes answers are wrong" in guess
    few = doubts(evaluate([0.5, 0.2, np.nan], [1, 1, 1], ["a"] * 3, [3, 4, 5], 0.5, seed=0))
    assert any("few examples" in each for each in few) and any("is unknown" in each for each in few) and "hold no known" in few[-1]


def test_what_it_answers_in_this_run(run: Path, page: str) -> None:
    reports = [pq.read_table(path) for path in sorted((run / "filter/report").glob("*.parquet"))]
    yes, kept = (np.concatenate(parts) for parts in zip(*((t["posts_rude"].to_numpy() >= 0.3125, t["kept"].to_numpy()) for t in reports)))
    said = f"In this run {yes.sum()} of 56 documents with a score get yes ({yes.mean():.1%}); of the 45 that the filter stage kept, "
    assert said + f"{(yes & kept).sum()} ({yes[kept].mean():.1%})." in page and 0 < yes.sum() < 56


def test_the_queries_give_all_that_the_page_says_of_them(run: Path) -> None:
    assert not_reproduced(str(run)) == []
