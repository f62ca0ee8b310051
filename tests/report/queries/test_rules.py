"""Compares decisions with counts by pyarrow and plain Python over whole tables."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest

from corpusmill.report.queries.rules import COMBINATIONS, read_decisions, read_funnel, read_overlap, read_steps
from corpusmill.report.query.run import Run
from corpusmill.report.read import DATA_STAGES


@pytest.mark.parametrize("stage", DATA_STAGES)
def test_counts_equal_those_of_the_whole_table(run_folder: Path, stage: str) -> None:
    table = ds.dataset(run_folder / stage / "report").to_table()
    found = read_decisions(Run(str(run_folder)), stage)
    assert found is not None
    assert (found.rows, found.kept) == (table.num_rows, pc.sum(table["kept"]).as_py())
    assert (found.chars_in, found.chars_out) == (pc.sum(table["chars_in"]).as_py(), pc.sum(table["chars_out"]).as_py())
    flat = pc.value_counts(pc.list_flatten(table["failed"])).to_pylist()
    assert {r.name: r.fired for r in found.by_removal()} == {pair["values"]: pair["counts"] for pair in flat}
    alone = table.filter(pc.equal(pc.list_value_length(table["failed"]), 1))
    flat = pc.value_counts(pc.list_flatten(alone["failed"])).to_pylist()
    assert {r.name: r.alone for r in found.by_removal() if r.alone} == {pair["values"]: pair["counts"] for pair in flat}


def test_first_failures(opened_random_run: Run) -> None:
    d = read_decisions(opened_random_run, "filter")
    assert d is not None
    first = Counter[str]()
    for row in pa.concat_tables([table for _, table in opened_random_run.reader.groups("filter", "report", ["failed"])]).to_pylist():
        first.update(row["failed"][:1])
    assert {rule.name: rule.first for rule in d.by_removal() if rule.first} == first


def test_combinations(opened_random_run: Run) -> None:
    d = read_decisions(opened_random_run, "filter")
    assert d is not None
    found = read_overlap(opened_random_run, d)
    assert found is not None
    every = [
        row["failed"]
        for row in pa.concat_tables([table for _, table in opened_random_run.reader.groups("filter", "report", ["failed"])]).to_pylist()
    ]
    counts = Counter(tuple(sorted(names)) for names in every if names)
    most = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    assert [(tuple(row["rules"]), row["documents"]) for row in found.rows] == most[:COMBINATIONS]
    assert (found.first["combinations"], found.first["in_all"]) == (len(counts), sum(counts.values()))


def test_the_steps_of_a_stage_are_what_it_dropped(opened_random_run: Run) -> None:
    funnel = read_funnel(opened_random_run)
    assert funnel is not None
    decisions = {stage: d for stage in DATA_STAGES if (d := read_decisions(opened_random_run, stage, funnel)) is not None}
    query = read_steps(opened_random_run, decisions)
    assert query is not None
    stages = [step["stage"] for step in query.rows]
    assert stages == sorted(stages, key=list(decisions).index)
    for stage, d in decisions.items():
        mine = [step for step in query.rows if step["stage"] == stage]
        assert sum(step["removed"] for step in mine) == d.dropped and mine[-1]["documents_left"] == d.kept
        assert {step["rule"]: step["removed"] for step in mine} == {rule.name: rule.first for rule in d.rules.values() if rule.first}
