"""What is connected by candidates, be the documents in one range or in many; what is too heavy; and groups of components."""

from collections.abc import Iterator
from itertools import pairwise

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.dedup import heavy, packing
from corpusmill.dedup.components import MEMBERS, connect
from corpusmill.dedup.packing import DOCUMENT_WORDS, JUDGED, PARTED, WEIGHED, Packer, group
from corpusmill.dedup.spill import Spill

COUNT = 12
Star = list[tuple[int, int]]
Files = list[tuple[np.ndarray, np.ndarray]]
STARS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, COUNT - 1)), max_size=20, unique=True).map(sorted)
FILES = st.lists(STARS, max_size=3)
WEIGHTS = st.lists(st.integers(1, 9), min_size=COUNT, max_size=COUNT)
#: Where ranges of documents begin and end; some have none.
BOUNDS = st.lists(st.integers(0, COUNT), max_size=6).map(lambda cuts: [0, *sorted(cuts), COUNT])
ONE_RANGE = [0, COUNT]
#: Records that are read at once, and words that wait to be written: so few that there are several of each.
SIZES = st.tuples(st.integers(1, 7), st.integers(1, 40))
LARGE = (1 << 20, 1 << 20)


def arrays(files: list[Star]) -> Files:
    return [(table[:, 0], table[:, 1]) for table in (np.array(file, np.int64).reshape(-1, 2) for file in files)]


def records(spill: Spill, name: str, columns: int) -> np.ndarray:
    return np.concatenate([spill.all_of(name, number, columns) for number in range(spill.ranges)])


def connected(bounds: list[int], groups: Files, buckets: Files, sizes: tuple[int, int] = LARGE) -> tuple[list[int], set[int], Spill]:
    """The root of each document, those in a bucket, and what is spilled."""
    spill = Spill(np.array(bounds), *sizes)
    connect(spill, groups, buckets)
    members = records(spill, MEMBERS, 3)
    assert (np.diff(members[:, 0]) > 0).all()
    assert set(members[:, 0]) == {d for files in (groups, buckets) for _, document in files for d in document}
    root = np.arange(bounds[-1])
    root[members[:, 0]] = members[:, 2]
    return root.tolist(), set(members[members[:, 1] == 1, 0]), spill


def parted(
    bounds: list[int], groups: Files, buckets: Files, weight: np.ndarray, limit: int, sizes: tuple[int, int] = LARGE
) -> tuple[np.ndarray, int]:
    """The root of each document where components keep to the limit, and how many candidates were left apart."""
    root, _, spill = connected(bounds, groups, buckets, sizes)
    members = records(spill, MEMBERS, 3)
    spill.put(WEIGHED, spill.range_of(members[:, 0]), np.column_stack([members, weight[members[:, 0]]]))
    too_heavy = np.flatnonzero(np.bincount(members[:, 2], weight[members[:, 0]], COUNT) > limit)
    if not len(too_heavy):
        return np.array(root), 0
    apart = heavy.part(spill, WEIGHED, PARTED, too_heavy, groups, buckets, limit)
    found, after = np.array(root), records(spill, PARTED, 4)
    assert (after[:, [0, 1, 3]] == records(spill, WEIGHED, 4)[:, [0, 1, 3]]).all()
    found[after[:, 0]] = after[:, 2]
    return found, apart


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


@settings(deadline=None, max_examples=200)
@given(BOUNDS, FILES, FILES, SIZES)
def test_components_are_those_of_the_graph(bounds: list[int], groups: list[Star], buckets: list[Star], sizes: tuple[int, int]) -> None:
    root, near, _ = connected(bounds, arrays(groups), arrays(buckets), sizes)
    assert root == by_networkx([*groups, *buckets])
    assert near == {document for file in buckets for _, document in file}


@pytest.mark.parametrize("ranges", [1, 7, 100])
@pytest.mark.parametrize("sizes", [(1000, 5000), LARGE])
def test_many_documents_in_components_of_all_sizes(ranges: int, sizes: tuple[int, int]) -> None:
    """Random pairs: beyond one for two documents, one component takes a part of all (Erdos and Renyi), here a third."""
    draw = np.random.default_rng(ranges)
    pairs = np.sort(draw.integers(0, 20_000, (12_000, 2)), axis=1)
    stars = np.repeat(np.arange(len(pairs)), 2)
    graph = networkx.Graph()
    graph.add_nodes_from(range(20_000))
    graph.add_edges_from(pairs.tolist())
    expected = {d: min(part) for part in networkx.connected_components(graph) for d in part}
    root, _, _ = connected(np.linspace(0, 20_000, ranges + 1).astype(int).tolist(), [], [(stars, pairs.reshape(-1))], sizes)
    assert root == [expected[d] for d in range(20_000)]
    assert max(np.bincount(root)) > 5_000


