"""Optimisers against torch's own."""

import pytest
import torch

from corpusmill.train.adamw import AdamW
from corpusmill.train.architecture import Architecture
from corpusmill.train.model import Llama, initialise
from corpusmill.train.muon import Muon, orthogonalize
from corpusmill.train.optimizer import Optimizer
from corpusmill.train.options import OptimizerConfig

pytestmark = pytest.mark.rounding

ARCH = Architecture(vocab_size=13, layers=2, width=8, heads=2, kv_heads=1, head_dim=4, ffn=16, context=8)


def model_with_gradients() -> Llama:
    model = Llama(ARCH)
    initialise(model, 1)
    return model


def give_gradients(model: torch.nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator)


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
@pytest.mark.parametrize("shape", [(16, 16), (32, 16), (16, 32)])
def test_muon_follows_torch_within_its_bf16(shape: tuple[int, int]) -> None:
    ours, theirs = (torch.nn.Parameter(torch.zeros(shape)) for _ in range(2))
    optimizer = Muon([ours], momentum=0.95, weight_decay=0.1)
    reference = torch.optim.Muon([theirs], lr=0.1, momentum=0.95, weight_decay=0.1)
    for step in range(4):
        grad = torch.randn(shape, generator=torch.Generator().manual_seed(step))
        ours.grad, theirs.grad = grad.clone(), grad.clone()
        optimizer.step(0.1)
        reference.step()
    assert float((ours - theirs).detach().norm() / theirs.detach().norm()) < 0.02


def test_orthogonalize_brings_singular_values_near_one_and_keeps_directions() -> None:
    matrices = torch.randn(3, 24, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    result = orthogonalize(matrices)
    values = torch.linalg.svdvals(result)
    assert float(values.min()) > 0.6 and float(values.max()) < 1.3
    assert float(((u @ v) * result).sum() / result.norm() / (u @ v).norm()) > 0.97


def test_muon_has_the_matrices_inside_the_layers_and_adamw_the_rest() -> None:
    model = model_with_gradients()
    adamw, muon = (part for part, _ in Optimizer(dict(model.named_parameters()), OptimizerConfig(kind="muon")).parts)
    assert isinstance(adamw, AdamW) and isinstance(muon, Muon)
    names = {p: name for name, p in model.named_parameters()}
    assert {names[p].rsplit(".", 2)[1] for p in muon.params} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
    }  # fmt: skip
    assert {names[p] for p in adamw.groups[0][0]} == {"model.embed_tokens.weight", "lm_head.weight"}


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_state_goes_out_and_comes_back(kind: str) -> None:
    config = OptimizerConfig(kind=kind)  # type: ignore[arg-type]
    first, second = model_with_gradients(), model_with_gradients()
    a = Optimizer(dict(first.named_parameters()), config)
    for step in range(3):
        give_gradients(first, step)
        a.step(1.0)
    second.load_state_dict(first.state_dict())
    b = Optimizer(dict(second.named_parameters()), config)
    saved, fresh = a.state(), b.state()
    assert saved.keys() == fresh.keys() and all(not t.any() for t in fresh.values())
    for name, t in fresh.items():
        t.copy_(saved[name])
    for model, optimizer in ((first, a), (second, b)):
        give_gradients(model, 9)
        optimizer.step(1.0)
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters()))
