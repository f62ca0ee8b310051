"""Tests choices by hash."""

import numpy as np
import pyarrow as pa
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.tokenize.documents import BUCKETS, buckets, hashes, remixed


@given(st.lists(st.none() | st.text(max_size=90)), st.integers(0, 2**33))
def test_hashes_are_xxh64_of_key_and_seed(keys, seed):
    wanted = [xxhash.xxh64_intdigest((key or "").encode(), seed) for key in keys]
    assert hashes(keys, seed).tolist() == wanted == hashes(pa.chunked_array([keys, []], pa.string()), seed).tolist()


def test_seeds_differ():
    assert hashes(["a"], 1).tolist() != hashes(["a"], 2).tolist()


def test_buckets_keep_the_order_and_are_filled_evenly():
    values = np.sort(hashes([str(n) for n in range(20_000)], 0))
    places = buckets(values)
    assert (np.diff(places) >= 0).all()
    assert places.min() >= 0 and places.max() < BUCKETS
    quarters = np.bincount(places // (BUCKETS // 4), minlength=4)
    assert (abs(quarters - 5000) < 400).all()
    assert buckets(np.array([0, 2**64 - 1], np.uint64)).tolist() == [0, BUCKETS - 1]


def test_further_hashes_of_a_document_have_nothing_to_do_with_each_other():
    first = np.sort(hashes([str(n) for n in range(20_000)], 0))
    second, third = remixed(first, 1), remixed(first, 2)
    assert len({*first.tolist(), *second.tolist(), *third.tolist()}) == 60_000
    for one, two in ((first, second), (second, third), (first, third)):
        assert abs(np.corrcoef(one.astype(float), two.astype(float))[0, 1]) < 0.03
    assert (abs(np.bincount(buckets(second) // (BUCKETS // 4), minlength=4) - 5000) < 400).all()
    assert remixed(first, np.arange(20_000) % 2 + 1).tolist() == np.where(np.arange(20_000) % 2, third, second).tolist()
