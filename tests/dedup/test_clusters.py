"""Tests groups of candidates, the representatives of clusters, and the similarity that decides."""

import networkx
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.dedup.candidates import NEAR, connect
from corpusmill.dedup.clusters import Evidence, choose_representatives, similarity

COUNT, BUCKETS = 9, 6
MEMBERS = st.lists(st.tuples(st.integers(0, BUCKETS - 1), st.integers(0, COUNT - 1)), max_size=30, unique=True).map(sorted)
NO_LIMIT = 1000
FILES = st.lists(MEMBERS, max_size=3)


def arrays(files: list[list[tuple[int, int]]]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(table[:, 0], table[:, 1]) for table in (np.array(file, np.int64).reshape(-1, 2) for file in files)]


@settings(deadline=None, max_examples=200)
@given(FILES, FILES)
def test_groups_are_the_components_of_the_graph(copies: list[list[tuple[int, int]]], near: list[list[tuple[int, int]]]) -> None:
    graph = networkx.Graph()
    graph.add_nodes_from(range(COUNT))
    graph.add_edges_from(((number, star), document) for number, file in enumerate([*copies, *near]) for star, document in file)
    expected = {}
    for part in networkx.connected_components(graph):
        documents = [node for node in part if isinstance(node, int)]
        expected |= dict.fromkeys(documents, min(documents, default=-1))
    root, flags = connect(COUNT, arrays(copies), arrays(near))
    assert root.tolist() == [expected[document] for document in range(COUNT)]
    assert set(np.flatnonzero(flags)) == {document for file in [*copies, *near] for _, document in file}
    assert set(np.flatnonzero(flags & NEAR)) == {document for file in near for _, document in file}


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
