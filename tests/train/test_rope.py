"""Rotary angles are those of `transformers`, to the bit."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import random_ids, random_model
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from corpusmill.pipeline.errors import InputError
from corpusmill.train.rope import frequencies, rotary_table, rotate

LENGTHS = st.sampled_from([16, 64, 1000, 8192, 32768])
LLAMA3 = st.fixed_dictionaries({
    "rope_type": st.just("llama3"), "factor": st.floats(1, 64), "original_max_position_embeddings": LENGTHS,
    "low_freq_factor": st.floats(0.5, 2), "high_freq_factor": st.floats(2.5, 8),
})  # fmt: skip
YARN = st.fixed_dictionaries(
    {"rope_type": st.just("yarn"), "factor": st.floats(1, 64), "original_max_position_embeddings": LENGTHS},
    optional={
        "beta_fast": st.floats(8, 64), "beta_slow": st.floats(0.5, 4), "truncate": st.booleans(), "attention_factor": st.floats(0.1, 2),
        "mscale": st.floats(0.1, 2), "mscale_all_dim": st.floats(0.1, 2),
    },
)  # fmt: skip


@given(st.none() | LLAMA3 | YARN, st.sampled_from([4, 16, 64, 128]), st.sampled_from([100.0, 1e4, 5e5, 1e6]))
def test_frequencies_equal_transformers(scaling: dict[str, Any] | None, head_dim: int, theta: float) -> None:
    arch = random_model(head_dim=head_dim, rope_theta=theta, rope_scaling=scaling).arch
    parameters = {"rope_type": "default", **(scaling or {}), "rope_theta": theta}
    theirs = LlamaRotaryEmbedding(LlamaConfig(head_dim=head_dim, max_position_embeddings=64, rope_parameters=parameters))
    ours, factor = frequencies(arch)
    assert torch.equal(ours, theirs.inv_freq)
    assert factor == theirs.attention_scaling


@pytest.mark.parametrize("scaling", [None, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_table_and_the_rotation_equal_transformers(dtype: torch.dtype, scaling: dict[str, Any] | None) -> None:
    arch = random_model(rope_scaling=scaling).arch
    cos, sin = (table[5:45] for table in rotary_table(arch, torch.device("cpu"), dtype))
    x = torch.randn(2, 3, 40, 16, generator=torch.Generator().manual_seed(1)).to(dtype)
    parameters = {"rope_type": "default", **(scaling or {}), "rope_theta": 10000.0}
    theirs = LlamaRotaryEmbedding(LlamaConfig(head_dim=16, rope_parameters=parameters))(x, torch.arange(5, 45).expand(2, -1))
    assert torch.equal(cos, theirs[0][0])
    assert torch.equal(sin[:, 8:], theirs[1][0, :, 8:]) and torch.equal(sin[:, :8], -sin[:, 8:])
    expected, _ = apply_rotary_pos_emb(x, x, *theirs)
    ours = rotate(x, cos, sin)
    tolerance = {torch.float32: 1e-6, torch.float64: 1e-15, torch.bfloat16: 0.05}[dtype]
    torch.testing.assert_close(ours, expected, rtol=0, atol=tolerance)


def test_a_table_is_made_once_and_serves_training_after_generation() -> None:
    model = random_model(rope_theta=123.0)
    ids = random_ids((1, 8))
    with torch.inference_mode():
        model(ids)
    model(ids).sum().backward()
    device = torch.device("cpu")
    assert rotary_table(model.arch, device, torch.float32)[0] is rotary_table(random_model(rope_theta=123.0).arch, device, torch.float32)[0]


@pytest.mark.parametrize("scaling", [None, {"rope_type": "llama3", "factor": 4.0, "original_max_position_embeddings": 16}])
def test_beyond_the_table_is_one_sentence(scaling: dict[str, Any] | None) -> None:
    model = random_model(rope_scaling=scaling)
    with pytest.raises(InputError, match="65 tokens is longer than the model's context of 64"):
        model(random_ids((1, 65)))
    cache = model.new_cache()
    model(random_ids((1, 60)), cache=cache)
    with pytest.raises(InputError, match="65 tokens is longer than the model's context of 64"):
        model(random_ids((1, 5)), cache=cache)
