"""Losses and their gradients are TRL's own: its trainers' loss methods are given the same log-probabilities, in float64."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from trl import DPOTrainer, KTOTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

from corpusmill.train.losses import LOSSES, LossOptions, PairLogps, pair_metrics
from corpusmill.train.losses.kto import CompletionLogps, completion_metrics, kto, reference_point

LENGTHS = torch.tensor([12, 3, 1, 7, 5, 11, 2, 8])  # of four chosen and four rejected completions
MASK = torch.arange(1 + 12) < 1 + LENGTHS[:, None]  # [8, 13]: a prompt of one token before them
COMPLETIONS = MASK & (torch.arange(13) > 0)


def random_logps(seed: int) -> Tensor:
    """Of tokens, float64 [8, 12]; 0 where there is none, as TRL's models give them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 12, generator=generator, dtype=torch.float64).square().neg() * COMPLETIONS[:, 1:]


def trainer(kind: type, **attributes: object):
    """A trainer with what its loss method reads and nothing else: no dataset, no model."""
    made = kind.__new__(kind)
    accelerator = SimpleNamespace(device=torch.device("cpu"), gather=lambda values: values, gather_for_metrics=lambda values: values)
    vars(made).update(
        accelerator=accelerator, model=SimpleNamespace(training=True), _metrics={"train": defaultdict(list)}, _total_train_tokens=0,
        _tp_size=1, aux_loss_enabled=False, precompute_ref_logps=True, **attributes,
    )  # fmt: skip
    return made


def model_of(*token_logps: Tensor):
    """What TRL calls a model: gives the log-probabilities of each call in turn."""
    calls = iter(token_logps)

    def model(**_):
        logps = next(calls)
        still = torch.zeros_like(logps)
        return SimpleNamespace(log_probs=logps, entropy=still, mean_logits=still, is_top1=still.bool())

    return model


def inputs() -> dict[str, Tensor]:
    return {"input_ids": torch.ones(8, 13, dtype=torch.int64), "attention_mask": MASK.long(), "completion_mask": COMPLETIONS.long()}


def pairs_of(token_logps: Tensor, reference: Tensor | None) -> PairLogps:
    references = (None, None) if reference is None else (reference[:4], reference[4:])
    return PairLogps(*token_logps.sum(1).chunk(2), *references, *LENGTHS.chunk(2))


def assert_same(ours: Tensor, theirs: Tensor, leaf: Tensor) -> None:
    """Equal losses and equal gradients for the log-probabilities that both are made from."""
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    mine, their = (torch.autograd.grad(loss, leaf)[0] for loss in (ours, theirs))
    torch.testing.assert_close(mine, their, rtol=1e-10, atol=1e-12)
    assert mine.abs().max() > 1e-3


@pytest.mark.parametrize("beta", [0.1, 2.5])
@pytest.mark.parametrize(
    ("name", "theirs", "smoothing"),
    [("sigmoid", "sigmoid", 0), ("robust", "robust", 0.2), ("ipo", "ipo", 0), ("mean-sigmoid", "sigmoid_norm", 0)],
)
def test_dpo(name, theirs, smoothing, beta):
    logps, reference = random_logps(1).requires_grad_(), random_logps(2).sum(1)
    made = trainer(
        DPOTrainer, loss_types=[theirs], loss_weights=[1.0], beta=beta, label_smoothing=smoothing, ld_alpha=None,
        f_divergence_type="reverse_kl", use_weighting=False,
    )  # fmt: skip
    batch = inputs() | {"ref_chosen_logps": reference[:4], "ref_rejected_logps": reference[4:]}
    loss = made._compute_loss(model_of(logps), batch, False)
    pairs, options = pairs_of(logps, reference), LossOptions(beta, smoothing)
    assert_same(LOSSES[name](pairs, options).mean(), loss, logps)
    measured, logged = pair_metrics(pairs, options), made._metrics["train"]
    for ours, metric in {"accuracy": "accuracies", "margin": "margins", "reward_chosen": "chosen", "reward_rejected": "rejected"}.items():
        assert measured[ours].mean().item() == pytest.approx(logged[f"rewards/{metric}"][0], rel=1e-6)


def test_conservative():
    """TRL's `sigmoid` has no label smoothing, its CPO has it: the authors' formula, where it is given log-ratios."""
    logps, reference = random_logps(1).requires_grad_(), random_logps(2).sum(1)
    made = trainer(CPOTrainer, loss_type="sigmoid", beta=0.3, label_smoothing=0.2, alpha=0.0)
    losses, *_ = made.cpo_loss(*(logps.sum(1) - reference).chunk(2))
    assert_same(LOSSES["conservative"](pairs_of(logps, reference), LossOptions(0.3, 0.2)).mean(), losses.mean(), logps)


def test_simpo():
    logps = random_logps(1).requires_grad_()
    made = trainer(CPOTrainer, loss_type="simpo", beta=2.0, simpo_gamma=1.2, label_smoothing=0.0, alpha=0.0)
    losses, *_ = made.cpo_loss(*(logps.sum(1) / LENGTHS).chunk(2))
    assert_same(LOSSES["simpo"](pairs_of(logps, None), LossOptions(beta=2.0, gamma=1.2)).mean(), losses.mean(), logps)


def test_orpo():
    """TRL casts to float32; its loss is the tuning's minus what `odds_ratio_loss` gives."""
    logps = random_logps(1).float().requires_grad_()
    made = trainer(ORPOTrainer, beta=0.4)
    means = logps.sum(1) / LENGTHS
    odds, *_ = made.odds_ratio_loss(*means.chunk(2))
    ours, theirs = LOSSES["orpo"](pairs_of(logps, None), LossOptions(0.4)), -means[:4] - odds
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    mine, their = (torch.autograd.grad(losses.sum(), logps)[0] for losses in (ours, theirs))
    torch.testing.assert_close(mine, their, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shift", [0.0, -40.0], ids=["kl", "kl at zero"])
def test_kto(shift):
    logps, reference = random_logps(1).requires_grad_(), random_logps(2).sum(1)
    mismatched, mismatched_reference = random_logps(3) + shift * COMPLETIONS[:, 1:], random_logps(4).sum(1) - 2
    desirable = torch.tensor([1, 0, 0, 1, 1, 0, 1, 0]).bool()
    made = trainer(KTOTrainer, loss_type="kto", beta=0.2, calculate_KL=True, desirable_weight=1.3, undesirable_weight=0.7)
    batch = inputs() | {f"KL_{name}": value for name, value in inputs().items()}
    batch |= {"label": desirable, "ref_logps": reference, "ref_KL_logps": mismatched_reference}
    loss = made._compute_loss(model_of(mismatched, logps), batch, False)

    options = LossOptions(0.2, desirable_weight=1.3, undesirable_weight=0.7)
    kl = reference_point((mismatched.sum(1) - mismatched_reference).sum(), 8)
    completions = CompletionLogps(logps.sum(1), reference, LENGTHS, desirable, kl)
    assert_same(kto(completions, options).mean(), loss, logps)
    measured, logged = completion_metrics(completions, options, 4, 4), made._metrics["train"]
    assert kl.item() == pytest.approx(logged["kl"][0]) and (kl > 0) == (shift == 0)
    for ours, metric in {"margin": "margins", "reward_chosen": "chosen", "reward_rejected": "rejected"}.items():
        assert measured[ours].mean().item() == pytest.approx(logged[f"rewards/{metric}"][0], rel=1e-6)
