"""Compares the rules as SQL with the rules as a stage decides by them, on random values."""

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.filters.relation import OFF, ask, report_of
from corpusmill.filters.rules import COMPARISONS, NOT_IN, UNKNOWN, KeptShare, Rule, StepRule, decide

EDGES = [0.0, -0.0, 0.1, 0.2, float(np.float32(0.1)), 1.0, 1e39, -1e300, float("inf"), -float("inf")]
NUMBERS = st.none() | st.sampled_from([*EDGES, float("nan")]) | st.floats()
KINDS = {"double": pa.float64(), "single": pa.float32()}
COLUMNS = st.fixed_dictionaries(
    {
        **{name: st.lists(NUMBERS, min_size=6, max_size=6) for name in KINDS},
        "whole": st.lists(st.none() | st.integers(-(2**40), 2**40) | st.sampled_from([0, 1, 2]), min_size=6, max_size=6),
        "it's": st.lists(st.none() | st.sampled_from(["en", "de", "", "o'"]), min_size=6, max_size=6),
    }
)
THRESHOLDS = st.sampled_from(EDGES) | st.floats(allow_nan=False) | st.integers(-3, 3)


@settings(max_examples=60, deadline=None)
@given(COLUMNS, THRESHOLDS, THRESHOLDS, st.lists(st.sampled_from(["en", "o'"]), max_size=2))
def test_sql_decides_as_the_stage(values: dict[str, list[Any]], now: float, other: float, texts: list[str]) -> None:
    with np.errstate(over="ignore"):
        columns = {
            name: pa.array(np.array([np.nan if v is None else v for v in values[name]], kind.to_pandas_dtype()), kind,
                           mask=np.array([v is None for v in values[name]]))
            for name, kind in KINDS.items()
        }  # fmt: skip
    columns |= {"whole": pa.array(values["whole"], pa.int64()), "it's": pa.array(values["it's"], pa.string())}

    def rules(threshold: float) -> list[StepRule]:
        numbers = [(f"{column}'{sign}", column, sign) for column in (*KINDS, "whole") for sign in COMPARISONS]
        made = [Rule(name, column, sign, threshold) for name, column, sign in numbers]
        made += [Rule("list", "it's", NOT_IN, tuple(texts)), Rule("share", "double", "<", UNKNOWN, KeptShare(0.5, "all"))]
        return [StepRule("s", rule) for rule in made]

    with np.errstate(over="ignore"):
        before, after = decide(rules(now), columns, 6), decide(rules(other), columns, 6)
    table = pa.table({**columns, "failed": before, "kept": [not names for names in before.to_pylist()]})
    report = report_of(table)
    every = [rule.rule for rule in rules(now)]
    fails = ask(table, ", ".join(report.fails(rule.column, rule.comparison, rule.threshold) for rule in every)).fetchall()
    assert [[rule.name for rule, fired in zip(every, row, strict=True) if fired] for row in fails] == before.to_pylist()
    names = [(rule.name, rule.column, rule.comparison) for rule in every]
    moves = {rule.rule.name: rule.rule.threshold for rule in rules(other)}
    kept = ask(table, "kept_now", report.decided(names, moves)).fetchall()
    assert [row[0] for row in kept] == [not found for found in after.to_pylist()]
    kept = ask(table, "kept_now", report.decided(names, dict.fromkeys(["list", "whole'<"], OFF))).fetchall()
    assert [row[0] for row in kept] == [set(found) <= {"list", "whole'<"} for found in before.to_pylist()]
