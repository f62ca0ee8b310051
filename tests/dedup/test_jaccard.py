import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.dedup.clusters import least_equal
from corpusmill.dedup.representatives import Evidence, shared, similarity

SETS = st.frozensets(st.integers(0, 30), min_size=1, max_size=12)


def evidence(sets: list[frozenset[int]], threshold: float, containment: bool) -> Evidence:
    hashes = np.array([h for s in sets for h in sorted(s)], np.uint64)
    ends = np.cumsum([0, *map(len, sets)])
    bounds = np.stack([ends[:-1], ends[1:]], axis=1)
    everything, nothing = np.ones(len(sets), bool), np.zeros(len(sets), bool)
    return Evidence(np.zeros((len(sets), 1), np.uint32), hashes, bounds, everything, everything, nothing, 0, threshold, containment)


@settings(deadline=None)
@given(SETS, SETS, st.sampled_from([0.01, 0.5, 0.75, 1.0]), st.booleans())
def test_similarity_is_that_of_the_sets(a: frozenset[int], b: frozenset[int], threshold: float, containment: bool) -> None:
    expected = len(a & b) / (len(a) if containment else len(a | b))
    assert similarity(0, 1, evidence([a, b], threshold, containment)) == (expected if expected >= threshold else -1)


@settings(deadline=None)
@given(SETS, SETS)
def test_shared_counts_the_common_members(a: frozenset[int], b: frozenset[int]) -> None:
    assert shared(np.array(sorted(a), np.uint64), np.array(sorted(b), np.uint64)) == len(a & b)


def test_signatures_alone_decide_only_what_is_far_below_the_threshold() -> None:
    assert least_equal(0.75, 112) == 71  # .75 less three standard errors of .041
    assert least_equal(1.0, 112) == 112
    assert least_equal(0.05, 112) == 0
