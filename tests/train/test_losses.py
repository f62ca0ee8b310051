"""Compares the loss of tokens with float64 and autograd; losses of pairs stay finite."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import random_ids, random_model
from torch.utils._python_dispatch import TorchDispatchMode

from corpusmill.train import model as models
from corpusmill.train.losses import LOSSES, LossOptions, PairLogps, log_odds
from corpusmill.train.model import Objective, linear_nats, target_nats, token_nats

# ---- token loss --------------------------------------------------------------------------------------


def some(seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(3, 5, 11, generator=generator, dtype=torch.float64) * scale).to(dtype)
    targets = torch.randint(11, (3, 5), generator=generator)
    targets[0, 2:] = -100
    return logits, targets


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.1, 100), st.sampled_from([torch.bfloat16, torch.float16, torch.float32]))
def test_nats_of_16_bit_logits_are_those_of_their_values(seed: int, scale: float, dtype: torch.dtype) -> None:
    """The sum of exponentials is taken in fp32: the result is as near to float64 as fp32 can be, not as the logits' own type."""
    logits, targets = some(seed, scale, dtype)
    nats = token_nats(logits, targets)
    assert nats.dtype == torch.float32
    torch.testing.assert_close(nats.double(), token_nats(logits.double(), targets), rtol=1e-5, atol=1e-5 * scale)


def test_nats_without_gradients_are_those_with_gradients() -> None:
    """Without gradients, the logits of the 1,400 or so targets are computed in chunks."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, 300, 8, generator=generator, dtype=torch.float64)
    targets = torch.randint(-1, 11, (5, 300), generator=generator)
    targets[targets < 0] = -100
    head = torch.nn.Linear(8, 11, bias=False, dtype=torch.float64)
    at_once = target_nats(head, hidden, targets)
    with torch.no_grad():
        torch.testing.assert_close(target_nats(head, hidden, targets), at_once, rtol=1e-12, atol=1e-12)
        assert target_nats(head, hidden, torch.full_like(targets, -100)).shape == (0,)
    torch.testing.assert_close(at_once, token_nats(head(hidden), targets)[targets != -100], rtol=1e-12, atol=1e-12)


def test_masked_targets_have_no_gradient() -> None:
    logits, targets = some(3, 4.0)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value = token_nats(ours, targets).sum()
    value.backward()
    nats = F.cross_entropy(theirs.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum")
    nats.backward()
    assert value.item() == pytest.approx(nats.item(), rel=1e-12)
    assert ours.grad is not None and theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-12)
    assert not ours.grad[0, 2:].any()


# ---- losses of hidden states -------------------------------------------------------------------------


@pytest.mark.parametrize("multiple", [1, 16])  # of the matrix's rows, which then are 11 or 16
@pytest.mark.parametrize("summed", [True, False])
def test_chunks_of_logits_give_values_and_gradients_of_torch(monkeypatch: pytest.MonkeyPatch, multiple: int, summed: bool) -> None:
    monkeypatch.setattr(models, "LOGITS", 60)  # 5 or 3 rows at a time
    generator = torch.Generator().manual_seed(1)
    head = torch.nn.Linear(8, 11, bias=False, dtype=torch.float64)
    hidden = torch.randn(23, 8, generator=generator, dtype=torch.float64).requires_grad_()
    targets, weights = torch.randint(11, (23,), generator=generator), torch.rand(23, generator=generator, dtype=torch.float64)
    targets[3:7] = -100
    logits = head(hidden)
    nats = F.cross_entropy(logits, targets, ignore_index=-100, reduction="none")
    wanted = nats * (1 if summed else weights)
    monkeypatch.setattr(models, "MULTIPLE", {"cpu": multiple})
    found = linear_nats(head, hidden, targets, summed=summed)
    torch.testing.assert_close(found, nats.sum() if summed else nats, rtol=0, atol=1e-10)
    ours = torch.autograd.grad(3 * (found if summed else (found * weights).sum()), [hidden, head.weight])
    for mine, theirs in zip(ours, torch.autograd.grad(3 * wanted.sum(), [hidden, head.weight]), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_tied_model_has_the_gradients_of_whole_logits(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    model, ids = random_model(tied=True).double(), random_ids((2, 33))
    batch = ids[:, :-1], ids[:, 1:].masked_fill(ids[:, 1:] % 5 == 0, -100), None
    found = []
    for logits in (models.LOGITS, 1000):
        monkeypatch.setattr(models, "LOGITS", logits)
        model.zero_grad()
        model.compiled = compiled and logits == 1000
        loss = Objective().loss(model, batch)
        loss.total.backward()
        nats = model(batch[0], targets=batch[1])
        found.append([loss.total.detach(), nats.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


class Largest(TorchDispatchMode):
    """Notes the bytes of the largest tensor that any operation makes."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("summed", [True, False])
def test_logits_of_a_vocabulary_of_128k_never_exist_at_once(monkeypatch: pytest.MonkeyPatch, summed: bool) -> None:
    monkeypatch.setattr(models, "LOGITS", 2**22)
    head, hidden = torch.nn.Linear(16, 2**17, bias=False), torch.randn(256, 16).requires_grad_()
    with Largest() as largest:
        linear_nats(head, hidden, torch.arange(256), summed=summed).sum().backward()
    assert largest.bytes <= 4 * 2**22  # a chunk in fp32; all logits are eight times as much


# ---- losses ------------------------------------------------------------------------------------------

# Losses of pairs, whose values test_trl.py compares with TRL's.


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize(("chosen", "rejected"), [(-1e4, -1.0), (0.0, -1e4), (0.0, 0.0), (-1e-7, -5.0)])
@pytest.mark.rounding
def test_the_edges_give_finite_losses_and_gradients(name, chosen, rejected):
    leaves = torch.tensor([chosen], requires_grad=True), torch.tensor([rejected], requires_grad=True)
    ones = torch.ones(2, 1)
    loss = LOSSES[name](PairLogps(torch.stack(leaves), -ones, ones), LossOptions(beta=1.0, label_smoothing=0.1, gamma=0.5))
    loss.sum().backward()
    assert loss.isfinite() and all(leaf.grad.isfinite() for leaf in leaves)
    if name in ("sigmoid", "simpo") and rejected == -1.0:  # far on the wrong side the loss is linear, and its gradient is beta
        assert loss.item() == pytest.approx(9999 + (0.5 if name == "simpo" else 0)) and leaves[0].grad.item() == -1


@given(st.floats(-50, -1e-6))
@pytest.mark.rounding
def test_log_odds_are_those_of_double_precision(logp):
    single = torch.tensor(logp, dtype=torch.float32)
    exact = single.item() - math.log(-math.expm1(single.item()))
    assert log_odds(single).item() == pytest.approx(exact, rel=3e-7, abs=3e-7)
