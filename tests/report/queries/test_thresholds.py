"""Compares the share that other thresholds keep with the filter stage's own rules on every document; tests documents near thresholds."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from corpusmill.filters.rules import Rule as FilterRule
from corpusmill.report.queries.origins import read_origins
from corpusmill.report.queries.rules import Decisions, read_decisions
from corpusmill.report.queries.summary import Summary, read_summary
from corpusmill.report.queries.thresholds import (
    SAMPLES,
    read_changes,
    read_examples,
    read_near_misses,
)  # fmt: skip
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
            failing = FilterRule(name, rule.column, rule.comparison, change.threshold).failing(table[rule.column].combine_chunks())
            kept = others & ~np.asarray(failing, bool)
            assert (change.documents, change.characters) == (int(kept.sum()), int(chars[kept].sum())), (name, change)
            assert change.more == change.documents - d.kept
        assert (changes.off.threshold, changes.off.documents) == (None, int(others.sum()))
        assert changes.every[changes.place].threshold == rule.threshold and changes.every[changes.place].more == 0
        assert [change.now for change in changes.every].count(True) == 1


def test_the_table_has_a_few_thresholds_on_either_side(opened_random_run: Run, d: Decisions) -> None:
    rows = read_changes(opened_random_run, d)["short"].table()
    assert rows[0].threshold is None and 5 <= len(rows) <= 10 and sum(row.now for row in rows) == 1
    counts = [row.documents for row in rows]
    assert counts == sorted(counts, reverse=True)  # the loosest first
    assert {row.more > 0 for row in rows if not row.now} == {True, False}
    assert all(type(row.threshold) is int for row in rows[1:])  # as in the recipe


def test_samples_are_nearest_to_the_threshold(opened_random_run: Run, d: Decisions, table: pa.Table) -> None:
    texts = {row["id"]: row["text"] for _, t in opened_random_run.reader.groups("ingest", "data", ["id", "text"]) for row in t.to_pylist()}
    entries = {entry.rule.name: entry for entry in read_near_misses(opened_random_run, d, 100)}
    assert entries.keys() >= {"short", "language", "ratio"}
    rows = table.to_pylist()
    for name, entry in entries.items():
        for side in ("dropped", "kept"):
            shown = [sample for sample in entry.shown if sample.side == side]
            assert len({sample.id for sample in shown}) == len(shown) == SAMPLES, (name, side)
        assert all(sample.text == texts[sample.id][:700] for sample in entry.shown)
    kept = {row["id"]: abs(row["words"] - 20) for row in rows if row["kept"]}
    best = sorted(kept, key=lambda id_: (kept[id_], id_))[:SAMPLES]
    assert [sample.id for sample in entries["short"].shown if sample.side == "kept"] == best
    assert all(not sample.others for sample in entries["short"].shown)  # documents that only this rule dropped come first


def test_texts_are_found_where_the_stage_before_is_gone(random_run: Path, tmp_path: Path) -> None:
    shutil.copytree(random_run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "ingest")
    for entry in read_summary(str(tmp_path / "run")).page.near["filter"]:
        assert all((sample.text is not None) == (sample.side == "kept") for sample in entry.shown)


def test_the_pages_to_read_first_are_in_the_language_that_is_kept_most(opened_random_run: Run, d: Decisions, table: pa.Table) -> None:
    rows = table.to_pylist()
    kept = Counter(row["language"] for row in rows if row["kept"])
    origin = next(origin for origin in read_origins(opened_random_run, {"filter": d}) if origin.column == "language")
    assert origin.kept_most == min(kept, key=lambda name: (-kept[name], name))
    for rule in d.by_removal():
        alone = [row for row in rows if row["failed"] == [rule.name]]
        for language in {row["language"] for row in alone}:
            found = read_examples(opened_random_run, d, rule, language)
            assert found is not None
            told = [sample.language for sample in found.shown]
            many = len({row["id"] for row in alone if row["language"] == language})
            assert told[:many] == [language] * min(many, 3) and all(sample.text for sample in found.shown)


def test_the_recipe_line_does_what_the_page_says(summary: Summary, table: pa.Table) -> None:
    d, found = summary.decisions["filter"], summary.page.headline
    assert found is not None and found.line is not None
    name, _, value = found.line.removeprefix("filter.thresholds.").rpartition("=")
    rule = d.rule(name)
    assert rule is not None and found.deciding is not None and found.deciding.name == name
    failed = [set(names) - {name} for names in table["failed"].to_pylist()]
    still = FilterRule(name, rule.column, rule.comparison, float(value)).failing(table[rule.column].combine_chunks())
    assert sum(not names and not fails for names, fails in zip(failed, still, strict=True)) == d.kept + found.more
    assert found.off is not None and sum(not names for names in failed) == d.kept + found.off
