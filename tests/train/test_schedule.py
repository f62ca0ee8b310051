"""Learning rates against torch's schedulers and nanoGPT's formula."""

import math

import pytest
import torch

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
