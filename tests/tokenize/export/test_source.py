"""Tests stretches: whole documents in their order, none lost, and no stretch too long unless it is a single document."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from token_sets import write_token_set

from corpusmill.tokenize.export.source import SplitSource


@given(
    st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=12), min_size=1, max_size=4),
    st.integers(1, 60),
    st.sampled_from([5_000, 100_000]),
)
def test_stretches_are_the_documents_in_order(tmp_path_factory, sizes, most, vocabulary):
    folder = tmp_path_factory.mktemp("shards")
    random = np.random.default_rng(most)
    shards = [[random.integers(0, vocabulary, size) for size in documents] for documents in sizes]
    write_token_set(folder, shards, vocabulary, "0" * 64)
    source, found = SplitSource(str(folder), "train", "0" * 64), []
    for stretch in source.all_stretches(most):
        assert len(stretch.tokens) <= most or len(stretch.counts) == 1
        assert stretch.ends()[-1] == len(stretch.tokens)
        found.append((stretch.documents["id"].to_pylist(), np.split(stretch.tokens, stretch.ends()[:-1])))
    names = [f"{number}/{row}" for number, documents in enumerate(sizes) for row in range(len(documents))]
    assert [name for ids, _ in found for name in ids] == names
    read = [ids.tolist() for _, documents in found for ids in documents]
    assert read == [ids.tolist() for documents in shards for ids in documents]
