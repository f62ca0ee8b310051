"""Tests groups of candidates, the representatives of clusters, and the similarity that decides."""

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.dedup import candidates
from corpusmill.dedup.candidates import DOCUMENT_WORDS, NEAR, connect, group_documents, part_oversized
from corpusmill.dedup.clusters import Evidence, choose_representatives, similarity

COUNT, BUCKETS = 9, 6
MEMBERS = st.lists(st.tuples(st.integers(0, BUCKETS - 1), st.integers(0, COUNT - 1)), max_size=30, unique=True).map(sorted)
NO_LIMIT = 1000
FILES = st.lists(MEMBERS, max_size=3)


def arrays(files: list[list[tuple[int, int]]]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(table[:, 0], table[:, 1]) for table in (np.array(file, np.int64).reshape(-1, 2) for file in files)]


def by_networkx(files: list[list[tuple[int, int]]]) -> list[int]:
    """Returns the lowest member of each document's component."""
    graph = networkx.Graph()
    graph.add_nodes_from(range(COUNT))
    graph.add_edges_from(((number, star), document) for number, file in enumerate(files) for star, document in file)
    found = {}
    for part in networkx.connected_components(graph):
        documents = [node for node in part if isinstance(node, int)]
        found |= dict.fromkeys(documents, min(documents, default=-1))
    return [found[document] for document in range(COUNT)]


@settings(deadline=None, max_examples=200)
@given(FILES, FILES)
def test_groups_are_the_components_of_the_graph(copies: list[list[tuple[int, int]]], near: list[list[tuple[int, int]]]) -> None:
    root, flags = connect(COUNT, arrays(copies), arrays(near))
    assert root.tolist() == by_networkx([*copies, *near])
    assert set(np.flatnonzero(flags)) == {document for file in [*copies, *near] for _, document in file}
    assert set(np.flatnonzero(flags & NEAR)) == {document for file in near for _, document in file}


WEIGHTS = st.lists(st.integers(1, 9), min_size=COUNT, max_size=COUNT)


def parted(copies, near, weight: np.ndarray, limit: int) -> tuple[np.ndarray, int]:  # type: ignore[no-untyped-def]
    """Returns the root of each document with a limit on components, and the number of candidates that the limit separates."""
    root, flags = connect(COUNT, arrays(copies), arrays(near))
    total = np.bincount(root[flags > 0], weight[flags > 0], COUNT)
    if not (total > limit).any():
        return root, 0
    apart = part_oversized(root, flags, weight.astype(np.uint32), root.copy(), total > limit, arrays(copies), arrays(near), limit)
    return root, apart


@settings(deadline=None)
@given(FILES, FILES, WEIGHTS, st.integers(1, 40))
def test_groups_keep_to_the_limit_but_for_copies(copies, near, weights: list[int], limit: int) -> None:  # type: ignore[no-untyped-def]
    weight = np.array(weights)
    root, apart = parted(copies, near, weight, limit)
    whole, of = by_networkx([*copies, *near]), by_networkx(copies)
    total, of_copies = np.bincount(root, weight, COUNT), np.bincount(of, weight, COUNT)
    for d in range(COUNT):
        assert root[d] == min(np.flatnonzero(root == root[d]))
        assert root[d] == root[of[d]], "copies are never parted"
        assert whole[d] == whole[root[d]], "only what is connected is together"
        assert total[root[d]] <= limit or total[root[d]] == of_copies[of[d]]
    if np.bincount(whole, weight, COUNT).max() <= limit:
        assert root.tolist() == whole and apart == 0


def test_small_buckets_are_joined_first() -> None:
    large, small = [(0, d) for d in range(8)], [(0, 6), (0, 7)]
    root, apart = parted([], [large, small], np.ones(COUNT, np.int64), 2)
    assert root.tolist() == [0, 0, 2, 2, 4, 4, 6, 6, 8]
    assert apart == 3  # earlier than 2, 4 and 6


