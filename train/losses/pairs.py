"""What every preference loss takes: the log-probabilities of a chosen and a rejected completion, twice."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class LossOptions:
    """`beta`: how far the policy may move from the reference; `label_smoothing`: the share of pairs taken as swapped."""

    beta: float = 0.1
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class PairLogps:
    """Sums over completion tokens, float32 [pairs]: nats under the policy and under the frozen reference.

    `chosen_tokens` and `rejected_tokens` are the numbers of tokens summed over, for losses of means.
    """

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor

    @cached_property
    def log_ratio(self) -> Tensor:
        """h of the DPO paper: how much more than the reference the policy prefers the chosen completion."""
        return (self.chosen - self.reference_chosen) - (self.rejected - self.reference_rejected)

    @cached_property
    def mean_log_ratio(self) -> Tensor:
        """The same of mean log-probabilities a token."""
        return (self.chosen - self.reference_chosen) / self.chosen_tokens - (self.rejected - self.reference_rejected) / self.rejected_tokens


PreferenceLoss = Callable[[PairLogps, LossOptions], Tensor]

#: The names of what `pair_metrics` gives.
METRICS = ("accuracy", "margin", "reward_chosen", "reward_rejected", "kl", "chosen_tokens", "rejected_tokens")


@torch.no_grad()
def pair_metrics(pairs: PairLogps, options: LossOptions) -> dict[str, Tensor]:
    """What is logged of a batch, float32 [pairs] each. Rewards are beta * (policy - reference), as in the paper;
    `kl` is the policy's log-ratio to the reference a completion token: on data and not on samples, so it may be
    negative."""
    reward_chosen = options.beta * (pairs.chosen - pairs.reference_chosen)
    reward_rejected = options.beta * (pairs.rejected - pairs.reference_rejected)
    tokens = pairs.chosen_tokens + pairs.rejected_tokens
    return {
        "accuracy": (pairs.log_ratio > 0).float(),
        "margin": reward_chosen - reward_rejected,
        "reward_chosen": reward_chosen,
        "reward_rejected": reward_rejected,
        "kl": (pairs.chosen - pairs.reference_chosen + pairs.rejected - pairs.reference_rejected) / tokens,
        "chosen_tokens": pairs.chosen_tokens.float(),
        "rejected_tokens": pairs.rejected_tokens.float(),
    }
