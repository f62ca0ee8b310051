"""What other thresholds keep, beside the filter stage's own rules applied to every document anew."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.filters.rules import Rule as FilterRule
from corpusmill.filters.rules import StepRule, decide
from corpusmill.report.explore.scan import Batch
from corpusmill.report.facts.thresholds import Changes, is_number, numeric_rules, plan_changes, recipe_line, sensible
from corpusmill.report.read import Rule

VALUES = st.one_of(st.none(), st.sampled_from([0.0, 0.5, 1.0, 2.0, float("nan"), float("inf")]), st.floats(-10, 10))


def batch(values: list[float | None], other: list[float], rule: FilterRule) -> tuple[Batch, list[list[str]]]:
    rules = [StepRule("s", rule), StepRule("s", FilterRule("other", "other", ">", 0.5))]
    columns = {"x": pa.array(values, pa.float64()), "other": pa.array(other, pa.float64())}
    failed = decide(rules, columns, len(values))
    chars = pa.array(range(1, len(values) + 1), pa.int64())
    table = pa.table({**columns, "failed": failed, "chars_in": chars, "kept": [not names for names in failed.to_pylist()]})
    return Batch(None, "filter", table, []), failed.to_pylist()  # type: ignore[arg-type]


@given(st.data(), st.sampled_from(["<", "<=", ">", ">="]), st.lists(st.tuples(VALUES, st.sampled_from([0.0, 1.0])), max_size=30))
def test_each_threshold_keeps_what_the_stage_would_keep(
    data: st.DataObject, comparison: str, rows: list[tuple[float | None, float]]
) -> None:
    now = data.draw(st.sampled_from([0.0, 0.5, 1.0]))
    rule = FilterRule("rule", "x", comparison, now)
    values, other = [row[0] for row in rows], [row[1] for row in rows]
    found, _ = batch(values, other, rule)
    changes = plan_changes(found, [Rule("s", "rule", "x", comparison, now)])["rule"]
    halves = [slice(0, len(rows) // 2), slice(len(rows) // 2, None)]
    for half in halves:
        changes.add(changes.measure(batch(values[half], other[half], rule)[0]))
    chars = [i + 1 for half in halves for i in range(len(values[half]))]
    for place, threshold in enumerate(changes.thresholds.tolist()):
        _, failed = batch(values, other, FilterRule("rule", "x", comparison, threshold))
        kept = [not names for names in failed]
        assert changes.documents[place] == sum(kept)
        assert changes.characters[place] == sum(np.array(chars)[kept])
    assert changes.off[0] == sum(value <= 0.5 for value in other)
    assert changes.thresholds[changes.place] == now and changes.change(changes.place).more == 0


def test_the_table_has_a_few_thresholds_on_either_side() -> None:
    values = np.linspace(0, 1, 2001).tolist()
    found, _ = batch(list(values), [0.0] * 2001, FilterRule("rule", "x", "<", 0.4))
    changes = plan_changes(found, [Rule("s", "rule", "x", "<", 0.4)])["rule"]
    changes.add(changes.measure(found))
    rows = changes.table()
    assert rows[0].threshold is None and rows[0].documents == 2001
    assert 5 <= len(rows) <= 10 and sum(row.now for row in rows) == 1
    counts = [row.documents for row in rows]
    assert counts == sorted(counts, reverse=True)  # the loosest first
    assert {row.more > 0 for row in rows if not row.now} == {True, False}
    assert all(len(f"{row.threshold:g}") <= 6 for row in rows if row.threshold is not None)


def test_whole_thresholds_are_written_as_such() -> None:
    found, _ = batch([float(value) for value in range(100)], [0.0] * 100, FilterRule("rule", "x", "<", 50))
    changes = plan_changes(found, [Rule("s", "rule", "x", "<", 50)])["rule"]
    changes.add(changes.measure(found))
    assert {type(changes.change(place).threshold) for place in range(len(changes.thresholds))} == {int}
    assert recipe_line("rule", changes.change(changes.place).threshold) == "filter.thresholds.rule=50"
    assert recipe_line("rule", None) == "filter.thresholds.rule=null"


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_sensible_numbers_are_near(value: float, now: float) -> None:
    assert abs(sensible(value, now) - value) <= 0.1 * abs(value - now)


@pytest.mark.parametrize(
    ("value", "now", "expected"), [(1234.0, 50.0, 1000.0), (0.6834, 0.65, 0.683), (0.000123, 0.0, 0.00012), (3.0, 3.0, 3.0)]
)
def test_sensible_numbers_have_few_digits(value: float, now: float, expected: float) -> None:
    assert sensible(value, now) == pytest.approx(expected, rel=0.2) and len(f"{sensible(value, now):g}") <= len(f"{value:g}")


def test_only_numbers_can_be_changed() -> None:
    assert [is_number(value) for value in (1, 0.5, True, None, "a", ["en"], float("nan"))] == [
        True,
        True,
        False,
        False,
        False,
        False,
        False,
    ]
    rules = [
        Rule("s", "a", "x", "<", 1),
        Rule("s", "b", "x", "==", 1),
        Rule("s", "c", "x", "not in", ["en"]),
        Rule("s", "d", "gone", ">", 1),
    ]
    rules += [Rule("s", "twice", "x", comparison, 1) for comparison in ("<", ">")]
    assert [rule.rule for rule in numeric_rules(rules, pa.schema([("x", pa.int64())]))] == ["a"]


def test_a_rule_whose_column_holds_nothing() -> None:
    changes = Changes(Rule("s", "rule", "x", ">", 2.0), np.array([1.0, 2.0]), 1)
    found, _ = batch([None, float("nan")], [0.0, 1.0], FilterRule("rule", "x", ">", 2.0))
    changes.add(changes.measure(found))
    assert changes.documents.tolist() == [1, 1] and changes.off == (1, 1)
