"""The loss of tokens against float64 and autograd."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.train.token_loss import log_z, token_loss, token_nats


def some(seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(3, 5, 11, generator=generator, dtype=torch.float64) * scale).to(dtype)
    targets = torch.randint(11, (3, 5), generator=generator)
    targets[0, 2:] = -100
    return logits, targets


def test_nats_are_minus_the_log_of_the_softmax() -> None:
    logits, targets = some()
    nats = token_nats(logits, targets)
    wanted = -logits.softmax(-1).gather(-1, targets.clamp_min(0)[..., None]).squeeze(-1).log()
    torch.testing.assert_close(nats, torch.where(targets >= 0, wanted, 0.0), rtol=1e-12, atol=1e-12)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.1, 100), st.sampled_from([torch.bfloat16, torch.float16, torch.float32]))
def test_nats_of_16_bit_logits_are_those_of_their_values(seed: int, scale: float, dtype: torch.dtype) -> None:
    """The sum of exponentials is taken in fp32: what comes out is as near to float64 as fp32 can be, not as the logits' own type."""
    logits, targets = some(seed, scale, dtype)
    nats = token_nats(logits, targets)
    assert nats.dtype == torch.float32
    torch.testing.assert_close(nats.double(), token_nats(logits.double(), targets), rtol=1e-5, atol=1e-5 * scale)


def test_large_logits_give_no_overflow() -> None:
    logits = torch.tensor([[[1e4, -1e4, 0.0]]], dtype=torch.bfloat16)
    assert (
        token_nats(logits, torch.tensor([[0]])).item() == 0.0 and token_nats(logits, torch.tensor([[2]])).item() == logits[0, 0, 0].item()
    )


@pytest.mark.parametrize("z_loss", [0.0, 1e-4, 0.1])
def test_z_loss_is_in_the_gradient_and_not_in_the_value(z_loss: float) -> None:
    logits, targets = some(3, 4.0)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value = token_loss(ours, targets, z_loss)
    value.backward()
    nats = F.cross_entropy(theirs.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum")
    (nats + z_loss * (theirs.logsumexp(-1)[targets >= 0] ** 2).sum()).backward()
    assert value.item() == token_nats(logits, targets).sum().item()
    assert ours.grad is not None and theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-12)
    assert not ours.grad[0, 2:].any()  # masked targets pull at nothing
    assert torch.equal(log_z(logits), logits.logsumexp(-1))


@pytest.mark.parametrize("z_loss", [0.0, 1e-4])
def test_a_batch_without_targets_has_loss_and_gradient_zero(z_loss: float) -> None:
    logits = some()[0].requires_grad_()
    loss = token_loss(logits, torch.full((3, 5), -100), z_loss)
    loss.backward()
    assert loss.item() == 0.0 and logits.grad is not None and not logits.grad.any()
