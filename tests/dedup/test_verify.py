import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.dedup.verify import batches, least_equal


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), max_size=30), st.integers(1, 40))
def test_batches_hold_whole_components_within_the_limit(nodes: list[tuple[int, int]], limit: int) -> None:
    component, weight = np.array(nodes, np.int64).reshape(-1, 2).T
    found = list(batches(component, weight, limit))
    assert sorted(np.concatenate([np.zeros(0, np.int64), *found]).tolist()) == list(range(len(nodes)))
    parts = [set(component[batch].tolist()) for batch in found]
    assert sum(len(part) for part in parts) == len(set(component.tolist()))
    for batch, part in zip(found, parts, strict=True):
        assert (np.diff(batch) > 0).all()
        assert weight[batch].sum() <= limit or len(part) == 1


def test_signatures_alone_decide_only_what_is_far_below_the_threshold() -> None:
    assert least_equal(0.75, 112) == 71  # .75 less three standard errors of .041
    assert least_equal(1.0, 112) == 112
    assert least_equal(0.05, 112) == 0
