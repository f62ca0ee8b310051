"""The model's norm, its parts and how it begins."""

import subprocess
import sys

import pytest
import torch
from small_models import new_model, random_ids, random_model
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from corpusmill.train.model import Llama, initialise
from corpusmill.train.norm import RMSNorm

pytestmark = pytest.mark.rounding


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wide_weight", [False, True])  # as under autocast
def test_rms_norm_equals_transformers_to_the_bit(dtype: torch.dtype, wide_weight: bool) -> None:
    ours, theirs = RMSNorm(32, 1e-5), LlamaRMSNorm(32, 1e-5)
    weight = torch.randn(32, generator=torch.Generator().manual_seed(1))
    ours.weight.data, theirs.weight.data = (weight.to(torch.float32 if wide_weight else dtype, copy=True) for _ in range(2))
    x = (torch.randn(4, 7, 32, generator=torch.Generator().manual_seed(2)) * 30).to(dtype)
    x, again = x.clone().requires_grad_(), x.clone().requires_grad_()
    assert torch.equal(ours(x), theirs(again))
    ours(x).sum().backward(), theirs(again).sum().backward()
    tolerance = {torch.bfloat16: 1e-2, torch.float16: 4e-3}.get(dtype, 1e-6)  # ours does not round n before the sum
    torch.testing.assert_close(x.grad, again.grad, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("tied", [False, True])
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
    assert not torch.equal(queries[0], queries[1])  # each name has numbers of its own
    assert queries[0].std().item() == pytest.approx((3 * arch.width) ** -0.5, rel=0.05)


PEAK = """
from pathlib import Path
from corpusmill.train.model import blank_model, fill
from corpusmill.train.presets import ModelConfig

def peak():  # KiB
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

arch = ModelConfig(preset="85m").architecture(4096)
before = peak()
model = blank_model(arch)
fill(model, 0, "cpu")
print((peak() - before) * 1024 / (4 * arch.parameters()))
"""


def test_a_new_model_takes_its_memory_once() -> None:
    peak = float(subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True, timeout=120).stdout)
    assert 0.8 < peak < 1.4


def test_initial_values_do_not_depend_on_the_type() -> None:
    arch = random_model().arch
    wide, narrow = new_model(arch, 1), Llama(arch).bfloat16()
    initialise(narrow, 1)
    assert all(torch.equal(a.bfloat16(), b) for a, b in zip(wide.parameters(), narrow.parameters(), strict=True))


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
