"""Learning rates against torch's schedulers and nanoGPT's formula."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.train.options import LoopConfig
from corpusmill.train.schedule import lr_fraction


def fractions(**options: object) -> list[float]:
    config = LoopConfig.model_validate({"steps": 100, "warmup": 10, **options})
    return [lr_fraction(step, config) for step in range(100)]


def test_cosine_is_nanogpts() -> None:
    def nanogpt(it: int) -> float:  # get_lr of nanoGPT's train.py with learning_rate 1 and lr_decay_iters 100
        if it < 10:
            return (it + 1) / 11
        return 0.1 + 0.5 * (1.0 + math.cos(math.pi * (it - 10) / 90)) * 0.9

    assert fractions(schedule="cosine", min_lr=0.1) == pytest.approx([nanogpt(it) for it in range(100)])


def test_cosine_and_linear_are_torchs() -> None:
    for ours, scheduler in (
        ("cosine", lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=100)),
        ("linear", lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.0, total_iters=100)),
    ):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        theirs, values = scheduler(optimizer), []
        for _ in range(100):
            values.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            theirs.step()
        assert fractions(schedule=ours, warmup=0) == pytest.approx(values, abs=1e-9)


def test_wsd_is_constant_and_then_falls_in_a_line() -> None:
    values = fractions(schedule="wsd", decay_fraction=0.2, min_lr=0.0)
    assert values[9] == pytest.approx(10 / 11) and set(values[10:81]) == {1.0}
    assert values[80:] == pytest.approx([1 - i / 20 for i in range(20)])


def test_more_warmup_than_steps_and_no_steps_are_no_error() -> None:
    assert fractions(warmup=1000)[99] == pytest.approx(100 / 1001)
    assert lr_fraction(0, LoopConfig(steps=0, warmup=0)) == 1.0
    assert fractions(schedule="constant", warmup=0) == [1.0] * 100


def test_wsd_ends_as_transformers_does() -> None:
    """transformers begins its warm-up at rate 0 and holds the peak a step longer, so both are compared from the peak on."""
    from transformers import get_wsd_schedule

    for ours, theirs in (("linear", "linear"), ("1-sqrt", "1-sqrt")):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = get_wsd_schedule(optimizer, 10, 25, num_stable_steps=65, decay_type=theirs, min_lr_ratio=0.1)
        values = []
        for _ in range(100):
            values.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        found = fractions(schedule="wsd", decay=ours, decay_fraction=0.25, min_lr=0.1)
        assert found[10:] == pytest.approx(values[10:], abs=1e-9), ours


def test_cosine_is_transformers_after_the_warmup() -> None:
    from transformers import get_cosine_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_cosine_schedule_with_warmup(optimizer, 10, 100)
    values = []
    for _ in range(100):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert fractions(schedule="cosine")[10:] == pytest.approx(values[10:], abs=1e-9)


SHAPES = st.fixed_dictionaries(
    {
        "steps": st.integers(1, 300),
        "warmup": st.integers(0, 50),
        "schedule": st.sampled_from(["cosine", "linear", "wsd", "constant"]),
        "decay": st.sampled_from(["linear", "1-sqrt"]),
        "decay_fraction": st.floats(0.01, 1),
        "min_lr": st.floats(0, 1),
    }
)


@given(SHAPES)
def test_rates_rise_once_fall_once_and_stay_between_their_bounds(options: dict) -> None:
    config = LoopConfig.model_validate(options)
    values = [lr_fraction(step, config) for step in range(config.steps)]
    warm, rest = values[: config.warmup], values[config.warmup :]
    assert all(0 < value <= 1 for value in warm) and warm == sorted(warm)
    assert all(config.min_lr - 1e-12 <= value <= 1 for value in rest)
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(rest))
    decays = config.schedule != "constant" and (config.schedule != "wsd" or round(config.decay_fraction * config.steps) >= 1)
    if decays and config.warmup < config.steps:
        assert lr_fraction(config.steps, config) == pytest.approx(config.min_lr)  # the step after the last would have the lowest rate
