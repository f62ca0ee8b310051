"""What counts as a spike."""

import math

import pytest

from corpusmill.train.guard import SpikeGuard


def guard(values: list[float], threshold: float = 10.0, floor: float = 0.1) -> SpikeGuard:
    return SpikeGuard(threshold, floor, values)


NORMAL = [4.0 + 0.1 * math.sin(i) for i in range(100)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_refused_and_poisons_nothing(value: float) -> None:
    some = guard(NORMAL)
    for _ in range(200):
        assert some.judge(value, "loss") == f"loss is {value}"
    assert some.judge(4.1, "loss") is None and some.judge(9.0, "loss") is not None


def test_a_spike_says_how_far_it_is_above() -> None:
    assert guard(NORMAL).judge(12.0, "loss") == "loss 12 is a spike (20.0 deviations above 4.001)"
    assert guard(NORMAL).judge(5.0, "loss") is None and guard(NORMAL).judge(0.1, "loss") is None


def test_earlier_outliers_do_not_widen_the_measure() -> None:
    assert guard(NORMAL + [1e6] * 20).judge(12.0, "loss") is not None


def test_a_lasting_change_of_level_is_accepted_in_the_end() -> None:
    some = guard(NORMAL)
    assert [some.judge(12.0, "loss") is None for _ in range(100)][-1]


def test_even_values_few_values_and_no_threshold_never_count() -> None:
    assert guard([4.0] * 50).judge(4.5, "loss") is None
    assert guard([4.0] * 19).judge(1e9, "loss") is None
    assert guard([4.0] * 50, threshold=0).judge(1e9, "loss") is None
    assert guard([0.0] * 50).judge(0.0, "loss") is None
