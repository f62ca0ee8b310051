"""The sample depends on ids, lengths and the seed alone."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.tokenize.chance import BUCKETS
from corpusmill.tokenize.sampling import bucket_sizes, buckets_needed, in_sample


def documents(sizes):
    return pa.table({"id": [f"doc{n}" for n in range(len(sizes))], "text": pa.array(["x" * size for size in sizes], pa.large_string())})


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 500), min_size=1, max_size=60), st.integers(1, 10_000), st.integers(0, 3))
def test_sample_is_just_enough_text(sizes, wanted, seed):
    table = documents(sizes)
    histogram = bucket_sizes(table, seed)
    assert histogram.sum() == sum(sizes)
    chosen = buckets_needed(histogram, wanted)
    sample = in_sample(table, seed, chosen)
    size = sum(map(len, sample["text"].to_pylist()))
    assert size == histogram[:chosen].sum()
    if wanted >= sum(sizes):
        assert size == sum(sizes)
    else:
        assert size >= wanted and histogram[: chosen - 1].sum() < wanted


def test_layout_plays_no_part():
    table = documents([10] * 100)
    backwards = table.take(list(range(99, -1, -1)))
    assert np.array_equal(bucket_sizes(table, 3), bucket_sizes(backwards.slice(0, 40), 3) + bucket_sizes(backwards.slice(40), 3))
    assert sorted(in_sample(table, 3, BUCKETS // 3)["id"].to_pylist()) == sorted(in_sample(backwards, 3, BUCKETS // 3)["id"].to_pylist())
    assert sorted(in_sample(table, 4, BUCKETS // 3)["id"].to_pylist()) != sorted(in_sample(table, 3, BUCKETS // 3)["id"].to_pylist())


def test_documents_without_text_are_no_reason_to_stop():
    assert in_sample(documents([0, 0]), 0, buckets_needed(np.zeros(BUCKETS, np.int64), 5)).num_rows == 2
