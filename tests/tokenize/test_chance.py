"""Choices by hash."""

import numpy as np
import xxhash

from corpusmill.tokenize.chance import BUCKETS, buckets, hashes


def test_hashes_are_xxh3_of_key_and_seed():
    assert hashes(["a", None], 7).tolist() == [xxhash.xxh3_64_intdigest(b"a", 7), xxhash.xxh3_64_intdigest(b"", 7)]
    assert hashes(["a"], 1).tolist() != hashes(["a"], 2).tolist()


def test_buckets_keep_the_order_and_are_filled_evenly():
    values = np.sort(hashes([str(n) for n in range(20_000)], 0))
    places = buckets(values)
    assert (np.diff(places) >= 0).all()
    assert places.min() >= 0 and places.max() < BUCKETS
    quarters = np.bincount(places // (BUCKETS // 4), minlength=4)
    assert (abs(quarters - 5000) < 400).all()
    assert buckets(np.array([0, 2**64 - 1], np.uint64)).tolist() == [0, BUCKETS - 1]
