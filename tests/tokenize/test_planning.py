"""Tests choices by hash, splits and shard ranges."""

import itertools

import numpy as np
import pyarrow as pa
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.tokenize.documents import BUCKETS, buckets, hashes
from corpusmill.tokenize.parts import SPACE
from corpusmill.tokenize.planning import for_validation, shard_ranges, validation_limit


def keys(count):
    return [str(n) for n in range(count)]


@given(st.lists(st.none() | st.text(max_size=90)), st.integers(0, 2**33))
def test_hashes_are_xxh64_of_key_and_seed(keys, seed):
    wanted = [xxhash.xxh64_intdigest((key or "").encode(), seed) for key in keys]
    assert hashes(keys, seed).tolist() == wanted == hashes(pa.chunked_array([keys, []], pa.string()), seed).tolist()


def test_share_is_met_on_many_documents():
    groups = hashes(keys(20_000), 1)
    assert abs(for_validation(groups, validation_limit([groups], 0.05)).mean() - 0.05) < 0.005


@given(st.integers(0, 6), st.sampled_from([1e-9, 0.01, 0.5, 0.999]))
def test_two_documents_are_enough_for_both_splits(size, share):
    groups = hashes(keys(size), 1)
    validation = for_validation(groups, validation_limit([groups[:1], groups[1:]], share))
    assert (0 < validation.sum() < size) if size > 1 else not validation.any()
    assert not for_validation(groups, validation_limit([groups], 0.0)).any()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 300), st.integers(1, 400), st.sampled_from([1, 3000, BUCKETS]))
def test_ranges_cover_the_order_without_gaps_and_evenly(size, shard_tokens, spread):
    """`spread`: the largest number of buckets with documents."""
    orders = hashes(keys(size), 0) // np.uint64(BUCKETS // spread)
    histogram = np.bincount(buckets(orders), minlength=BUCKETS) * 10
    ranges = shard_ranges({"train": histogram, "validation": np.zeros(BUCKETS, np.int64)}, shard_tokens)
    assert [found.number for found in ranges] == list(range(len(ranges))) and {found.split for found in ranges} == {"train"}
    assert ranges[0].low == 0 and ranges[-1].high == SPACE
    assert all(one.high == two.low for one, two in itertools.pairwise(ranges))
    sizes = [10 * sum(found.low <= order < found.high for order in orders.astype(object)) for found in ranges]
    assert sum(sizes) == 10 * size and min(sizes) > 0
    if spread == BUCKETS:
        assert max(sizes) <= shard_tokens + 20  # a document's length at each end, except for two in one of 65,536 buckets
