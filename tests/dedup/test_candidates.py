"""Tests candidates, and the groups of documents that they connect."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.dedup import candidates
from corpusmill.dedup.candidates import (
    DOCUMENT_WORDS,
    NEAR,
    buckets,
    candidate_tasks,
    connect,
    equal_keys,
    group_documents,
    pack,
    part_oversized,
)
from corpusmill.dedup.external_sort import BAND_KEYS
from corpusmill.pipeline.manifest import FileRef

ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=30)


def columns(rows: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(rows, np.uint64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


@settings(deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_groups_are_of_equal_keys_and_named_by_their_first(rows: list[tuple[int, int]], shuffle) -> None:  # type: ignore[no-untyped-def]
    documents = [10 * i for i in range(len(rows))]
    shuffle.shuffle(documents)
    first, document = equal_keys(*columns(rows), np.array(documents, np.int64))
    groups = defaultdict(list)
    for row, d in zip(rows, documents, strict=True):
        groups[row].append(d)
    expected = sorted((min(g), d) for g in groups.values() if len(g) > 1 for d in g)
    assert list(zip(first.tolist(), document.tolist(), strict=True)) == expected


@settings(deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_buckets_hold_the_first_of_each_text_and_at_least_two(rows: list[tuple[int, int]], shuffle) -> None:  # type: ignore[no-untyped-def]
    documents = [10 * i for i in range(len(rows))]
    shuffle.shuffle(documents)
    bucket, document = buckets(*columns(rows), np.array(documents, np.int64))
    slow: dict[int, dict[int, int]] = defaultdict(dict)
    for (key, text), d in zip(rows, documents, strict=True):
        slow[key][text] = min(d, slow[key].get(text, d))
    shared = [sorted(texts.values()) for texts in slow.values() if len(texts) > 1]
    found = [document[bucket == b].tolist() for b in range(bucket.max(initial=-1) + 1)]
    assert sorted(found) == sorted(shared)
    assert (np.diff(bucket) >= 0).all()
    assert [members[0] for members in found] == sorted(members[0] for members in found)


def test_a_task_reads_one_range_of_all_files() -> None:
    keys = FileRef("dedup/lists/keys-bands.files.json", "5ad0")
    tasks = candidate_tasks(BAND_KEYS, keys, 4, True)
    assert [task.key for task in tasks] == [f"candidates/buckets-{part:05d}" for part in range(4)]
    for part, task in enumerate(tasks):
        assert task.inputs == (keys,) and task.params == {"kind": BAND_KEYS, "parts": 4, "part": part, "collapse": True}


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


def test_many_documents_in_components_of_all_sizes() -> None:
    """Random pairs: with more than one pair for two documents, one component takes a share of all (Erdos and Renyi), here a third."""
    pairs = np.sort(np.random.default_rng(7).integers(0, 20_000, (12_000, 2)), axis=1)
    graph = networkx.Graph()
    graph.add_nodes_from(range(20_000))
    graph.add_edges_from(pairs.tolist())
    expected = {d: min(part) for part in networkx.connected_components(graph) for d in part}
    root, _ = connect(20_000, [], [(np.repeat(np.arange(len(pairs)), 2), pairs.reshape(-1))])
    assert root.tolist() == [expected[d] for d in range(20_000)]
    assert max(np.bincount(root)) > 5_000


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


def test_small_buckets_are_joined_first() -> None:
    large, small = [(0, d) for d in range(8)], [(0, 6), (0, 7)]
    weight = np.ones(COUNT, np.int64)
    root, apart = parted([], arrays([large, small]), weight, 2)
    assert root.tolist() == [0, 0, 2, 2, 4, 4, 6, 6, 8, 9, 10, 11]
    assert apart == 3  # earlier than 2, 4 and 6


def test_copies_beyond_the_limit_stay_together() -> None:
    copies = [(0, d) for d in range(10)]
    root, apart = parted(arrays([copies]), arrays([[(0, 0), (0, 10)], [(0, 10), (0, 11)]]), np.ones(COUNT, np.int64), 4)
    assert root.tolist() == [0] * 10 + [10, 10] and apart == 1


@pytest.fixture
def small_groups() -> Iterator[None]:
    before, candidates.GROUP_WORDS = candidates.GROUP_WORDS, 3 * DOCUMENT_WORDS
    yield
    candidates.GROUP_WORDS = before


@settings(deadline=None, max_examples=200)
@given(FILES, FILES, WEIGHTS, st.integers(0, COUNT))
@pytest.mark.usefixtures("small_groups")
def test_components_of_this_run_are_whole_in_groups(groups: list[Star], buckets: list[Star], near: list[int], own_documents: int) -> None:
    words = (DOCUMENT_WORDS * np.array(near) // 9).astype(np.uint32)
    found = group_documents(words.copy(), arrays(groups), arrays(buckets), own_documents)
    rows = [row for a, b in ((0, 5), (5, 5), (5, COUNT)) for row in ((r["row"] + a, r) for r in found.table(a, b).to_pylist())]
    assert {row["group"] for _, row in rows} == set(range(found.count))
    root = by_networkx([*groups, *buckets])
    within = {document for file in [*groups, *buckets] for _, document in file}
    if not found.apart:
        assert [document for document, _ in rows] == sorted(d for d in within if root[d] < own_documents)
        of = {document: row["group"] for document, row in rows}
        assert all(of[d] == of[root[d]] for d in of)
    for document, row in rows:
        assert row["near"] == any(document == d for file in buckets for _, d in file)
        assert row["words"] == DOCUMENT_WORDS + row["near"] * int(words[document])


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), max_size=50), st.integers(1, 40))
def test_groups_hold_whole_components_in_order(weights: list[int], limit: int) -> None:
    before, candidates.GROUP_WORDS = candidates.GROUP_WORDS, limit
    try:
        number = pack(np.array(weights, np.int64)).tolist()
    finally:
        candidates.GROUP_WORDS = before
    assert sorted(set(number)) == list(range(max(number, default=-1) + 1))
    assert all(b - a in (0, 1) for a, b in pairwise(number))
    weight = np.array(weights)
    for g in set(number):
        mine = weight[np.array(number) == g]
        assert mine.sum() < limit + mine.max()
