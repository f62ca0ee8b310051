"""Compares thresholds that keep a share with sorting, for any numbers."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pyarrow as pa
from hypothesis import example, given
from hypothesis import strategies as st

from corpusmill.filters.kept_share import FoundThreshold, find_thresholds
from corpusmill.filters.rules import UNKNOWN, KeptShare, Rule, StepRule

NUMBERS = st.floats(allow_nan=False) | st.sampled_from([0.0, -0.0, 0.5, 0.25, 1e-310, -math.inf, math.inf])


def rules(comparison: str, share: float, of: str) -> list[StepRule]:
    return [
        StepRule("words", Rule("short", "words", "<", 10)),
        StepRule("q", Rule("q", "q", comparison, UNKNOWN, KeptShare(share, of))),
        StepRule("other", Rule("other", "other", "<", UNKNOWN, KeptShare(0.5, "passing"))),
    ]


def find(values, words, comparison, share, of, cuts=3) -> FoundThreshold:
    table = pa.table({"q": pa.array(values, pa.float64()), "words": pa.array(words), "other": pa.array(values, pa.float64())})
    borders = np.linspace(0, len(values), cuts + 1).astype(int)
    shards = [table.slice(start, end - start) for start, end in pairwise(borders)]
    return find_thresholds(rules(comparison, share, of), [lambda columns, shard=shard: shard.select(columns) for shard in shards])["q"]


@given(
    st.lists(st.tuples(NUMBERS | st.none() | st.just(math.nan), st.integers(8, 12)), min_size=1, max_size=60),
    st.sampled_from([0.1, 0.3, 1 / 3, 0.5, 0.999, 1.0]),
    st.sampled_from("<>"),
    st.sampled_from(["passing", "all"]),
)
@example([(0.5, 12)] * 7, 0.1, "<", "passing")
def test_it_is_the_kth_of_those_that_count(documents, share, comparison, of) -> None:
    values, words = [value for value, _ in documents], [count for _, count in documents]
    found = find(values, words, comparison, share, of)
    counting = sorted(v for v, w in documents if v is not None and not math.isnan(v) and (of == "all" or w >= 10))
    if not counting:
        assert found == FoundThreshold(None, 0, 0)
        return
    kept = math.ceil(Fraction(str(share)) * len(counting))
    threshold = counting[-kept] if comparison == "<" else counting[kept - 1]
    passing = sum(value >= threshold if comparison == "<" else value <= threshold for value in counting)
    assert found == FoundThreshold(threshold, len(counting), passing) and passing >= kept
