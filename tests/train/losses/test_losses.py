"""Golden values (computed by hand from the papers' formulas, equal to what TRL gives) and invariants."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.train.losses import LOSSES, LossOptions, PairLogps, pair_metrics

PLAIN, SMOOTHED = LossOptions(beta=0.1), LossOptions(beta=0.1, label_smoothing=0.1)


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
    ],
)
def test_golden_values(pairs, name, options, expected):
    assert pairs.log_ratio.tolist() == [1.0, -2.0]
    assert LOSSES[name](pairs, options).tolist() == pytest.approx(expected, abs=1e-6)


def test_losses_of_means_divide_by_the_tokens():
    pairs = logps([-10.0], [-11.0], [-14.0], [-9.0], [4.0], [2.0])  # h = 4/4 - (-2)/2 = 2
    assert LOSSES["mean-sigmoid"](pairs, PLAIN).item() == pytest.approx(math.log(1 + math.exp(-0.2)))
    assert LOSSES["ipo"](pairs, PLAIN).item() == pytest.approx((2 - 5) ** 2)


def test_without_smoothing_the_variants_are_dpo(pairs):
    for name in ("conservative", "robust"):
        torch.testing.assert_close(LOSSES[name](pairs, PLAIN), LOSSES["sigmoid"](pairs, PLAIN))


@given(st.floats(-500, 0, width=32), st.floats(-500, 0, width=32), st.integers(1, 50), st.integers(1, 50))
def test_the_first_loss_is_that_of_no_preference(chosen, rejected, m, n):
    pairs = logps([chosen], [rejected], [chosen], [rejected], [float(m)], [float(n)])
    for name in ("sigmoid", "conservative", "mean-sigmoid", "robust"):
        assert LOSSES[name](pairs, SMOOTHED).item() == pytest.approx(math.log(2), abs=1e-6)
    assert LOSSES["sigmoid"](pairs, PLAIN).item() == torch.tensor(2.0).log().item()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradients_push_the_pair_apart(pairs, name):
    chosen, rejected = pairs.chosen.clone().requires_grad_(), pairs.rejected.clone().requires_grad_()
    LOSSES[name](
        PairLogps(chosen, rejected, pairs.reference_chosen, pairs.reference_rejected, pairs.chosen_tokens, pairs.rejected_tokens), PLAIN
    ).sum().backward()
    assert (chosen.grad < 0).all() and (rejected.grad > 0).all()


def test_metrics(pairs):
    metrics = pair_metrics(pairs, PLAIN)
    assert metrics["accuracy"].tolist() == [1.0, 0.0]
    assert metrics["margin"].tolist() == pytest.approx([0.1, -0.2])
    assert metrics["reward_chosen"].tolist() == pytest.approx([0.05, -0.1])
    assert metrics["kl"].tolist() == [0.0, 0.0]
