"""What every loss on pairs takes: the log-probabilities of a chosen and a rejected completion under policy and reference."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class LossOptions:
    """`beta`: how far the policy may move from the reference (ORPO: the weight of the odds ratio); `label_smoothing`: the share of
    pairs taken as swapped; `gamma`: SimPO's margin; the weights are KTO's."""

    beta: float = 0.1
    label_smoothing: float = 0.0
    gamma: float = 0.0
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0


@dataclass(frozen=True)
class PairLogps:
    """Sums over completion tokens, float32 [pairs]: nats under the policy and under the frozen reference, which losses
    without one leave out.

    `chosen_tokens` and `rejected_tokens` are the numbers of tokens summed over, for losses of means.
    """

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor | None
    reference_rejected: Tensor | None
    chosen_tokens: Tensor
    rejected_tokens: Tensor

    @cached_property
    def chosen_ratio(self) -> Tensor:
        """Log-ratio of policy to reference of the chosen completion."""
        assert self.reference_chosen is not None
        return self.chosen - self.reference_chosen

    @cached_property
    def rejected_ratio(self) -> Tensor:
        assert self.reference_rejected is not None
        return self.rejected - self.reference_rejected

    @cached_property
    def log_ratio(self) -> Tensor:
        """h of the DPO paper: how much more than the reference the policy prefers the chosen completion."""
        return self.chosen_ratio - self.rejected_ratio

    @cached_property
    def mean_log_ratio(self) -> Tensor:
        """The same of mean log-probabilities a token."""
        return self.chosen_ratio / self.chosen_tokens - self.rejected_ratio / self.rejected_tokens

    @cached_property
    def mean_chosen(self) -> Tensor:
        """The policy's log-probability a token of the chosen completion."""
        return self.chosen / self.chosen_tokens

    @cached_property
    def mean_rejected(self) -> Tensor:
        return self.rejected / self.rejected_tokens


PreferenceLoss = Callable[[PairLogps, LossOptions], Tensor]

#: The names of what `pair_metrics` gives; `kl` only where there is a reference.
METRICS = ("accuracy", "margin", "reward_chosen", "reward_rejected", "chosen_tokens", "rejected_tokens", "kl")


@torch.no_grad()
def pair_metrics(pairs: PairLogps, options: LossOptions) -> dict[str, Tensor]:
    """What is logged of a batch, float32 [pairs] each.

    Rewards are beta * (policy - reference), as in the DPO paper; without a reference beta * the policy's log-probability a token,
    as in those of ORPO and SimPO. `accuracy` is the share of pairs whose chosen completion has the higher one. `kl` is the
    policy's log-ratio to the reference a completion token: on data and not on samples, so it may be negative.
    """
    if pairs.reference_chosen is None:
        chosen, rejected = pairs.mean_chosen, pairs.mean_rejected
        kl = {}
    else:
        chosen, rejected = pairs.chosen_ratio, pairs.rejected_ratio
        kl = {"kl": (chosen + rejected) / (pairs.chosen_tokens + pairs.rejected_tokens)}
    return {
        "accuracy": (chosen > rejected).float(),
        "margin": options.beta * (chosen - rejected),
        "reward_chosen": options.beta * chosen,
        "reward_rejected": options.beta * rejected,
        "chosen_tokens": pairs.chosen_tokens.float(),
        "rejected_tokens": pairs.rejected_tokens.float(),
        **kl,
    }