def stars_of(files: list[Star]) -> list[list[int]]:
    return [[d for s, d in file if s == star] for file in files for star in sorted({s for s, _ in file})]


@settings(deadline=None, max_examples=100)
@given(BOUNDS, FILES, FILES, WEIGHTS, st.integers(1, 40), SIZES)
def test_components_keep_to_the_limit_but_for_copies(
    bounds: list[int], groups: list[Star], buckets: list[Star], weights: list[int], limit: int, sizes: tuple[int, int]
) -> None:
    weight = np.array(weights)
    root, apart = parted(bounds, arrays(groups), arrays(buckets), weight, limit, sizes)
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
    in_one = parted(ONE_RANGE, arrays(groups), arrays(buckets), weight, limit)
    assert (root.tolist(), apart) == (in_one[0].tolist(), in_one[1])


def test_small_buckets_are_joined_first() -> None:
    large, small = [(0, d) for d in range(8)], [(0, 6), (0, 7)]
    weight = np.ones(COUNT, np.int64)
    root, apart = parted(ONE_RANGE, [], arrays([large, small]), weight, 2)
    assert root.tolist() == [0, 0, 2, 2, 4, 4, 6, 6, 8, 9, 10, 11]
    assert apart == 3  # before 2, 4 and 6


def test_copies_beyond_the_limit_stay_together() -> None:
    copies = [(0, d) for d in range(10)]
    root, apart = parted(ONE_RANGE, arrays([copies]), arrays([[(0, 0), (0, 10)], [(0, 10), (0, 11)]]), np.ones(COUNT, np.int64), 4)
    assert root.tolist() == [0] * 10 + [10, 10] and apart == 1


@pytest.fixture
def small_groups() -> Iterator[None]:
    before, packing.GROUP_WORDS = packing.GROUP_WORDS, 3 * DOCUMENT_WORDS
    yield
    packing.GROUP_WORDS = before


@settings(deadline=None, max_examples=200)
@given(BOUNDS, FILES, FILES, WEIGHTS, st.integers(0, COUNT), SIZES)
@pytest.mark.usefixtures("small_groups")
def test_ranges_decide_nothing(
    bounds: list[int], groups: list[Star], buckets: list[Star], near: list[int], own: int, sizes: tuple[int, int]
) -> None:
    def judged(bounds: list[int], sizes: tuple[int, int]) -> tuple[list[list[int]], int, int]:
        spill, words = Spill(np.array(bounds), *sizes), DOCUMENT_WORDS * np.array(near) // 9
        count, apart = group(spill, arrays(groups), arrays(buckets), lambda number: words[slice(*bounds[number : number + 2])], own)
        assert not [name for name in spill.names if name != JUDGED]
        return records(spill, JUDGED, 4).tolist(), count, apart

    found, count, apart = judged(bounds, sizes)
    assert (found, count, apart) == judged(ONE_RANGE, LARGE)
    assert {row[2] for row in found} == set(range(count))
    root = by_networkx([*groups, *buckets])
    within = {document for file in [*groups, *buckets] for _, document in file}
    if not apart:
        assert [row[0] for row in found] == sorted(d for d in within if root[d] < own)
        of = {row[0]: row[2] for row in found}
        assert all(of[d] == of[root[d]] for d in of)
    for document, is_near, _, weight in found:
        assert is_near == any(document == d for file in buckets for _, d in file)
        assert weight == DOCUMENT_WORDS + is_near * (DOCUMENT_WORDS * near[document] // 9)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(1, 9), max_size=10), max_size=5), st.integers(1, 40))
def test_groups_hold_whole_components_in_order(weights: list[list[int]], limit: int) -> None:
    before, packing.GROUP_WORDS = packing.GROUP_WORDS, limit
    try:
        packer = Packer()
        number = [n for some in weights for n in packer.pack(np.array(some, np.int64)).tolist()]
        assert number == Packer().pack(np.concatenate([np.zeros(0, np.int64), *(np.array(some, np.int64) for some in weights)])).tolist()
    finally:
        packing.GROUP_WORDS = before
    assert sorted(set(number)) == list(range(packer.groups))
    assert all(b - a in (0, 1) for a, b in pairwise(number))
    weight = np.array([w for some in weights for w in some])
    for g in range(packer.groups):
        mine = weight[np.array(number) == g]
        assert mine.sum() < limit + mine.max()
