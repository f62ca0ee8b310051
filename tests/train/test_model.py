"""Tests the model: layers that are recomputed in the backward pass, or compiled, give the gradients of plain ones."""

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
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding, apply_rotary_pos_emb

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
    rotary_table,
    rotate,
    visible,
)
from corpusmill.train.options import LoopConfig
from corpusmill.train.parallel.dims import ParallelDims
from corpusmill.train.parallel.model import prepare

# ---- layers ------------------------------------------------------------------------------------------

SHAPES = {"plain": {}, "qk-norm, window": {"qk_norm": True, "window": 7}}
SEGMENTS = (torch.arange(32) // 9).expand(2, -1)


def gradients(model: Llama, segments: Tensor | None = None) -> dict[str, Tensor]:
    model.zero_grad()
    ids = random_ids((2, 33))
    cross_entropy(model(ids[:, :-1], segments).flatten(0, 1), ids[:, 1:].flatten()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("segments", [None, SEGMENTS], ids=["one document", "documents"])
@pytest.mark.rounding
def test_checkpointing_gives_the_same_gradients_to_the_bit(shape: dict[str, object], segments: Tensor | None) -> None:
    model = random_model(**shape)
    expected = gradients(model, segments)
    model.model.switch(checkpointing=True)
    found = gradients(model, segments)
    assert found.keys() == expected.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("on", [False, True])
@pytest.mark.rounding
def test_the_loop_s_configuration_switches_checkpointing(on: bool) -> None:
    model = random_model()
    prepare(model, ParallelDims.single(model.device), LoopConfig(checkpointing=on))
    assert [layer.checkpointing for layer in model.model.layers.values()] == [on] * 3


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
    model.model.switch(checkpointing=True)
    inputs = 6 * 2 * 32 * 64 * 4
    assert kept() + inputs < plain / 5


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("whole", [pytest.param(False, marks=pytest.mark.long), True], ids=["layers", "decoder"])
@pytest.mark.parametrize("shape", [pytest.param(SHAPES["plain"], marks=pytest.mark.long), SHAPES["qk-norm, window"]], ids=SHAPES.keys())
@pytest.mark.rounding
def test_compiled_gradients_equal_eager_ones(shape: dict[str, object], whole: bool) -> None:
    """The compiler traces and differentiates without graph breaks; PyTorch's own kernels run the result."""
    torch._dynamo.reset()
    model = random_model(**shape)
    expected, expected_documents = gradients(model), gradients(model, SEGMENTS)
    for module in [model.model] if whole else model.model.layers.values():
        module.compile(backend="aot_eager", fullgraph=True)
    close(gradients(model), expected)
    close(gradients(model, SEGMENTS), expected_documents)


@pytest.mark.long
@pytest.mark.rounding
def test_generated_code_gives_the_logits_and_gradients_of_eager_layers_and_checkpoints() -> None:
    torch._dynamo.reset()
    model = random_model(qk_norm=True)
    expected, logits = gradients(model, SEGMENTS), model(random_ids((2, 32)), SEGMENTS)
    model.model.switch(checkpointing=True, compiled=True)
    close(gradients(model, SEGMENTS), expected)
    torch.testing.assert_close(model(random_ids((2, 32)), SEGMENTS), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.long
@pytest.mark.rounding
def test_generated_flex_attention_equals_the_dense_mask() -> None:
    """Tests the attention for documents and windows on a GPU, called alone and in a compiled layer; forward only, all that a CPU has."""
    torch._dynamo.reset()
    model = random_model(context=150, layers=1)
    layer, (cos, sin) = model.model.layers["0"], rotary_table(model.arch, model.device, torch.float32)
    x = torch.randn(2, 150, 64, generator=torch.Generator().manual_seed(0))
    earliest = torch.stack((torch.arange(150) // 40 * 40, torch.arange(150) // 70 * 70))
    with torch.no_grad():
        expected = layer(x, cos, sin, dense_mask(earliest))
        torch.testing.assert_close(layer(x, cos, sin, block_mask(earliest)), expected, rtol=1e-5, atol=1e-5)
        layer.compile(backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(layer(x, cos, sin, block_mask(earliest)), expected, rtol=1e-5, atol=1e-5)


# ---- rope --------------------------------------------------------------------------------------------

# Rotary angles equal those of `transformers`, to the bit.

LENGTHS = st.sampled_from([16, 64, 1000, 8192, 32768])
LLAMA3 = st.fixed_dictionaries({
    "rope_type": st.just("llama3"), "factor": st.floats(1, 64), "original_max_position_embeddings": LENGTHS,
    "low_freq_factor": st.floats(0.5, 2), "high_freq_factor": st.floats(2.5, 8),
})  # fmt: skip
YARN = st.fixed_dictionaries(
    {"rope_type": st.just("yarn"), "factor": st.floats(1, 64), "original_max_position_embeddings": LENGTHS},
    optional={
        "beta_fast": st.floats(8, 64), "beta_slow": st.floats(0.5, 4), "attention_factor": st.floats(0.1, 2),
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


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("window", [0, 1, 5, 30])
def test_attention_equals_the_formula(kv_heads: int, window: int) -> None:
    queries, keys, values = random_heads(2, 4, 20), random_heads(2, kv_heads, 20, seed=1), random_heads(2, kv_heads, 20, seed=2)
    seen = torch.tensor([[k <= q and (not window or k > q - window) for k in range(20)] for q in range(20)])
    mixed = attend(queries, keys, values, visible(None, 0, 20, window, CPU))
    torch.testing.assert_close(mixed, by_hand(queries, keys, values, seen), rtol=0, atol=1e-14)


@pytest.mark.parametrize("length", [1, 2, 64, PLAIN, PLAIN + 1])
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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kv_heads", [2, 4])
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


def test_documents_begin_where_the_number_changes_even_to_one_that_was_there_before() -> None:
    starts = document_starts(torch.tensor([[5, 5, 0, 5, 5, 5], [1, 1, 1, 1, 1, 1]]))
    assert starts is not None and starts.tolist() == [[0, 0, 2, 3, 3, 3], [0] * 6]


@pytest.mark.parametrize("window", [0, 1, 8, 100])
@pytest.mark.parametrize("documents", [False, True])
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


def test_a_row_of_one_document_takes_the_causal_path() -> None:
    one, two = torch.full((2, 9), 4), torch.cat([segments_of([9]), segments_of([4, 5])])
    assert document_starts(None) is None and document_starts(one) is None and document_starts(two) is not None
    assert visible(None, 0, 9, 0, CPU) is None
    assert visible(None, 0, 9, 9, CPU) is None  # a window as long as the text or longer
    mask = visible(None, 0, 9, 8, CPU)
    assert isinstance(mask, Tensor) and not mask[8, 0] and mask[7, 0]
    model = random_model()
    ids = random_ids((2, 9))
    assert torch.equal(model(ids, one), model(ids))


@pytest.mark.parametrize("window", [0, 1, 6, 25])
def test_the_cache_in_any_pieces_equals_no_cache(window: int) -> None:
    model = random_model(window=window).double()
    ids = random_ids((2, 40))
    for pieces in ([40], [1] * 40, [7, 1, 1, 20, 11]):
        cache = model.new_cache(40)
        with torch.no_grad():
            cached = torch.cat([model(part, cache=cache) for part in ids.split(pieces, dim=1)], dim=1)
        torch.testing.assert_close(cached, model(ids), rtol=0, atol=1e-10)


def test_a_window_with_a_cache_looks_at_no_key_beyond_it() -> None:
    model = random_model(window=6)
    cache = model.new_cache(20)
    with torch.no_grad():
        model(random_ids((1, 12)), cache=cache)
        for keys, values in cache.layers.values():
            keys[:, :, :7], values[:, :, :7] = torch.nan, torch.nan  # the next token, at 12, sees 7 to 12
        assert model(random_ids((1, 1)), cache=cache).isfinite().all()


def test_padding_on_the_right_changes_nothing() -> None:
    model = random_model().double()
    ids = random_ids((1, 20))
    padded = torch.cat([ids, torch.ones(1, 12, dtype=torch.int64)], dim=1)
    torch.testing.assert_close(model(padded)[:, :20], model(ids), rtol=0, atol=1e-10)


# ---- model -------------------------------------------------------------------------------------------

# The model's norm, its parts and its initial weights.


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wide_weight", [False, True])  # as under autocast
@pytest.mark.rounding
def test_rms_norm_equals_transformers_to_the_bit(dtype: torch.dtype, wide_weight: bool) -> None:
    ours, theirs = RMSNorm(32, 1e-5), LlamaRMSNorm(32, 1e-5)
    weight = torch.randn(32, generator=torch.Generator().manual_seed(1))
    ours.weight.data, theirs.weight.data = (weight.to(torch.float32 if wide_weight else dtype, copy=True) for _ in range(2))
    x = (torch.randn(4, 7, 32, generator=torch.Generator().manual_seed(2)) * 30).to(dtype)
    x, again = x.clone().requires_grad_(), x.clone().requires_grad_()
    assert torch.equal(ours(x), theirs(again))
    ours(x).sum().backward(), theirs(again).sum().backward()
    tolerance = {torch.bfloat16: 1e-2, torch.float16: 4e-3}.get(dtype, 1e-6)  # corpusmill does not round n before the sum
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


@pytest.mark.rounding
def test_a_new_model_takes_its_memory_once() -> None:
    peak = float(subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True, timeout=120).stdout)
    assert 0.8 < peak < 1.4


@pytest.mark.rounding
def test_initial_values_do_not_depend_on_the_type() -> None:
    arch = random_model().arch
    wide, narrow = new_model(arch, 1), Llama(arch).bfloat16()
    initialise(narrow, 1)
    assert all(torch.equal(a.bfloat16(), b) for a, b in zip(wide.parameters(), narrow.parameters(), strict=True))


@pytest.mark.rounding
def test_parts_in_a_row_compute_and_begin_as_the_whole() -> None:
    whole = random_model().double()
    first, last = random_model().double(), random_model().double()
    first.model.norm = first.lm_head = last.model.embed_tokens = None
    for part, gone in ((first, "2"), (last, "0"), (last, "1")):
        del part.model.layers[gone]
    ids = random_ids((2, 30))
    segments = (torch.arange(30) // 11).expand(2, -1)
    assert torch.equal(last(first(ids, segments), segments), whole(ids, segments))
    caches = first.new_cache(), last.new_cache()
    pieces = [last(first(piece, cache=caches[0]), cache=caches[1]) for piece in ids.split(6, dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole(ids), rtol=0, atol=1e-10)
    for part in (whole, first, last):
        initialise(part, 5)
    assert set(first.state_dict()) | set(last.state_dict()) == set(whole.state_dict())
    assert all(torch.equal(values, whole.state_dict()[name]) for part in (first, last) for name, values in part.state_dict().items())
