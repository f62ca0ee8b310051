from itertools import pairwise

import networkx
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.dedup import components as module
from corpusmill.dedup.components import _pack, components

COUNT = 12
Star = list[tuple[int, int]]
STARS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, COUNT - 1)), max_size=20, unique=True).map(sorted)
FILES = st.lists(STARS, max_size=3)
WEIGHTS = st.lists(st.integers(1, 9), min_size=COUNT, max_size=COUNT)


def arrays(files: list[Star]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(table[:, 0], table[:, 1]) for table in (np.array(file, np.int64).reshape(-1, 2) for file in files)]


def by_networkx(files: list[Star]) -> list[int]:
    """The lowest member of each document's component."""
    graph = networkx.Graph()
    graph.add_nodes_from(range(COUNT))
    graph.add_edges_from(((number, star), document) for number, file in enumerate(files) for star, document in file)
    found = {}
    for part in networkx.connected_components(graph):
        documents = [node for node in part if isinstance(node, int)]
        found.update(dict.fromkeys(documents, min(documents, default=-1)))
    return [found[d] for d in range(COUNT)]


@settings(deadline=None, max_examples=60)
@given(FILES, FILES, WEIGHTS)
def test_components_are_those_of_the_graph(groups: list[Star], buckets: list[Star], weight: list[int]) -> None:
    root, apart = components(COUNT, arrays(groups), arrays(buckets), np.array(weight), 9 * COUNT)
    assert root.tolist() == by_networkx([*groups, *buckets]) and apart == 0


def stars_of(files: list[Star]) -> list[list[int]]:
    return [[d for s, d in file if s == star] for file in files for star in sorted({s for s, _ in file})]


@settings(deadline=None, max_examples=100)
@given(FILES, FILES, WEIGHTS, st.integers(1, 40))
def test_components_keep_to_the_limit_but_for_copies(groups: list[Star], buckets: list[Star], weight: list[int], limit: int) -> None:
    root, apart = components(COUNT, arrays(groups), arrays(buckets), np.array(weight), limit)
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
        assert parts <= apart  # what was left apart in one bucket may come together by another


def test_small_buckets_are_joined_first() -> None:
    large, small = [(0, d) for d in range(8)], [(0, 6), (0, 7)]
    weight = np.ones(COUNT, np.int64)
    root, apart = components(COUNT, [], arrays([large, small]), weight, 2)
    assert root.tolist() == [0, 0, 2, 2, 4, 4, 6, 6, 8, 9, 10, 11]
    assert apart == 3  # before 2, 4 and 6


def test_copies_beyond_the_limit_stay_together() -> None:
    copies = [(0, d) for d in range(10)]
    root, apart = components(COUNT, arrays([copies]), arrays([[(0, 0), (0, 10)], [(0, 10), (0, 11)]]), np.ones(COUNT, np.int64), 4)
    assert root.tolist() == [0] * 10 + [10, 10] and apart == 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), max_size=30), st.integers(1, 40))
def test_groups_hold_whole_components_in_order(nodes: list[tuple[int, int]], limit: int) -> None:
    component, weight = np.array(nodes, np.int64).reshape(-1, 2).T
    before, module.GROUP_WORDS = module.GROUP_WORDS, limit
    try:
        group = _pack(component, weight)
    finally:
        module.GROUP_WORDS = before
    assert len(group) == len(nodes)
    assert sorted(set(group.tolist())) == list(range(len(set(group.tolist()))))
    number = {c: {g for g, d in zip(group.tolist(), component.tolist(), strict=True) if d == c} for c in set(component.tolist())}
    assert all(len(groups) == 1 for groups in number.values())
    in_order = [min(number[c]) for c in sorted(number)]
    assert all(a <= b for a, b in pairwise(in_order))
    for g in set(group.tolist()):
        parts = {c for c in number if g in number[c]}
        heaviest = max(weight[component == c].sum() for c in parts)
        assert weight[group == g].sum() < limit + heaviest
