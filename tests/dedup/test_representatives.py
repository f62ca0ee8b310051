"""Tests the representatives of clusters, and the similarity that decides."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.dedup.clusters import Evidence, choose_representatives, least_equal, shared, similarity

COUNT, BUCKETS = 9, 6
MEMBERS = st.lists(st.tuples(st.integers(0, BUCKETS - 1), st.integers(0, COUNT - 1)), max_size=30, unique=True).map(sorted)
NO_LIMIT = 1000


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


SETS = st.lists(st.frozensets(st.integers(0, 7), min_size=1, max_size=6), min_size=COUNT, max_size=COUNT)


@settings(deadline=None, max_examples=100)
@given(SETS, st.permutations(range(COUNT)), st.sampled_from([0.5, 0.8, 1.0]))
def test_under_containment_what_goes_is_contained_in_what_stays(sets: list[frozenset[int]], order: list[int], threshold: float) -> None:
    hashes = np.array([h for s in sets for h in sorted(s)], np.uint64)
    ends = np.cumsum([0, *map(len, sets)])
    bounds, every = np.stack([ends[:-1], ends[1:]], axis=1), np.ones(COUNT, bool)
    evidence = Evidence(np.zeros((COUNT, 1), np.uint32), hashes, bounds, every, every, np.zeros(COUNT, bool), 0, threshold, True)
    own: list[set[int]] = [{0}] * COUNT
    *found, _ = choose_representatives(np.array(order), *flat(own), NO_LIMIT, NO_LIMIT, 0, evidence)
    expected, _ = slow_representatives(order, own, lambda a, b: len(sets[a] & sets[b]) / len(sets[a]), threshold, NO_LIMIT, NO_LIMIT, 0)
    assert [column.tolist() for column in found] == expected


def test_a_bucket_is_compared_up_to_its_limit() -> None:
    evidence = by_signatures(np.array([[1], [2], [3], [3]], np.uint32), 1.0)
    arguments = (np.arange(4), np.zeros(4, np.int64), np.arange(5), 1)
    representative, _, _, limited = choose_representatives(*arguments, 2, NO_LIMIT, 0, evidence)
    assert representative.tolist() == [0, 1, 2, 3] and limited == 1
    representative, _, _, limited = choose_representatives(*arguments, 3, NO_LIMIT, 0, evidence)
    assert representative.tolist() == [0, 1, 2, 2] and limited == 0


def test_a_text_without_a_set_is_compared_by_its_signature() -> None:
    signatures = np.array([[1, 2, 3, 4], [1, 2, 3, 9], [1, 2, 3, 4]], np.uint32)
    hashes = np.array([1, 2, 1, 2, 3], np.uint64)
    have, bounds = np.array([True, True, False]), np.array([[0, 2], [2, 5], [0, 0]])
    evidence = Evidence(signatures, hashes, bounds, have, have, np.zeros(3, bool), 0, 0.5, False)
    representative, value, _, _ = choose_representatives(
        np.arange(3), np.zeros(3, np.int64), np.arange(4), 1, NO_LIMIT, NO_LIMIT, 0, evidence
    )
    assert representative.tolist() == [0, 0, 0] and value.tolist() == [1.0, 2 / 3, 1.0]


def test_sets_that_are_not_made_are_asked_for() -> None:
    signatures = np.array([[1, 2, 3, 4], [1, 2, 3, 9], [9, 9, 9, 9]], np.uint32)
    every, wanted = np.ones(3, bool), np.zeros(3, bool)
    made = np.array([True, False, False])
    evidence = Evidence(signatures, np.array([1, 2], np.uint64), np.array([[0, 2], [0, 0], [0, 0]]), every, made, wanted, 2, 0.5, False)
    representative, value, _, _ = choose_representatives(
        np.arange(3), np.zeros(3, np.int64), np.arange(4), 1, NO_LIMIT, NO_LIMIT, 0, evidence
    )
    assert wanted.tolist() == [False, True, False]  # the third is decided by its signature
    assert representative.tolist() == [0, 0, 2] and value.tolist() == [1.0, 0.75, 1.0]


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


@settings(deadline=None)
@given(HASH_SETS, HASH_SETS)
def test_shared_counts_the_common_members(a: frozenset[int], b: frozenset[int]) -> None:
    assert shared(np.array(sorted(a), np.uint64), np.array(sorted(b), np.uint64)) == len(a & b)


def test_signatures_alone_decide_only_what_is_far_below_the_threshold() -> None:
    assert least_equal(0.75, 112) == 71  # .75 less three standard errors of .041
    assert least_equal(1.0, 112) == 112
    assert least_equal(0.05, 112) == 0
