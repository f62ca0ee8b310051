"""What counts as a spike."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.train.guard import ENOUGH, LOSS_FLOOR, WINDOW, SpikeGuard


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
    assert guard(NORMAL).judge(12.0, "loss") == "loss 12 is a spike (20.0 deviations above 4)"
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


def test_a_loss_that_falls_fast_gives_no_alarm_and_hides_no_spike() -> None:
    """The losses of tinyshakespeare's first steps (4 layers, width 128, Muon) fall about so: from 4.17 to 2.1 at step 80."""
    generator, some = random.Random(0), guard([], floor=LOSS_FLOOR)
    for step in range(300):
        loss = 1.7 + 2.47 * math.exp(-step / 45) + generator.gauss(0, 0.04)
        if step >= ENOUGH:
            assert guard(list(some.values)).judge(3 * loss, "loss") is not None, step
        assert some.judge(loss, "loss") is None, step


def test_the_deviation_of_normal_noise_is_its_own() -> None:
    generator = random.Random(1)
    scores = []
    for _ in range(200):
        some = guard([100 + generator.gauss(0, 1) for _ in range(WINDOW)], threshold=1e-9, floor=0.0)
        scores.append(float(str(some.judge(110.0, "x")).split("(")[1].split()[0]))
    assert 8.5 < sorted(scores)[100] < 11.5


finite = st.floats(-1e6, 1e6)


@given(st.lists(finite, min_size=ENOUGH, max_size=2 * WINDOW), finite, st.lists(st.sampled_from([math.nan, math.inf, -math.inf])))
def test_nothing_that_is_not_finite_changes_a_later_verdict(values: list[float], value: float, poison: list[float]) -> None:
    clean, poisoned = guard(values), guard(values)
    for bad in poison:
        assert poisoned.judge(bad, "x") is not None
    assert poisoned.values == clean.values and poisoned.judge(value, "x") == clean.judge(value, "x")


@given(st.lists(st.floats(0.1, 10), min_size=WINDOW, max_size=WINDOW), st.lists(st.floats(0, 1e9), max_size=WINDOW // 5), st.randoms())
def test_outliers_hide_no_spike(values: list[float], outliers: list[float], generator: random.Random) -> None:
    """A fifth of the window is anything at all, and what lies 10 deviations above the largest possible measure is still seen."""
    mixed = values[len(outliers) :] + outliers
    generator.shuffle(mixed)
    assert guard(mixed).judge(10 + 10 * 1.05 * 9.9 + 1, "x") is not None


@given(st.lists(st.floats(0.5, 10), min_size=ENOUGH, max_size=WINDOW), st.floats(0.5, 10), st.floats(1.01, 100))
def test_the_verdict_depends_on_no_unit(values: list[float], value: float, unit: float) -> None:
    scaled = guard([unit * v for v in values]).judge(unit * value, "x")
    assert (guard(values).judge(value, "x") is None) == (scaled is None)


@given(st.lists(finite, max_size=2 * WINDOW), finite)
def test_saved_values_give_the_verdict_of_a_run_that_was_not_stopped(values: list[float], value: float) -> None:
    some = guard([])
    for v in values:
        some.judge(v, "x")
    assert guard(list(some.values)).judge(value, "x") == some.judge(value, "x")
