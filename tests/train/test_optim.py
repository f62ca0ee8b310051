"""Compares learning rates with torch's schedulers and nanoGPT's formula."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.train.model import Llama, initialise
from corpusmill.train.optim import Optimizer, lr_fraction
from corpusmill.train.options import Architecture, LoopConfig, OptimizerConfig

# ---- schedule ----------------------------------------------------------------------------------------


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


# ---- optimizer ---------------------------------------------------------------------------------------

# Optimisers against torch's own.

ARCH = Architecture(vocab_size=13, layers=2, width=8, heads=2, kv_heads=1, head_dim=4, ffn=16, context=8)


def model_with_gradients() -> Llama:
    model = Llama(ARCH)
    initialise(model, 1)
    return model


def give_gradients(model: torch.nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator)


@pytest.mark.rounding
def test_adamw_equals_torch_and_decays_matrices_only() -> None:
    config = OptimizerConfig(kind="adamw", lr=0.01, weight_decay=0.3)
    ours, theirs = model_with_gradients(), model_with_gradients()
    optimizer = Optimizer(dict(ours.named_parameters()), config)
    groups = [{"params": [p for p in theirs.parameters() if p.dim() > 1], "weight_decay": 0.3},
              {"params": [p for p in theirs.parameters() if p.dim() < 2], "weight_decay": 0.0}]  # fmt: skip
    reference = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95), eps=1e-8, foreach=False)
    for step in range(5):
        for model in (ours, theirs):
            give_gradients(model, step)
        optimizer.step(0.5)
        for group in reference.param_groups:
            group["lr"] = 0.005
        reference.step()
    for a, b in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has no Muon of its own before 2.9")
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("shape", [(32, 16), (16, 32)])
@pytest.mark.rounding
def test_muon_follows_torch_within_its_bf16(shape: tuple[int, int], bf16: bool) -> None:
    ours, theirs = (torch.nn.Parameter(torch.zeros(shape)) for _ in range(2))
    optimizer = Optimizer({"model.layers.0.weight": ours}, OptimizerConfig(kind="muon", muon_lr=0.1), bf16=bf16)
    reference = torch.optim.Muon([theirs], lr=0.1, momentum=0.95, weight_decay=0.1)
    for step in range(4):
        grad = torch.randn(shape, generator=torch.Generator().manual_seed(step))
        ours.grad, theirs.grad = grad.clone(), grad.clone()
        optimizer.step(1.0)
        reference.step()
    assert float((ours - theirs).detach().norm() / theirs.detach().norm()) < 0.02


@pytest.mark.rounding
def test_muon_has_the_matrices_inside_the_layers_and_adamw_the_rest() -> None:
    model = model_with_gradients()
    optimizer = Optimizer(dict(model.named_parameters()), OptimizerConfig(kind="muon"))
    assert {name.rsplit(".", 2)[1] for name in optimizer.muon} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
    }  # fmt: skip
    assert optimizer.adamw.keys() == dict(model.named_parameters()).keys() - optimizer.muon.keys()
