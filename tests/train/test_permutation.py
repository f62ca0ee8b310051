"""The order of the windows is a bijection that seed and epoch change."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.train.permutation import permute


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 3000), seed=st.integers(0, 2**63), epoch=st.integers(0, 1000))
def test_every_place_once(n: int, seed: int, epoch: int) -> None:
    assert np.array_equal(np.sort(permute(np.arange(n), n, seed, epoch)), np.arange(n))


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 2**50), seed=st.integers(0, 2**31), places=st.lists(st.integers(0, 2**50), min_size=1, max_size=50, unique=True))
def test_a_place_does_not_depend_on_what_else_is_asked(n: int, seed: int, places: list[int]) -> None:
    wanted = np.array(sorted({p % n for p in places}), np.int64)
    together = permute(wanted, n, seed, 0)
    assert together.tolist() == [int(permute(wanted[i : i + 1], n, seed, 0)[0]) for i in range(len(wanted))]
    assert len(set(together.tolist())) == len(wanted) and together.min() >= 0 and together.max() < n


def test_orders_differ_by_seed_and_epoch_and_look_random() -> None:
    n = 10_000
    orders = [permute(np.arange(n), n, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for i, a in enumerate(orders):
        assert abs(np.corrcoef(a, np.arange(n))[0, 1]) < 0.04  # four deviations of chance
        assert abs(np.corrcoef(a[1:], a[:-1])[0, 1]) < 0.04
        for b in orders[i + 1 :]:
            assert (a == b).sum() < 12
    counts = np.bincount(orders[0][:1000] // 1000, minlength=10)  # the first tenth comes from everywhere
    assert ((counts - 100) ** 2 / 100).sum() < 28


def test_orders_stay_what_they_were() -> None:
    """Values of the first version: with others, a training that is resumed would see some windows twice and others never."""
    assert permute(np.arange(6), 1000, 1, 0).tolist() == [248, 164, 715, 2, 896, 553]
    assert permute(np.array([10**9, 2]), 2**40, 7, 3).tolist() == [497988976818, 835641302277]
    assert permute(np.arange(5), 2**20 + 1, 2**63, 2).tolist() == [590840, 657201, 371029, 797719, 614757]
