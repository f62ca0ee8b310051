"""Compares the explorer's results for other thresholds with those of `retune`, and with the decisions of rules.py."""

import json
import shutil
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from asking import client_of, rows_of
from built_run import RunBuilder
from inline_run import run_inline
from starlette.testclient import TestClient
from tiny_classifiers import make_classifier

from corpusmill.filters.rules import Rule, StepRule, decide
from corpusmill.filters.whatif import retune
from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.errors import NothingKept
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.report.answers.choose import Choice
from corpusmill.report.answers.sample import Draw, draw_samples
from corpusmill.report.answers.why_change import change
from corpusmill.report.explore.parameters import Thresholds, read
from corpusmill.report.explore.thresholds import recipe_lines
from corpusmill.report.page.html import render_body
from corpusmill.report.queries.summary import read_summary
from corpusmill.report.query.run import open_run

RECIPE = """
ingest: {}
filter:
  steps:
    - gopher_repetition: {}
    - gopher_quality: {}
    - fineweb_quality: {}
    - classifier: {model: quality, keep_where: high, keep: 0.8}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, crawl: Path) -> Path:
    """Makes a run by the pipeline; one of its rules keeps a share of the documents that pass the others."""
    folder = tmp_path_factory.mktemp("made")
    make_classifier(folder / "quality", "quality", {"quality": ["good"]})
    return run_inline(folder, RECIPE, *sorted(crawl.iterdir()))


@pytest.fixture(scope="module")
def client(made: Path) -> TestClient:
    return client_of(made)


def kept_ids(folder: Path) -> list[str]:
    return [row["id"] for row in rows_of(folder, "filter") if row["kept"]]


def test_a_threshold_that_no_value_can_have_is_refused(client: TestClient) -> None:
    answer = client.get("/api/thresholds", params={"stage": "filter", "set.gopher_below_alpha_threshold": 70})
    assert answer.status_code == 422 and "a share from 0 to 1, not 70; 70% is 0.7" in answer.json()["detail"]


@pytest.mark.parametrize(
    "moves",
    [
        {"gopher_short_doc": 1, "gopher_enough_stop_words": "off", "line_punct_ratio": 0.01},  # documents return
        {"quality": 0.5, "gopher_below_alpha_threshold": 0.85},  # documents are dropped, and the share is taken of fewer
    ],
)
def test_equals_retune(client: TestClient, made: Path, tmp_path: Path, moves: dict[str, Any]) -> None:
    parameters = {"stage": "filter", **{f"set.{name}": value for name, value in moves.items()}}
    answer = client.get("/api/thresholds", params=parameters).json()
    before, rows = kept_ids(made), rows_of(made, "filter")
    ids, characters = [row["id"] for row in rows], [row["chars_in"] for row in rows]
    changed = {
        which: {row["id"] for row in client.get("/api/changed", params={**parameters, "which": which, "limit": 200}).json()["rows"]}
        for which in ("gained", "lost")
    }
    shutil.copytree(made, tmp_path / "run")
    assert answer["command"].split()[:3] == ["corpusmill", "retune", str(made)] and answer["note"] is None
    with suppress(NothingKept):  # some of these keep nothing
        retune(str(tmp_path / "run"), answer["command"].split()[4::2], InlineEngine(), Progress(False))
    after = kept_ids(tmp_path / "run")
    assert changed == {"gained": set(after) - set(before), "lost": set(before) - set(after)}
    pages = [client.get("/api/changed", params={**parameters, "which": "gained", "limit": 7, "offset": at}).json() for at in (0, 7, 14)]
    assert [page["total"] for page in pages] == [answer["gained"]] * 3
    listed = [row["id"] for page in pages for row in page["rows"]]
    assert listed == [row["id"] for row in rows if row["id"] in changed["gained"]][:21]
    tried = client.get("/api/documents", params={**parameters, "limit": 200}).json()["rows"]
    assert [row["now"] for row in tried] == [row["id"] in set(after) for row in rows[:200]]
    one = client.get("/api/document", params={"key": "filter/0", **{name: v for name, v in parameters.items() if name != "stage"}}).json()
    assert one["now"] == (rows[0]["id"] in after)
    assert (answer["gained"], answer["lost"]) == (len(changed["gained"]), len(changed["lost"]))
    for when, kept in (("before", before), ("after", after)):
        assert answer[when] == {"kept": len(kept), "characters": sum(c for i, c in zip(ids, characters, strict=True) if i in set(kept))}
    failed = [row["failed"] for row in rows_of(tmp_path / "run", "filter")]
    for told in answer["rules"]:
        assert told["fired"] == sum(told["rule"] in names for names in failed)
        assert told["alone"] == sum(names == [told["rule"]] for names in failed)
    stored = json.loads((tmp_path / "run/run.json").read_text())["recipe"]["filter"]["thresholds"]
    written = yaml.safe_load(answer["recipe"])["filter"]["thresholds"]
    assert {name: "off" if value is False else value for name, value in written.items()} == stored


def test_values_of_every_type_at_their_threshold(tmp_path: Path, make_report: Callable[..., Path]) -> None:
    """Nulls, NaN, infinities, float32 next to a threshold that it can't represent, integers and flags are decided as by rules.py."""
    values: dict[str, pa.Array] = {
        "a": pa.array([0.1, 0.1, np.nan, None, np.inf, -np.inf, 0.2, -0.0], pa.float64()),
        "b": pa.array([0.1, 0.3, np.nan, None, np.inf, -np.inf, 0.2, 0.0], pa.float32()),
        "c": pa.array([1, 2, 3, None, 5, 6, 7, 8], pa.int32()),
        "d": pa.array([1, 2, 3, 2**40, 5, 6, 7, 8], pa.int64()),
    }
    rules = [StepRule("s", Rule(f"{name}{sign}", name, sign, 1)) for name in values for sign in ("<", "<=", ">", ">=", "==")]
    folder = make_report(tmp_path / "run", rules, values)
    client = client_of(folder, "filter")
    for threshold in (0.1, 0.2, 0.30000001192092896, 2, 1e39, -1e300, 0.0):
        moved = [StepRule("s", Rule(rule.rule.name, rule.rule.column, rule.rule.comparison, threshold)) for rule in rules]
        with np.errstate(over="ignore"):
            failed = decide(moved, values, 8).to_pylist()
        parameters = {"stage": "filter", **{f"set.{rule.rule.name}": threshold for rule in rules}}
        answer = client.get("/api/thresholds", params=parameters).json()
        fired = {rule.rule.name: sum(rule.rule.name in names for names in failed) for rule in rules}
        assert {told["rule"]: told["fired"] for told in answer["rules"]} == fired
        assert answer["after"]["kept"] == sum(not names for names in failed)


