"""Splits and shard ranges."""

import itertools

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.tokenize.chance import BUCKETS, hashes
from corpusmill.tokenize.layout import is_validation, shard_ranges, token_histograms, validation_limit
from corpusmill.tokenize.parts import SPACE


def table(keys, tokens=None):
    orders, groups = hashes(keys, 0), hashes(keys, 1)
    return pa.table({"order": orders, "group": groups, "tokens": np.full(len(keys), 10) if tokens is None else np.array(tokens)})


def test_share_is_met_on_many_documents():
    documents = table([str(n) for n in range(20_000)])
    limit = validation_limit([documents["group"].to_numpy()], 0.05)
    assert abs(is_validation(documents, limit).mean() - 0.05) < 0.005


@given(st.integers(0, 6), st.sampled_from([1e-9, 0.01, 0.5, 0.999]))
def test_two_documents_are_enough_for_both_splits(size, share):
    documents = table([str(n) for n in range(size)])
    groups = documents["group"].to_numpy()
    validation = is_validation(documents, validation_limit([groups[:1], groups[1:]], share))
    assert (0 < validation.sum() < size) if size > 1 else not validation.any()
    assert not is_validation(documents, validation_limit([groups], 0.0)).any()


def test_documents_without_text_are_never_for_validation():
    documents = table(["a", "b", "c"], [5, 0, 5])
    assert not is_validation(documents, SPACE - 1)[1]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 300), st.integers(1, 400), st.sampled_from([0.0, 0.1]))
def test_ranges_cover_the_order_without_gaps_and_evenly(size, shard_tokens, share):
    documents = table([str(n) for n in range(size)])
    limit = validation_limit([documents["group"].to_numpy()], share)
    histograms = token_histograms([documents.slice(0, size // 2), documents.slice(size // 2)], limit)
    validation = is_validation(documents, limit)
    ranges = shard_ranges(histograms, shard_tokens)
    for split, chosen in (("train", ~validation), ("validation", validation)):
        assert histograms[split].sum() == 10 * chosen.sum()
        mine = [found for found in ranges if found.split == split]
        assert [found.number for found in mine] == list(range(len(mine)))
        if not chosen.any():
            assert mine == []
            continue
        assert mine[0].low == 0 and mine[-1].high == SPACE
        assert all(one.high == two.low for one, two in itertools.pairwise(mine))
        orders = documents["order"].to_numpy()[chosen].astype(object)
        sizes = [10 * sum(found.low <= order < found.high for order in orders) for found in mine]
        assert sum(sizes) == 10 * chosen.sum()
        assert max(sizes) <= shard_tokens + 20  # a document's length at each end, but for two in one of 65,536 buckets


def test_one_shard_where_all_fits():
    ranges = shard_ranges({"train": np.ones(BUCKETS, np.int64), "validation": np.zeros(BUCKETS, np.int64)}, BUCKETS)
    assert [(found.split, found.low, found.high) for found in ranges] == [("train", 0, SPACE)]
