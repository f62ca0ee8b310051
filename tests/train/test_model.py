"""Compares the model with transformers and with formulas; recomputed and compiled layers give the results of plain ones."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import new_model, random_ids, random_model
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding

from corpusmill.pipeline.errors import InputError
from corpusmill.train.model import (
    PLAIN,
    Llama,
    RMSNorm,
    attend,
    block_mask,
    dense_mask,
    document_starts,
    frequencies,
    initialise,
    visible,
)
from corpusmill.train.options import LoopConfig
from corpusmill.train.parallel import ParallelDims
from corpusmill.train.parallel.model import prepare

# ---- layers ------------------------------------------------------------------------------------------

SEGMENTS = (torch.arange(32) // 9).expand(2, -1)


def gradients(model: Llama, segments: Tensor | None = None) -> dict[str, Tensor]:
    model.zero_grad()
    ids = random_ids((2, 33))
    cross_entropy(model(ids[:, :-1], segments).flatten(0, 1), ids[:, 1:].flatten()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.rounding
def test_checkpointing_keeps_no_more_than_the_input_of_each_layer() -> None:
    model = random_model(layers=6)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def kept() -> int:
        """Returns the bytes that the forward pass keeps for the backward pass, without weights."""
        found: dict[int, Tensor] = {}  # by storage; the tensors are held so that no address comes twice

        def pack(tensor: Tensor) -> Tensor:
            if tensor.untyped_storage().data_ptr() not in weights:
                found[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(random_ids((2, 32))).sum()
        del loss
        return sum(tensor.untyped_storage().nbytes() for tensor in found.values())

    plain = kept()
    prepare(model, ParallelDims.single(model.device), LoopConfig(checkpointing=True))
    inputs = 6 * 2 * 32 * 64 * 4
    assert kept() + inputs < plain / 5


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.long
@pytest.mark.rounding
def test_generated_code_gives_the_logits_and_gradients_of_eager_layers_and_checkpoints() -> None:
    torch._dynamo.reset()
    model = random_model(qk_norm=True)
    expected, logits = gradients(model, SEGMENTS), model(random_ids((2, 32)), SEGMENTS)
    model.switch(checkpointing=True, compiled=True)
    close(gradients(model, SEGMENTS), expected)
    torch.testing.assert_close(model(random_ids((2, 32)), SEGMENTS), logits, rtol=1e-4, atol=1e-5)


# ---- rope --------------------------------------------------------------------------------------------

# Rotary angles equal those of `transformers`, to the bit.

LENGTHS = st.sampled_from([16, 64, 1000, 8192, 32768])
SCALED = st.fixed_dictionaries({"factor": st.floats(1, 64), "original_max_position_embeddings": LENGTHS})
FIXED = {"llama3": {"low_freq_factor": 1.0, "high_freq_factor": 4.0}, "yarn": {}}  # what transformers asks for


@given(st.sampled_from(["default", "llama3", "yarn"]), SCALED, st.sampled_from([4, 16, 64, 128]), st.sampled_from([100.0, 1e4, 5e5, 1e6]))
def test_frequencies_equal_transformers(kind: str, scaled: dict[str, Any], head_dim: int, theta: float) -> None:
    scaling = None if kind == "default" else {"rope_type": kind, **scaled}
    arch = random_model(head_dim=head_dim, rope_theta=theta, rope_scaling=scaling).arch
    parameters = {"rope_type": kind, **(scaled | FIXED[kind] if scaling else {}), "rope_theta": theta}
    theirs = LlamaRotaryEmbedding(LlamaConfig(head_dim=head_dim, max_position_embeddings=64, rope_parameters=parameters))
    ours, factor = frequencies(arch)
    assert torch.equal(ours, theirs.inv_freq)
    assert factor == theirs.attention_scaling


def test_beyond_the_context_is_one_sentence() -> None:
    model = random_model(rope_scaling={"rope_type": "llama3", "factor": 4.0, "original_max_position_embeddings": 16})
    with pytest.raises(InputError, match="65 tokens is longer than the model's context of 64"):
        model(random_ids((1, 65)))
    cache = model.new_cache()
    model(random_ids((1, 60)), cache=cache)
    with pytest.raises(InputError, match="65 tokens is longer than the model's context of 64"):
        model(random_ids((1, 5)), cache=cache)


# ---- attention ---------------------------------------------------------------------------------------

# Masks, windows, documents and the cache agree; the kernels agree; a position that sees nothing gives 0.

CPU = torch.device("cpu")


def random_heads(batch: int, heads: int, length: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(batch, heads, length, 16, generator=torch.Generator().manual_seed(seed)).to(dtype)


def by_hand(queries: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> Tensor:
    """Computes softmax(QK' / sqrt(d)) V step by step, each key-value head repeated for its queries."""
    times = queries.size(1) // keys.size(1)
    keys, values = keys.repeat_interleave(times, 1), values.repeat_interleave(times, 1)
    scores = (queries @ keys.mT / queries.size(-1) ** 0.5).masked_fill(~seen, -torch.inf)
    return scores.softmax(-1) @ values


@pytest.mark.parametrize(("kv_heads", "window"), [(4, 0), (2, 5), (1, 1)])
def test_attention_equals_the_formula(kv_heads: int, window: int) -> None:
    queries, keys, values = random_heads(2, 4, 20), random_heads(2, kv_heads, 20, seed=1), random_heads(2, kv_heads, 20, seed=2)
    seen = torch.tensor([[k <= q and (not window or k > q - window) for k in range(20)] for q in range(20)])
    mixed = attend(queries, keys, values, visible(None, 0, 20, window, CPU))
    torch.testing.assert_close(mixed, by_hand(queries, keys, values, seen), rtol=0, atol=1e-14)


@pytest.mark.parametrize("length", [1, PLAIN, PLAIN + 1])
@pytest.mark.parametrize("kv_heads", [2, 4])
def test_bf16_on_a_cpu_is_within_its_rounding_by_either_kernel(length: int, kv_heads: int) -> None:
    given = [random_heads(2, n, length, torch.bfloat16, seed).requires_grad_() for seed, n in enumerate((4, kv_heads, kv_heads))]
    exact = [heads.detach().double().requires_grad_() for heads in given]
    direction = random_heads(2, 4, length, seed=9)
    mixed = attend(*given, None)
    expected = by_hand(*exact, torch.ones(length, length, dtype=torch.bool).tril())
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.double(), expected, rtol=0.02, atol=0.02)
    found = torch.autograd.grad(mixed, given, direction.bfloat16())
    for gradient, wanted in zip(found, torch.autograd.grad(expected, exact, direction), strict=True):
        assert (gradient.double() - wanted).norm() < 0.02 * wanted.norm() + 0.02