@pytest.fixture
def make_report() -> Callable[..., Path]:
    def make(folder: Path, rules: list[StepRule], values: dict[str, pa.Array]) -> Path:
        """Makes a run with only a filter stage, of documents with these values."""
        count = len(next(iter(values.values())))
        failed = decide(rules, values, count).to_pylist()
        rows = [
            {"id": f"{n:032x}", "url": f"http://x.test/{n}", "failed": failed[n], "chars_in": n, "chars_out": 0, "source": "x", "text": "",
             **{name: column[n].as_py() for name, column in values.items()}}
            for n in range(count)
        ]  # fmt: skip
        fields = [pa.field(name, column.type) for name, column in values.items()]
        RunBuilder(folder).decide("filter", [rows], fields, rules=[rule.as_json() for rule in rules])
        return folder

    return make


def test_a_recipe_line_is_yaml_whatever_a_rule_is_called() -> None:
    for name in ("a: b", "#", "- x", "true", "'\"", "é\u202e", "x\ny", "12"):
        for value in (0.1, 1e-5, 1e22, -0.5, "off"):
            asked = read(Thresholds, [("stage", "filter"), (f"set.{name}", str(value))])
            found = yaml.safe_load(recipe_lines(asked.set_))
            assert found == {"filter": {"thresholds": {name: False if value == "off" else value}}}


