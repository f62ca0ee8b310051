"""Tests candidates, and the groups of documents that they connect."""

import networkx
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.dedup.candidates import (
    NEAR,
    connect,
    part_oversized,
)

COUNT = 12
Star = list[tuple[int, int]]
Files = list[tuple[np.ndarray, np.ndarray]]
STARS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, COUNT - 1)), max_size=20, unique=True).map(sorted)
FILES = st.lists(STARS, max_size=3)
WEIGHTS = st.lists(st.integers(1, 9), min_size=COUNT, max_size=COUNT)


def arrays(files: list[Star]) -> Files:
    return [(table[:, 0], table[:, 1]) for table in (np.array(file, np.int64).reshape(-1, 2) for file in files)]


def parted(groups: Files, buckets: Files, weight: np.ndarray, limit: int) -> tuple[np.ndarray, int]:
    """Returns the root of each document with a limit on components, and the number of candidates that the limit separates."""
    root, flags = connect(COUNT, groups, buckets)
    total = np.bincount(root[flags > 0], weight[flags > 0], COUNT)
    if not (total > limit).any():
        return root, 0
    apart = part_oversized(root, flags, weight.astype(np.uint32), root.copy(), total > limit, groups, buckets, limit)
    return root, apart


def by_networkx(files: list[Star]) -> list[int]:
    """Returns the lowest member of each document's component."""
    graph = networkx.Graph()
    graph.add_nodes_from(range(COUNT))
    graph.add_edges_from(((number, star), document) for number, file in enumerate(files) for star, document in file)
    found = {}
    for part in networkx.connected_components(graph):
        documents = [node for node in part if isinstance(node, int)]
        found.update(dict.fromkeys(documents, min(documents, default=-1)))
    return [found[d] for d in range(COUNT)]


@settings(deadline=None, max_examples=200)
@given(FILES, FILES)
def test_components_are_those_of_the_graph(groups: list[Star], buckets: list[Star]) -> None:
    root, flags = connect(COUNT, arrays(groups), arrays(buckets))
    assert root.tolist() == by_networkx([*groups, *buckets])
    assert set(np.flatnonzero(flags)) == {document for file in [*groups, *buckets] for _, document in file}
    assert set(np.flatnonzero(flags & NEAR)) == {document for file in buckets for _, document in file}


def stars_of(files: list[Star]) -> list[list[int]]:
    return [[d for s, d in file if s == star] for file in files for star in sorted({s for s, _ in file})]


@settings(deadline=None, max_examples=100)
@given(FILES, FILES, WEIGHTS, st.integers(1, 40))
def test_components_keep_to_the_limit_but_for_copies(groups: list[Star], buckets: list[Star], weights: list[int], limit: int) -> None:
    weight = np.array(weights)
    root, apart = parted(arrays(groups), arrays(buckets), weight, limit)
    whole, copies = by_networkx([*groups, *buckets]), by_networkx(groups)
    total = np.bincount(root, weight, COUNT)
    of_copies = np.bincount(copies, weight, COUNT)
    for d in range(COUNT):
        assert root[d] == min(np.flatnonzero(root == root[d]))
        assert root[d] == root[copies[d]], "copies are never parted"
        assert whole[d] == whole[root[d]], "only what is connected is together"
        assert total[root[d]] <= limit or total[root[d]] == of_copies[copies[d]]
    parts = sum(len(set(root[star].tolist())) - 1 for star in stars_of(buckets))
    if np.bincount(whole, weight, COUNT).max() <= limit:
        assert root.tolist() == whole and apart == 0
    else:
        assert parts <= apart  # documents separated in one bucket may be joined by another
