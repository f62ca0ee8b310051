"""Compares the share that other thresholds keep with the filter stage's own rules on every document; tests documents near thresholds."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from corpusmill.filters.rules import Rule as FilterRule
from corpusmill.report.queries.rules import Decisions, read_decisions
from corpusmill.report.queries.summary import Summary, read_summary
from corpusmill.report.queries.thresholds import SAMPLES, read_changes, read_near_misses
from corpusmill.report.query.run import Run


@pytest.fixture(scope="module")
def d(opened_random_run: Run) -> Decisions:
    found = read_decisions(opened_random_run, "filter")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def table(opened_random_run: Run) -> pa.Table:
    return pa.concat_tables([table for _, table in opened_random_run.reader.groups("filter", "report")])


@pytest.fixture(scope="module")
def summary(random_run: Path) -> Summary:
    return read_summary(str(random_run))


def test_each_threshold_keeps_what_the_stage_would_keep(opened_random_run: Run, d: Decisions, table: pa.Table) -> None:
    every = read_changes(opened_random_run, d)
    assert {changes.rule.comparison for changes in every.values()} == {"<", "<=", ">", ">="}
    chars = table["chars_in"].to_numpy()
    for name, changes in every.items():
        rule = changes.rule
        others = np.array([set(names) <= {name} for names in table["failed"].to_pylist()])
        for change in changes.every:
            failing = FilterRule(name, rule.column, rule.comparison, change["threshold"]).failing(table[rule.column].combine_chunks())
            kept = others & ~np.asarray(failing, bool)
            assert (change["documents"], change["characters"]) == (int(kept.sum()), int(chars[kept].sum())), (name, change)
            assert change["more"] == change["documents"] - d.kept
        assert changes.every[changes.place]["threshold"] == rule.threshold and changes.every[changes.place]["more"] == 0


def test_samples_are_nearest_to_the_threshold(opened_random_run: Run, d: Decisions, table: pa.Table) -> None:
    texts = {row["id"]: row["text"] for _, t in opened_random_run.reader.groups("ingest", "data", ["id", "text"]) for row in t.to_pylist()}
    entries = {entry.rule.name: entry for entry in read_near_misses(opened_random_run, d, 100)}
    assert entries.keys() >= {"short", "language", "ratio"}
    rows = table.to_pylist()
    for name, entry in entries.items():
        for side in ("dropped", "kept"):
            shown = [sample for sample in entry.shown if sample["side"] == side]
            assert len({sample["id"] for sample in shown}) == len(shown) == SAMPLES, (name, side)
        assert all(sample["text"] == texts[sample["id"]][:700] for sample in entry.shown)
    kept = {row["id"]: abs(row["words"] - 20) for row in rows if row["kept"]}
    best = sorted(kept, key=lambda id_: (kept[id_], id_))[:SAMPLES]
    assert [sample["id"] for sample in entries["short"].shown if sample["side"] == "kept"] == best
    assert all(not sample["others"] for sample in entries["short"].shown)  # documents that only this rule dropped come first


def test_one_step_of_a_threshold_gives_back_what_the_page_says(summary: Summary, table: pa.Table) -> None:
    d, found = summary.decisions["filter"], summary.page.headline
    assert found is not None and found.decisions is d
    alone = [step.rule.alone for step in found.deciding]
    assert alone == sorted((rule.alone for rule in d.rules.values()), reverse=True)[:3] and all(alone)
    for step in found.deciding:
        assert step.line is not None
        name, _, value = step.line.removeprefix("filter.thresholds.").rpartition("=")
        rule = d.rule(name)
        assert rule is not None and step.rule.name == name and value == ("off" if step.threshold is None else repr(step.threshold))
        failed = [set(names) - {name} for names in table["failed"].to_pylist()]
        fails = np.zeros(len(failed), bool)
        if step.threshold is not None:
            fails = np.asarray(
                FilterRule(name, rule.column, rule.comparison, step.threshold).failing(table[rule.column].combine_chunks()), bool
            )
        assert sum(not names and not still for names, still in zip(failed, fails, strict=True)) == d.kept + step.more
    assert any(step.threshold is not None for step in found.deciding)
