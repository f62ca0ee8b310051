"""Tests candidates, and the groups of documents that they connect."""

import networkx
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.dedup.candidates import (
    NEAR,
    connect,
)

COUNT = 12
Star = list[tuple[int, int]]
Files = list[tuple[np.ndarray, np.ndarray]]
STARS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, COUNT - 1)), max_size=20, unique=True).map(sorted)
FILES = st.lists(STARS, max_size=3)


def arrays(files: list[Star]) -> Files:
    return [(table[:, 0], table[:, 1]) for table in (np.array(file, np.int64).reshape(-1, 2) for file in files)]


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