@settings(deadline=None)
@given(FILES, FILES, WEIGHTS, st.integers(0, COUNT))
def test_a_task_gets_whole_groups_that_have_a_document_of_this_run(copies, near, weights: list[int], own_documents: int) -> None:  # type: ignore[no-untyped-def]
    words = (DOCUMENT_WORDS * np.array(weights) // 9).astype(np.uint32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "GROUP_WORDS", 3 * DOCUMENT_WORDS)
        found = group_documents(words.copy(), arrays(copies), arrays(near), own_documents)
    rows = [row for a, b in ((0, 5), (5, 5), (5, COUNT)) for row in ((r["row"] + a, r) for r in found.table(a, b).to_pylist())]
    assert {row["group"] for _, row in rows} == set(range(found.count))
    root, within = by_networkx([*copies, *near]), {document for file in [*copies, *near] for _, document in file}
    if not found.apart:
        assert [document for document, _ in rows] == sorted(d for d in within if root[d] < own_documents)
        of = {document: row["group"] for document, row in rows}
        assert all(of[d] == of[root[d]] for d in of)
    for document, row in rows:
        assert row["near"] == any(document == d for file in near for _, d in file)
        assert row["words"] == DOCUMENT_WORDS + row["near"] * int(words[document])


def by_signatures(signatures: np.ndarray, threshold: float) -> Evidence:
    count = len(signatures)
    none = np.zeros(count, bool)
    return Evidence(signatures, np.zeros(0, np.uint64), np.zeros((count, 2), np.int64), none, none, none.copy(), 0, threshold, False)


def flat(own: list[set[int]]) -> tuple[np.ndarray, np.ndarray, int]:
    return np.array([b for buckets in own for b in sorted(buckets)], np.int64), np.cumsum([0, *map(len, own)]), BUCKETS


def slow_representatives(order, own, similarity, threshold, bucket_limit, cluster_limit, forced):  # type: ignore[no-untyped-def]
    """Computes the same by definition: the first kept document that is similar and whose cluster is among the first of a shared bucket."""
    kept: list[int] = []
    in_bucket: list[list[int]] = [[] for _ in range(BUCKETS)]  # the kept documents of the clusters that have a member in the bucket
    members: dict[int, int] = {}
    found: dict[int, tuple[int, float, bool]] = {}
    limited = 0
    for place, d in enumerate(order):
        chosen = None
        if place >= forced:
            near = {k for b in own[d] for k in in_bucket[b][:bucket_limit]}
            limited += sum(len(in_bucket[b]) > bucket_limit for b in own[d])
            chosen = next((k for k in kept if k in near and similarity(d, k) >= threshold), None)
        if chosen is None:
            kept.append(d)
            members[d] = 0
            found[d] = d, 1.0, False
        else:
            full = members[chosen] >= cluster_limit
            members[chosen] += not full
            found[d] = chosen, similarity(d, chosen), full
        for b in own[d]:
            if found[d][0] not in in_bucket[b][:bucket_limit]:
                in_bucket[b].append(found[d][0])
    return [list(column) for column in zip(*(found[d] for d in range(COUNT)), strict=True)], limited


@given(
    MEMBERS, st.permutations(range(COUNT)), st.integers(0, 2**32), st.sampled_from([0.25, 0.5, 0.75, 1.0]),
    st.sampled_from([1, 2, NO_LIMIT]), st.sampled_from([1, 2, NO_LIMIT]), st.sampled_from([0, 0, 3]),
)  # fmt: skip
def test_representatives_are_what_the_slow_greedy_finds(members, order, seed, threshold, bucket_limit, cluster_limit, forced) -> None:  # type: ignore[no-untyped-def]
    signatures = np.random.default_rng(seed).integers(0, 2, (COUNT, 4)).astype(np.uint32)
    own = [{b for b, d in members if d == i} for i in range(COUNT)]
    *found, limited = choose_representatives(
        np.array(order), *flat(own), bucket_limit, cluster_limit, forced, by_signatures(signatures, threshold)
    )
    expected, slow_limited = slow_representatives(
        order, own, lambda a, b: float(np.mean(signatures[a] == signatures[b])), threshold, bucket_limit, cluster_limit, forced
    )
    assert [column.tolist() for column in found] == expected
    assert limited == slow_limited


HASH_SETS = st.frozensets(st.integers(0, 30), min_size=1, max_size=12)


def evidence(sets: list[frozenset[int]], threshold: float, containment: bool) -> Evidence:
    hashes = np.array([h for s in sets for h in sorted(s)], np.uint64)
    ends = np.cumsum([0, *map(len, sets)])
    bounds = np.stack([ends[:-1], ends[1:]], axis=1)
    everything, nothing = np.ones(len(sets), bool), np.zeros(len(sets), bool)
    return Evidence(np.zeros((len(sets), 1), np.uint32), hashes, bounds, everything, everything, nothing, 0, threshold, containment)


@settings(deadline=None)
@given(HASH_SETS, HASH_SETS, st.sampled_from([0.01, 0.5, 0.75, 1.0]), st.booleans())
def test_similarity_is_that_of_the_sets(a: frozenset[int], b: frozenset[int], threshold: float, containment: bool) -> None:
    expected = len(a & b) / (len(a) if containment else len(a | b))
    assert similarity(0, 1, evidence([a, b], threshold, containment)) == (expected if expected >= threshold else -1)
