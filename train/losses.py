"""Losses of preferences, and their metrics.

They are functions of the log-probabilities of a chosen and a rejected completion under policy and reference; float32, one value for each
pair.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


@dataclass(frozen=True)
class LossOptions:
    """`beta`: how far the policy may move from the reference (ORPO: the weight of the odds ratio); `label_smoothing`: the share of
    pairs taken as swapped; `gamma`: SimPO's margin."""

    beta: float = 0.1
    label_smoothing: float = 0.0
    gamma: float = 0.0


@dataclass(frozen=True)
class PairLogps:
    """Sums of log-probabilities over completion tokens, float32 `[2, pairs]`, the chosen completions first: under the policy, and under the
    frozen reference (None for losses without a reference). `tokens` are the numbers of tokens summed over."""

    policy: Tensor
    reference: Tensor | None
    tokens: Tensor

    @property
    def ratios(self) -> Tensor:
        """The log-ratios of policy to reference."""
        assert self.reference is not None
        return self.policy - self.reference

    @cached_property
    def means(self) -> Tensor:
        """The policy's mean log-probabilities per token."""
        return self.policy / self.tokens


#: The names in the result of `pair_metrics`; `kl` only with a reference.
METRICS = ("accuracy", "margin", "reward_chosen", "reward_rejected", "chosen_tokens", "rejected_tokens", "kl")


@torch.no_grad()
def pair_metrics(pairs: PairLogps, options: LossOptions) -> dict[str, Tensor]:
    """Returns the metrics of a batch for the log, float32 [pairs] each.

    Rewards are beta * (policy - reference), as in the DPO paper; without a reference beta * the policy's mean log-probability per token,
    as in the papers of ORPO and SimPO. `kl` is measured on data, not on samples, so it may be negative.
    """
    rewards = pairs.means if pairs.reference is None else pairs.ratios
    (chosen, rejected), (chosen_tokens, rejected_tokens) = rewards, pairs.tokens.float()
    found = {
        "accuracy": (chosen > rejected).float(), "margin": options.beta * (chosen - rejected),
        "reward_chosen": options.beta * chosen, "reward_rejected": options.beta * rejected,
        "chosen_tokens": chosen_tokens, "rejected_tokens": rejected_tokens,
    }  # fmt: skip
    return found if pairs.reference is None else {**found, "kl": (chosen + rejected) / (chosen_tokens + rejected_tokens)}


def gap(values: Tensor) -> Tensor:
    """Returns the chosen completions' values `[2, pairs]` less those of the rejected ones. Of log-ratios it is h of the DPO paper: how much
    more the policy prefers the chosen completion than the reference does, in nats."""
    return values[0] - values[1]


def conservative(pairs: PairLogps, options: LossOptions) -> Tensor:
    """-(1-e) log sigmoid(beta h) - e log sigmoid(-beta h), where a share e of the labels is taken as swapped."""
    share, scaled = options.label_smoothing, options.beta * gap(pairs.ratios)
    return -(1 - share) * logsigmoid(scaled) - share * logsigmoid(-scaled)


def robust(pairs: PairLogps, options: LossOptions) -> Tensor:
    """(-(1-e) log sigmoid(beta h) + e log sigmoid(-beta h)) / (1-2e): an unbiased estimate where a share e < 1/2 is swapped."""
    share, scaled = options.label_smoothing, options.beta * gap(pairs.ratios)
    return (-(1 - share) * logsigmoid(scaled) + share * logsigmoid(-scaled)) / (1 - 2 * share)


def orpo(pairs: PairLogps, options: LossOptions) -> Tensor:
    """-a - beta log sigmoid(log odds(a) - log odds(b)), where a and b are the mean log-probabilities per token of chosen and rejected.

    The first term covers the completion's tokens, as in the paper's equation 6; the authors' code and TRL include the prompt's tokens.
    """
    a, b = pairs.means
    return -a - options.beta * logsigmoid(log_odds(a) - log_odds(b))


def log_odds(logp: Tensor) -> Tensor:
    """Returns log(p / (1 - p)) of log-probabilities, with finite values and gradients even where p rounds to 1.

    `expm1` keeps 1 - p exact near 0. TRL chooses between two formulas by `torch.where`, which makes the gradient NaN near p = 1.
    """
    logp = logp.clamp(max=-torch.finfo(logp.dtype).tiny)
    return logp - (-torch.expm1(logp)).log()


#: The losses by name (docs/stages/align.md has the formulas). IPO's h is that of means, as in TRL and confirmed by its authors.
LOSSES: dict[str, Callable[[PairLogps, LossOptions], Tensor]] = {
    "sigmoid": lambda pairs, options: -logsigmoid(options.beta * gap(pairs.ratios)),  # DPO, arXiv 2305.18290
    "conservative": conservative,  # cDPO, trainers.py of DPO's authors
    "robust": robust,  # arXiv 2403.00409
    "mean-sigmoid": lambda pairs, options: -logsigmoid(options.beta * gap(pairs.ratios / pairs.tokens)),  # Tulu 3, arXiv 2411.15124
    "ipo": lambda pairs, options: (gap(pairs.ratios / pairs.tokens) - 1 / (2 * options.beta)) ** 2,  # arXiv 2310.12036
    "orpo": orpo,  # arXiv 2403.07691
    "simpo": lambda pairs, options: -logsigmoid(options.beta * gap(pairs.means) - options.gamma),  # 2405.14734
}
