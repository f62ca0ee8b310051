import math

import pyarrow as pa
import pytest

from corpusmill.filters.rules import Rule, StepRule, decide, read_rules, rules_metadata, with_thresholds

RULES = [
    StepRule("one", Rule("low", "a", "<", 3)),
    StepRule("one", Rule("high", "a", ">", 3)),
    StepRule("two", Rule("foreign", "language", "not in", ("en", "fr"))),
    StepRule("two", Rule("exact", "b", "==", 0.5)),
    StepRule("two", Rule("at_most", "b", "<=", 0.25)),
    StepRule("two", Rule("at_least", "b", ">=", 0.75)),
]


def test_every_failed_rule_in_the_order_of_the_rules() -> None:
    values = {"a": pa.array([3, 2, 4]), "language": pa.array(["en", "de", "fr"]), "b": pa.array([0.5, 0.25, 0.75])}
    assert decide(RULES, values, 3).to_pylist() == [["exact"], ["low", "foreign", "at_most"], ["high", "at_least"]]


def test_nan_and_null_never_decide() -> None:
    values = {"a": pa.array([None], pa.int64()), "language": pa.array([None], pa.string()), "b": pa.array([math.nan])}
    assert decide(RULES, values, 1).to_pylist() == [[]]


def test_no_documents_and_no_rules() -> None:
    empty = {"a": pa.array([], pa.int64()), "language": pa.array([], pa.string()), "b": pa.array([], pa.float64())}
    assert decide(RULES, empty, 0).to_pylist() == []
    assert decide([], {}, 2).to_pylist() == [[], []]
    assert decide([], {}, 2).type == pa.list_(pa.string())


def test_other_thresholds() -> None:
    changed = with_thresholds(RULES, {"low": 5, "high": None})
    assert [rule.rule.name for rule in changed] == ["low", "foreign", "exact", "at_most", "at_least"]
    assert changed[0].rule == Rule("low", "a", "<", 5)
    with pytest.raises(ValueError, match=r"thresholds\.lo: no such rule \(expected one of low, high"):
        with_thresholds(RULES, {"lo": 1})
    with pytest.raises(ValueError, match="compares with a list"):
        with_thresholds(RULES, {"foreign": 1})


def test_rules_travel_in_the_schema() -> None:
    schema = pa.schema([], metadata=rules_metadata(RULES))
    read = read_rules(schema)
    assert read[0] == {"step": "one", "rule": "low", "column": "a", "comparison": "<", "threshold": 3}
    assert read[2]["threshold"] == ["en", "fr"]
    assert read_rules(pa.schema([])) == []


def test_an_unknown_comparison_is_refused() -> None:
    with pytest.raises(ValueError, match="no such comparison"):
        Rule("x", "a", "!", 1)
