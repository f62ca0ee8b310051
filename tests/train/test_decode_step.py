"""A step without modules gives what the model gives, or leaves it to the model."""

import pytest
import torch
from small_models import random_ids, random_model
from torch import nn

from corpusmill.train.decode_step import DecodeStep
from corpusmill.train.kv_cache import KVCache
from corpusmill.train.model import Llama

SHAPES = [
    {},
    {"kv_heads": 4, "tied": True},
    {"kv_heads": 1, "window": 6},
    {"qk_norm": True, "head_dim": 32},
    {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32}, "window": 1},
]


def filled(model: Llama, starts: list[int]) -> KVCache:
    """A cache in which three rows end at place 20 and begin where `starts` says."""
    cache = model.new_cache()
    cache.length, cache.starts = 20, [20] * 3
    for row, start in enumerate(starts):
        alone = model.new_cache()
        with torch.no_grad():
            model(random_ids((1, 20 - start), seed=row), cache=alone)
        cache.put(row, alone, 0, rows=3)
    return cache


@pytest.mark.parametrize("starts", [[0, 0, 0], [12, 3, 3], [5, 5, 5]])
@pytest.mark.parametrize("shape", SHAPES)
def test_steps_equal_the_model(shape: dict[str, object], starts: list[int]) -> None:
    model = random_model(**shape).double()
    step, ours, theirs = DecodeStep(model), filled(model, starts), filled(model, starts)
    assert step.plain
    for seed in range(4):
        ids = random_ids((3, 1), seed)
        with torch.no_grad():
            torch.testing.assert_close(step(ids[:, 0], ours), model(ids, cache=theirs)[:, -1], rtol=0, atol=1e-10)
    assert ours.length == theirs.length == 24
    for mine, its in zip(ours.layers.values(), theirs.layers.values(), strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=1e-10)


def test_weights_that_were_trained_in_between_count() -> None:
    model = random_model().double()
    step = DecodeStep(model)
    with torch.no_grad():
        model.model.layers["1"].mlp.up_proj.weight.mul_(2)
        found = step(random_ids((2, 1))[:, 0], model.new_cache())
        torch.testing.assert_close(found, model(random_ids((2, 1)))[:, -1], rtol=0, atol=1e-10)


class Adapted(nn.Linear):
    """A layer with more than its weight, as adapters have it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 1


def test_a_model_with_other_parts_or_hooks_computes_itself() -> None:
    model = random_model().double()
    adapted = Adapted(64, 64, bias=False).double()
    adapted.weight = model.model.layers["0"].self_attn.q_proj.weight
    model.model.layers["0"].self_attn.q_proj = adapted
    step, ids = DecodeStep(model), random_ids((2, 1))
    with torch.no_grad():
        assert not step.plain and torch.equal(step(ids[:, 0], model.new_cache()), model(ids, cache=model.new_cache())[:, -1])
    hooked = random_model()
    hooked.lm_head.register_forward_hook(lambda module, given, found: found * 0)
    step = DecodeStep(hooked)
    with torch.no_grad():
        assert not step.plain and not step(ids[:, 0], hooked.new_cache()).any()