@pytest.mark.parametrize(("dtype", "kv_heads"), [(torch.float32, 2), (torch.bfloat16, 4)])
def test_a_query_that_sees_nothing_gets_0_and_no_nan_flows_back(dtype: torch.dtype, kv_heads: int) -> None:
    queries, keys, values = (random_heads(1, n, 6, dtype, seed).requires_grad_() for seed, n in enumerate((4, kv_heads, kv_heads)))
    seen = torch.ones(6, 6, dtype=torch.bool).tril()
    seen[[0, 3]] = False
    mixed = attend(queries, keys, values, seen)
    mixed.sum().backward()
    assert (mixed[:, :, [0, 3]] == 0).all() and (mixed[:, :, [1, 2, 4, 5]] != 0).any(-1).all()
    assert all(t.grad is not None and t.grad.isfinite().all() for t in (queries, keys, values))
    assert queries.grad is not None and (queries.grad[:, :, [0, 3]] == 0).all()


def segments_of(lengths: list[int]) -> Tensor:
    """Returns the segments of one row of documents of these lengths; consecutive numbers differ, as loaders give them."""
    return torch.repeat_interleave(torch.arange(len(lengths)) % 3 * 7, torch.tensor(lengths))[None]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=5), min_size=1, max_size=3), st.sampled_from([0, 1, 4, 9]))
def test_packed_documents_are_computed_as_if_each_were_alone(rows: list[list[int]], window: int) -> None:
    model = random_model(window=window, qk_norm=True).double()
    length = max(map(sum, rows))
    lengths = [[*row, length - sum(row)] if sum(row) < length else row for row in rows]
    segments = torch.cat([segments_of(row) for row in lengths])
    ids = random_ids((len(rows), length), seed=length)
    with torch.no_grad():
        packed = model(ids, segments)
        alone = [torch.cat([model(part) for part in row[None].split(sizes, dim=1)], dim=1) for row, sizes in zip(ids, lengths)]
    torch.testing.assert_close(packed, torch.cat(alone), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("documents", "window"), [(True, 0), (True, 8), (False, 100)])