def test_a_rule_of_a_list_can_only_be_switched_off(tmp_path: Path, make_report: Callable[..., Path]) -> None:
    rules = [StepRule("language", Rule("language", "language", "not in", ("en",))), StepRule("s", Rule("short", "words", "<", 5))]
    values = {"language": pa.array(["en", "de", None, "de"]), "words": pa.array([9, 9, 9, 2], pa.int64())}
    client = client_of(make_report(tmp_path / "run", rules, values), "filter")
    refused = client.get("/api/thresholds", params={"stage": "filter", "set.language": "3"})
    assert refused.status_code == 422 and "switched off" in refused.json()["detail"]
    answer = client.get("/api/thresholds", params={"stage": "filter", "set.language": "off"}).json()
    assert (answer["before"]["kept"], answer["after"]["kept"], answer["gained"]) == (2, 3, 1)
    assert {told["rule"]: told["alone"] for told in answer["rules"]} == {"language": 0, "short": 1}
    assert [rule["slider"] for rule in client.get("/api/run").json()["stages"][0]["rules"]] == [False, True]


def test_a_step_that_scored_only_what_passed(tmp_path: Path, make_report: Callable[..., Path]) -> None:
    """`retune` would refuse, so the page suggests another command and gives the reason."""
    rules = [StepRule("gopher", Rule("short", "words", "<", 5)), StepRule("classifier:x", Rule("x", "x", "<", 0.5))]
    values = {"words": pa.array([9, 2], pa.int64()), "x": pa.array([0.7, None], pa.float64())}
    folder = make_report(tmp_path / "run", rules, values)
    steps = [{"gopher": {}}, {"classifier": {"only_passing": True}}]
    (folder / "run.json").write_text(json.dumps({"inputs": [], "recipe": {"filter": {"steps": steps}}}))
    client = client_of(folder, "filter")
    answer = client.get("/api/thresholds", params={"stage": "filter", "set.short": "1"}).json()
    assert answer["command"].startswith("corpusmill run ") and "classifier has scored only documents that passed" in answer["note"]
    answer = client.get("/api/thresholds", params={"stage": "filter", "set.x": "0.9"}).json()
    assert answer["command"].startswith("corpusmill retune ") and answer["note"] is None
    with closing(open_run(str(folder))) as run:
        told = change(run, "filter", rows_of(folder, "filter")[1])
        commands = [draw_samples(run, "filter", Choice(rules=(name,)), Draw()).command for name in ("short", "x")]
    assert told is not None and told.command.startswith("corpusmill run ") and told.others is None
    assert commands == ["filter", "retune"]


def test_the_report_counts_no_threshold_that_moves_a_share(client: TestClient, made: Path) -> None:
    summary = read_summary(str(made))
    d = summary.decisions["filter"]
    body, _ = render_body(summary)
    off = client.get("/api/thresholds", params={"stage": "filter", "set.gopher_below_alpha_threshold": "off"}).json()
    assert off["found"] != {} and off["after"]["kept"] != d.kept + d.rules["gopher_below_alpha_threshold"].alone > d.kept  # no sum gives it
    changes = summary.page.changes
    assert d.sharing == ["quality"] == list(changes) and len(d.rules) > 10
    for row in changes["quality"].every:  # its own threshold moves no other, so they are counted
        kept = client.get("/api/thresholds", params={"stage": "filter", "set.quality": repr(row["threshold"])}).json()["after"]["kept"]
        assert row["documents"] == kept
    assert "--set filter.thresholds.gopher_below_alpha_threshold=VALUE --dry-run" in body.replace("<wbr>", "")
    found = summary.page.headline
    assert found is not None and found.deciding
    steps = {step.rule.name: step for step in found.deciding}
    assert all(step.line is None for name, step in steps.items() if name != "quality")  # it would move the share's threshold


def test_why_counts_no_others_where_a_share_moves(made: Path) -> None:
    with closing(open_run(str(made))) as run:
        rows = [row for row in rows_of(made, "filter") if not row["kept"]]
        other = change(run, "filter", next(row for row in rows if row["failed"] == ["gopher_below_alpha_threshold"]))
        own = change(run, "filter", next(row for row in rows if "quality" in row["failed"]))
    assert other is not None and other.command and other.others is None and "--dry-run" in other.sentences[0]
    assert own is not None and own.others is not None and own.sentences == []
