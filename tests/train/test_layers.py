"""Layers that are computed again in the backward pass, or compiled, give the gradients of plain ones."""

import pytest
import torch
from small_models import random_ids, random_model
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cross_entropy

from corpusmill.train.model import Llama
from corpusmill.train.options import LoopConfig
from corpusmill.train.parallel.layout import ParallelDims
from corpusmill.train.parallel.prepare import prepare
from corpusmill.train.rope import rotary_table
from corpusmill.train.visibility import block_mask, dense_mask

pytestmark = pytest.mark.rounding

SHAPES = {"plain": {}, "qk-norm, window": {"qk_norm": True, "window": 7}}
SEGMENTS = (torch.arange(32) // 9).expand(2, -1)


def gradients(model: Llama, segments: Tensor | None = None) -> dict[str, Tensor]:
    model.zero_grad()
    ids = random_ids((2, 33))
    cross_entropy(model(ids[:, :-1], segments).flatten(0, 1), ids[:, 1:].flatten()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("segments", [None, SEGMENTS], ids=["one document", "documents"])
def test_checkpointing_gives_the_same_gradients_to_the_bit(shape: dict[str, object], segments: Tensor | None) -> None:
    model = random_model(**shape)
    expected = gradients(model, segments)
    model.model.switch(checkpointing=True)
    found = gradients(model, segments)
    assert found.keys() == expected.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("on", [False, True])
def test_the_loop_s_configuration_switches_checkpointing(on: bool) -> None:
    model = random_model()
    prepare(model, ParallelDims.single(model.device), LoopConfig(checkpointing=on))
    assert [layer.checkpointing for layer in model.model.layers.values()] == [on] * 3


def test_checkpointing_keeps_no_more_than_the_input_of_each_layer() -> None:
    model = random_model(layers=6)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def kept() -> int:
        """Bytes that the forward pass leaves for the backward pass, weights aside."""
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
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_compiled_gradients_equal_eager_ones(shape: dict[str, object], whole: bool) -> None:
    """Traced and differentiated by the compiler, without graph breaks, then run by PyTorch's own kernels."""
    torch._dynamo.reset()
    model = random_model(**shape)
    expected, expected_documents = gradients(model), gradients(model, SEGMENTS)
    for module in [model.model] if whole else model.model.layers.values():
        module.compile(backend="aot_eager", fullgraph=True)
    close(gradients(model), expected)
    close(gradients(model, SEGMENTS), expected_documents)


@pytest.mark.long
def test_generated_code_gives_the_logits_and_gradients_of_eager_layers_and_checkpoints() -> None:
    torch._dynamo.reset()
    model = random_model(qk_norm=True)
    expected, logits = gradients(model, SEGMENTS), model(random_ids((2, 32)), SEGMENTS)
    model.model.switch(checkpointing=True, compiled=True)
    close(gradients(model, SEGMENTS), expected)
    torch.testing.assert_close(model(random_ids((2, 32)), SEGMENTS), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_generated_flex_attention_equals_the_dense_mask() -> None:
    """The way that documents and windows take on a GPU, called by itself and in a compiled layer; forward alone, as the CPU has no more."""
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
