import networkx
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.dedup.leaders import components, lead

MEMBERS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), max_size=25, unique=True).map(sorted)


@settings(deadline=None)
@given(MEMBERS)
def test_components_are_those_of_the_graph_of_buckets(members: list[tuple[int, int]]) -> None:
    graph = networkx.Graph()
    graph.add_nodes_from(range(8))
    graph.add_edges_from((f"bucket{b}", d) for b, d in members)
    expected = {d: min(c for c in part if isinstance(c, int)) for part in networkx.connected_components(graph) for d in part}
    bucket, document = np.array(members, np.int64).reshape(-1, 2).T.copy()
    assert components(8, bucket, document).tolist() == [expected[d] for d in range(8)]


def slow_lead(order, buckets, signatures, threshold):  # type: ignore[no-untyped-def]
    """The same by the book: the first kept document that is similar and whose cluster has a member in one of my buckets."""
    leader: dict[int, int] = {}
    value: dict[int, float] = {}
    kept: list[int] = []
    for d in order:
        near = {leader[other] for other in leader if buckets[other] & buckets[d]}
        alike = {k: float(np.mean(signatures[k] == signatures[d])) for k in kept if k in near}
        chosen = next((k for k in kept if alike.get(k, -1) >= threshold), d)
        leader[d], value[d] = chosen, alike.get(chosen, 1.0)
        if chosen == d:
            kept.append(d)
    return [leader[d] for d in range(len(order))], [value[d] for d in range(len(order))]


@settings(deadline=None)
@given(MEMBERS, st.permutations(range(8)), st.integers(0, 2**32), st.sampled_from([0.25, 0.5, 0.75, 1.0]))
def test_leaders_are_what_the_slow_greedy_finds(members: list[tuple[int, int]], order: list[int], seed: int, threshold: float) -> None:
    signatures = np.random.default_rng(seed).integers(0, 2, (8, 4)).astype(np.uint32)
    own = [{b for b, d in members if d == i} for i in range(8)]
    buckets_of = np.array([b for buckets in own for b in sorted(buckets)], np.int64)
    first = np.concatenate([[0], np.cumsum([len(buckets) for buckets in own])])
    nothing = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    leader, value, limited = lead(np.array(order), buckets_of, first, 6, 1000, signatures, *nothing, 0, threshold)
    assert (leader.tolist(), value.tolist()) == slow_lead(order, own, signatures, threshold)
    assert limited == 0


def test_a_bucket_is_compared_up_to_its_limit() -> None:
    signatures = np.array([[1], [2], [3], [3]], np.uint32)
    nothing = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    arguments = (np.arange(4), np.zeros(4, np.int64), np.arange(5), 1)
    leader, _, limited = lead(*arguments, 2, signatures, *nothing, 0, 1.0)
    assert leader.tolist() == [0, 1, 2, 3] and limited == 1
    leader, _, limited = lead(*arguments, 3, signatures, *nothing, 0, 1.0)
    assert leader.tolist() == [0, 1, 2, 2] and limited == 0
