"""Kahneman-Tversky Optimization (Ethayarajh et al. 2024, arXiv 2402.01306): completions that are good or bad, without a partner."""

from dataclasses import dataclass

import torch
from torch import Tensor

from corpusmill.train.losses.pairs import LossOptions


@dataclass(frozen=True)
class CompletionLogps:
    """Sums over completion tokens, float32 [completions], under policy and reference; `desirable` is bool.

    `kl` is the reference point, a scalar: see `reference_point`. `tokens` are the numbers of tokens summed over.
    """

    policy: Tensor
    reference: Tensor
    tokens: Tensor
    desirable: Tensor
    kl: Tensor

    @property
    def ratio(self) -> Tensor:
        return self.policy - self.reference


def reference_point(ratios: Tensor, count: Tensor | int) -> Tensor:
    """max(0, mean log-ratio of mismatched completions), an estimate of KL(policy, reference) that carries no gradient.

    A mismatched completion follows another example's prompt. `ratios` is the sum over all processes' ones, `count` how many there are.
    """
    return (ratios.detach() / count).clamp(min=0)


def kto(completions: CompletionLogps, options: LossOptions) -> Tensor:
    """weight * (1 - sigmoid(beta (r - kl))) of a desirable completion with log-ratio r, 1 - sigmoid(beta (kl - r)) of an
    undesirable one: float32 [completions]."""
    above = options.beta * (completions.ratio - completions.kl)
    good = options.desirable_weight * torch.sigmoid(-above)  # 1 - sigmoid(x) without cancellation
    bad = options.undesirable_weight * torch.sigmoid(above)
    return torch.where(completions.desirable, good, bad)


#: The names of what `completion_metrics` gives.
METRICS = ("accuracy", "margin", "reward_chosen", "reward_rejected", "chosen_tokens", "rejected_tokens", "kl")


@torch.no_grad()
def completion_metrics(completions: CompletionLogps, options: LossOptions, n_desirable: int, n_undesirable: int) -> dict[str, Tensor]:
    """What is logged of a batch, [completions] each, whose means over a step of `n_desirable` and `n_undesirable` are means
    of their kind (0 where a step has none of it): `reward_chosen` and `chosen_tokens` of the desirable, `reward_rejected` and
    `rejected_tokens` of the undesirable. `margin` is between the two; `accuracy` the share on the right side of `kl`."""
    total = n_desirable + n_undesirable
    chosen = completions.desirable * (total / max(n_desirable, 1))
    rejected = ~completions.desirable * (total / max(n_undesirable, 1))
    ratio, rewards, tokens = completions.ratio, options.beta * completions.ratio, completions.tokens
    return {
        "accuracy": ((ratio > completions.kl) == completions.desirable).float(),
        "margin": chosen * rewards - rejected * rewards,
        "reward_chosen": chosen * rewards,
        "reward_rejected": rejected * rewards,
        "chosen_tokens": chosen * tokens,
        "rejected_tokens": rejected * tokens,
        "kl": completions.kl.expand_as(ratio),
    }
