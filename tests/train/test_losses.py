"""Compares the loss of tokens with float64 and autograd."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.train.align import REFERENCE_FREE
from corpusmill.train.losses import (
    LOSSES,
    LossOptions,
    PairLogps,
    log_odds,
    log_z,
    pair_metrics,
    token_loss,
    token_nats,
)

# ---- token loss --------------------------------------------------------------------------------------


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
    """The sum of exponentials is taken in fp32: the result is as near to float64 as fp32 can be, not as the logits' own type."""
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
    assert not ours.grad[0, 2:].any()  # masked targets have no gradient
    assert torch.equal(log_z(logits), logits.logsumexp(-1))


@pytest.mark.parametrize("z_loss", [0.0, 1e-4])
def test_a_batch_without_targets_has_loss_and_gradient_zero(z_loss: float) -> None:
    logits = some()[0].requires_grad_()
    loss = token_loss(logits, torch.full((3, 5), -100), z_loss)
    loss.backward()
    assert loss.item() == 0.0 and logits.grad is not None and not logits.grad.any()


# ---- losses ------------------------------------------------------------------------------------------

# Expected values (computed by hand from the papers' formulas, equal to TRL's) and invariants.

PLAIN, SMOOTHED, MARGIN = LossOptions(beta=0.1), LossOptions(beta=0.1, label_smoothing=0.1), LossOptions(beta=2.0, gamma=1.0)


def logps(chosen, rejected, reference_chosen, reference_rejected, chosen_tokens=None, rejected_tokens=None) -> PairLogps:
    ones = [1.0] * len(chosen)
    columns = (chosen, rejected, reference_chosen, reference_rejected, chosen_tokens or ones, rejected_tokens or ones)
    return PairLogps(*(torch.tensor(column) for column in columns))


@pytest.fixture
def pairs() -> PairLogps:
    return logps([-10.0, -12.0], [-11.0, -9.0], [-10.5, -11.0], [-10.5, -10.0])


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("sigmoid", PLAIN, [0.6443967, 0.7981389]),
        ("conservative", SMOOTHED, [0.6543967, 0.7781389]),
        ("robust", SMOOTHED, [0.6318967, 0.8231388]),
        ("ipo", PLAIN, [16.0, 49.0]),
        ("orpo", PLAIN, [10.0313254, 12.3048699]),
        ("simpo", MARGIN, [0.3132617, 7.0009115]),
    ],
)
@pytest.mark.rounding
def test_golden_values(pairs, name, options, expected):
    assert pairs.log_ratio.tolist() == [1.0, -2.0]
    assert LOSSES[name](pairs, options).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.rounding
def test_losses_of_means_divide_by_the_tokens():
    pairs = logps([-10.0], [-11.0], [-14.0], [-9.0], [4.0], [2.0])  # h = 4/4 - (-2)/2 = 2
    assert LOSSES["mean-sigmoid"](pairs, PLAIN).item() == pytest.approx(math.log(1 + math.exp(-0.2)))
    assert LOSSES["ipo"](pairs, PLAIN).item() == pytest.approx((2 - 5) ** 2)
    assert LOSSES["simpo"](pairs, MARGIN).item() == pytest.approx(math.log(1 + math.exp(1 - 2 * (-2.5 + 5.5))))
    confident = logps([-0.4], [-4.0], [0.0], [0.0], [4.0], [2.0])  # -0.1 and -2 a token
    assert LOSSES["orpo"](confident, PLAIN).item() == pytest.approx(0.1016327, abs=1e-6)


@pytest.mark.rounding
def test_without_smoothing_the_variants_are_dpo(pairs):
    for name in ("conservative", "robust"):
        torch.testing.assert_close(LOSSES[name](pairs, PLAIN), LOSSES["sigmoid"](pairs, PLAIN))


@given(st.floats(-500, 0, width=32), st.floats(-500, 0, width=32), st.integers(1, 50), st.integers(1, 50))
@pytest.mark.rounding
def test_the_first_loss_is_that_of_no_preference(chosen, rejected, m, n):
    pairs = logps([chosen], [rejected], [chosen], [rejected], [float(m)], [float(n)])
    for name in ("sigmoid", "conservative", "mean-sigmoid", "robust"):
        assert LOSSES[name](pairs, SMOOTHED).item() == pytest.approx(math.log(2), abs=1e-6)
    assert LOSSES["sigmoid"](pairs, PLAIN).item() == torch.tensor(2.0).log().item()


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.rounding
def test_gradients_push_the_pair_apart(pairs, name):
    chosen, rejected = pairs.chosen.clone().requires_grad_(), pairs.rejected.clone().requires_grad_()
    references = (None, None) if name in REFERENCE_FREE else (pairs.reference_chosen, pairs.reference_rejected)
    LOSSES[name](PairLogps(chosen, rejected, *references, pairs.chosen_tokens, pairs.rejected_tokens), PLAIN).sum().backward()
    assert (chosen.grad < 0).all() and (rejected.grad > 0).all()


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize(
    ("chosen", "rejected"), [(-1.0, -1e4), (-1e4, -1.0), (-3.0, -3.0), (0.0, -1e4), (-1e4, 0.0), (0.0, 0.0), (-1e-7, -5.0)]
)
@pytest.mark.rounding
def test_the_edges_give_finite_losses_and_gradients(name, chosen, rejected):
    leaves = torch.tensor([chosen], requires_grad=True), torch.tensor([rejected], requires_grad=True)
    one = torch.ones(1)
    loss = LOSSES[name](PairLogps(*leaves, -one, -one, one, one), LossOptions(beta=1.0, label_smoothing=0.1, gamma=0.5))
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


@pytest.mark.rounding
def test_metrics(pairs):
    metrics = pair_metrics(pairs, PLAIN)
    assert metrics["accuracy"].tolist() == [1.0, 0.0]
    assert metrics["margin"].tolist() == pytest.approx([0.1, -0.2])
    assert metrics["reward_chosen"].tolist() == pytest.approx([0.05, -0.1])
    assert metrics["kl"].tolist() == [0.0, 0.0]


@pytest.mark.rounding
def test_without_a_reference_rewards_are_of_means():
    metrics = pair_metrics(
        PairLogps(*(torch.tensor([value]) for value in (-10.0, -9.0)), None, None, torch.tensor([5.0]), torch.tensor([3.0])), PLAIN
    )
    assert (metrics["reward_chosen"].item(), metrics["reward_rejected"].item()) == pytest.approx((-0.2, -0.3))
    assert metrics["accuracy"].item() == 1 and "kl" not in metrics
