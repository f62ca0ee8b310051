"""Combinations and pairs of rules beside counts that are made row by row."""

from collections import Counter
from itertools import combinations as pairs_of

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.report.facts import overlap
from corpusmill.report.facts.failures import Failures
from corpusmill.report.facts.overlap import Overlap, combinations

ROWS = st.lists(st.lists(st.sampled_from(["a", "b", "c", "d,e", "é", ""]), unique=True, max_size=5), max_size=40)


def found(*batches: list[list[str]]) -> Overlap:
    made = Overlap()
    for rows in batches:
        failures = Failures.of(pa.chunked_array([pa.array(rows, pa.list_(pa.string()))]))
        made.add(combinations(failures, np.arange(1.0, len(rows) + 1)))
    return made


@given(ROWS, ROWS)
def test_combinations_and_pairs(first: list[list[str]], second: list[list[str]]) -> None:
    made = found(first, second)
    every = first + second
    counts = Counter(tuple(sorted(rules)) for rules in every if rules)
    assert {rules: documents for rules, (documents, _) in made.counts.items()} == counts
    characters = Counter[tuple[str, ...]]()
    for batch in (first, second):
        for place, rules in enumerate(batch):
            characters[tuple(sorted(rules))] += place + 1
    assert all(held == characters[rules] for rules, (_, held) in made.counts.items())
    together = Counter(pair for rules in every for pair in pairs_of(sorted(rules), 2))
    assert made.together == together
    most = made.most(3)
    assert [each.documents for each in most] == sorted(counts.values(), reverse=True)[:3]


def test_failures_know_first_and_alone() -> None:
    failed = pa.chunked_array([pa.array([["b", "a"], [], ["a"], None, ["b"]], pa.list_(pa.string()))])
    failures = Failures.of(failed)
    assert failures.names == ("a", "b") and failures.counts.tolist() == [2, 0, 1, 0, 1]
    assert [failures.names[code] for code in failures.codes[failures.firsts]] == ["b", "a", "b"]
    assert failures.rows_of("a", alone=True).tolist() == [2] and failures.rows_of("a", alone=False).tolist() == [0]
    assert failures.rows_of("gone", alone=True).tolist() == [] and failures.passing.tolist() == [1, 3]


def test_limits_keep_every_count_that_is_given_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "COMBINATIONS", 3)
    monkeypatch.setattr(overlap, "LONGEST", 2)
    monkeypatch.setattr(overlap, "PAIRED", 2)
    made = found([["a"], ["a", "b"], ["a", "b", "c"], ["b"]], [["c"], ["a"], ["c"]])
    assert made.counts == {("a",): [2, 3], ("a", "b"): [1, 2], ("b",): [1, 4]}
    assert (made.others, made.left_out) == (3, True)
    assert made.both("a", "b") == 2 and made.both("a", "c") == 0