def test_flex_attention_equals_the_dense_mask(documents: bool, window: int) -> None:
    """Tests the forward pass in fp32 only, because the CPU supports no more."""
    length = 150  # more than a block of 128
    starts = document_starts(torch.cat([segments_of([70, 1, 79]), segments_of([5, 145])])) if documents else torch.zeros(1, length).long()
    assert starts is not None
    earliest = torch.maximum(starts, torch.arange(length) - (window - 1 if window else length))
    heads = [random_heads(2, n, length, torch.float32, seed) for seed, n in enumerate((4, 2, 2))]
    with torch.no_grad():
        flex = flex_attention(*heads, block_mask=block_mask(earliest if documents else earliest[0]), enable_gqa=True)
        dense = attend(*heads, dense_mask(earliest))
    torch.testing.assert_close(flex, dense, rtol=0, atol=2e-6)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 700), st.lists(st.integers(1, 300), max_size=6), st.sampled_from([0, 1, 100, 300]), st.booleans())
def test_block_masks_are_those_that_torch_finds_by_looking_at_all_scores(
    length: int, documents: list[int], window: int, shared: bool
) -> None:
    starts = [max((s for s in documents if s <= place), default=0) for place in range(length)]
    earliest = torch.maximum(torch.tensor([starts, [0] * length]), torch.arange(length) - (window or length) + 1)
    earliest = earliest[0] if shared else earliest

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (key >= (earliest[query] if shared else earliest[batch, query]))

    ours, theirs = block_mask(earliest), create_block_mask(seen, None if shared else 2, None, length, length, device="cpu")
    assert ours.shape == theirs.shape
    for name in ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices", "q_num_blocks", "q_indices"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name


@pytest.mark.parametrize("window", [0, 6])
def test_the_cache_in_any_pieces_equals_no_cache(window: int) -> None:
    model = random_model(window=window).double()
    ids = random_ids((2, 40))
    for pieces in ([40], [1] * 40, [7, 1, 1, 20, 11]):
        cache = model.new_cache(40)
        with torch.no_grad():
            cached = torch.cat([model(part, cache=cache) for part in ids.split(pieces, dim=1)], dim=1)
        torch.testing.assert_close(cached, model(ids), rtol=0, atol=1e-10)


# ---- model -------------------------------------------------------------------------------------------

# The model's norm, its parts and its initial weights.


@pytest.mark.parametrize(("dtype", "wide_weight"), [(torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)])
@pytest.mark.rounding
def test_rms_norm_equals_transformers_to_the_bit(dtype: torch.dtype, wide_weight: bool) -> None:
    ours, theirs = RMSNorm(32, 1e-5), LlamaRMSNorm(32, 1e-5)
    weight = torch.randn(32, generator=torch.Generator().manual_seed(1))
    ours.weight.data, theirs.weight.data = (weight.to(torch.float32 if wide_weight else dtype, copy=True) for _ in range(2))
    x = (torch.randn(4, 7, 32, generator=torch.Generator().manual_seed(2)) * 30).to(dtype)
    x, again = x.clone().requires_grad_(), x.clone().requires_grad_()
    assert torch.equal(ours(x), theirs(again))
    ours(x).sum().backward(), theirs(again).sum().backward()
    tolerance = {torch.bfloat16: 1e-2}.get(dtype, 1e-6)  # corpusmill does not round n before the sum
    torch.testing.assert_close(x.grad, again.grad, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.rounding
def test_initialisation_is_that_of_its_seed_and_begins_at_the_uniform_loss(tied: bool) -> None:
    arch = random_model(tied=tied).arch
    first, second, other = new_model(arch, 1), Llama(arch), new_model(arch, 2)
    initialise(second, 1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.model.embed_tokens.weight, other.model.embed_tokens.weight)
    logits = first(random_ids((1, 9)))
    assert (first.lm_head.weight is first.model.embed_tokens.weight) == tied
    if not tied:
        assert torch.equal(logits, torch.zeros(1, 9, 97))
    queries = [layer.self_attn.q_proj.weight for layer in first.model.layers.values()]
    assert not torch.equal(queries[0], queries[1])  # each name has its own numbers
    assert queries[0].std().item() == pytest.approx((3 * arch.width) ** -0.5, rel=0.05)


PEAK = """
from pathlib import Path
from corpusmill.train.model import blank_model, fill
from corpusmill.train.options import ModelConfig

def peak():  # KiB
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

arch = ModelConfig(preset="85m").architecture(4096)
before = peak()
model = blank_model(arch)
fill(model, 0, "cpu")
print((peak() - before) * 1024 / (4 * arch.parameters()))
"""


@pytest.mark.long
@pytest.mark.rounding
def test_a_new_model_takes_its_memory_once() -> None:
    peak = float(subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True, timeout=120).stdout)
    assert 0.8 < peak < 1.4
