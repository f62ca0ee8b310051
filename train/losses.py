"""Losses: of next tokens and of preferences, and the `Objective` by which the training loop asks for them.

Nothing is divided here. An objective returns a sum over the valid targets (pairs in alignment) of a micro-batch, and their count.
`train/loop.py` divides the step's sum by the step's count over all micro-batches and ranks; `gradient_scale` (`train/parallel/`) undoes
the averaging of gradients over ranks. So neither micro-batches nor ranks change what is minimised.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import logsigmoid

from corpusmill.train.data import IGNORED, Batch, DataShare

if TYPE_CHECKING:
    from corpusmill.train.model import Llama


# ---- next tokens -------------------------------------------------------------------------------------
#
# The negative log-likelihood of targets, always in fp32 at least.

#: Hidden states whose logits exist at a time without gradients. A constant, as matrices of other shapes give other last bits.
HEAD_ROWS = 512


def token_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns `[B, T]`: nats of targets `[B, T]` under logits `[B, T, vocab]`, fp32 (float64 for float64 logits); 0 for IGNORED targets."""
    nats = F.cross_entropy(_wide(logits).flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
    return _whole(nats).view_as(targets)


def token_loss(logits: Tensor, targets: Tensor, z_loss: float = 0.0) -> Tensor:
    """Returns the sum of `token_nats`. With `z_loss`, its gradient is that of nats + z_loss * (log Z)^2, where Z is the softmax's
    denominator (PaLM, https://arxiv.org/abs/2204.02311, section 5); its value stays the nats."""
    nats = token_nats(logits, targets).sum()
    if not z_loss:
        return nats
    penalty = z_loss * (log_z(logits).square() * (targets != IGNORED)).sum()
    return nats + (penalty - penalty.detach())


def target_nats(head: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor) -> Tensor:
    """Returns nats `[n]` of the targets `[B, T]` that count, in order of rows and places, from hidden states `[B, T, width]`.

    The head computes logits only for those targets, so most of a prompt's logits never exist. Without gradients it computes them in chunks,
    so that memory does not grow with rows. Where a tensor group shares out the positions, the head computes all of them, as each rank has
    only part of each row.
    """
    counted = targets != IGNORED
    if hasattr(hidden, "placements"):
        return token_nats(head(hidden), targets)[counted]
    hidden, targets = hidden[counted], targets[counted]
    if torch.is_grad_enabled():
        return F.cross_entropy(_wide(head(hidden)), targets, reduction="none")
    chunks = zip(hidden.split(HEAD_ROWS), targets.split(HEAD_ROWS), strict=True)
    return torch.cat([F.cross_entropy(_wide(head(some)), wanted, reduction="none") for some, wanted in chunks])


def log_z(logits: Tensor) -> Tensor:
    """Returns `[B, T]`: the log-sum-exp of logits `[B, T, vocab]`.

    Where the vocabulary is sharded, it is written out, because DTensor then adds up the shards' sums instead of gathering logits.
    """
    logits = _wide(logits)
    if not hasattr(logits, "placements"):
        return logits.logsumexp(-1)
    top = logits.detach().amax(-1, keepdim=True)
    return _whole((logits - top).exp().sum(-1).log() + top.squeeze(-1))


def _whole(values: Any) -> Tensor:
    """Returns the values as a plain tensor, which is whole on every rank of a tensor group."""
    return values.full_tensor() if hasattr(values, "placements") else values


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


# ---- objectives --------------------------------------------------------------------------------------
#
# An objective gives batches that depend only on the step, and losses that are sums over valid targets.
#
# The step number is the only state of the data, so a killed and restarted run takes the same steps with the same bits.


@dataclass
class StepLoss:
    """The loss of a micro-batch: `total`, the sum over its valid targets (pairs in alignment); `count`, their number; sums to log.

    `metrics` are sums, too: the log shows them divided by the step's count. `tokens` serves only to measure speed (0: same as `count`).
    Tensors are fetched from the device once a step.
    """

    total: Tensor
    count: int | Tensor
    metrics: Mapping[str, float | Tensor] = field(default_factory=dict)
    tokens: int | Tensor = 0


def step_totals(parts: Sequence[StepLoss], metrics: Sequence[str], device: torch.device) -> Tensor:
    """Adds up loss, count, tokens and metrics of micro-batches: float64 `[3 + metrics]` on the device, without waiting for it."""
    sums = torch.zeros(3 + len(metrics), dtype=torch.float64, device=device)
    for p in parts:
        counted = p.count if isinstance(p.tokens, int) and not p.tokens else p.tokens
        values = [p.total.detach(), p.count, counted, *(p.metrics[name] for name in metrics)]
        sums += torch.stack([v.double() if isinstance(v, Tensor) else torch.full_like(sums[0], v) for v in values])
    return sums


class Objective(Protocol):
    """What the loop trains on. `metrics` names the entries of every `StepLoss.metrics`; the names are the same on all ranks."""

    metrics: Sequence[str]

    def batches(self, step: int, share: DataShare) -> Iterator[Any]:
        """Yields the micro-batches of this share of a step's rows, on the model's device; every share has the same number."""
        ...

    def loss(self, model: "Llama", batch: Any) -> StepLoss: ...


class TokenObjective:
    """Next-token prediction. Batches are `(ids, targets, segments)`. A pipeline's last stage calls `of_logits`, as it has only logits.
    `z_loss` is the weight of (log Z)^2 in the gradient."""

    metrics: Sequence[str] = ()
    z_loss = 0.0

    def batches(self, step: int, share: DataShare) -> Iterator[Batch]:
        raise NotImplementedError

    def loss(self, model: "Llama", batch: Batch) -> StepLoss:
        ids, targets, segments = batch
        return self.of_logits(model(ids, segments), targets)

    def of_logits(self, logits: Tensor, targets: Tensor) -> StepLoss:
        """Returns the summed nats of `targets` `[B, T]` under `logits` `[B, T, vocab]`, and their count."""
        return StepLoss(token_loss(logits, targets, self.z_loss), (targets != IGNORED).sum())


# ---- preferences -------------------------------------------------------------------------------------
#
# Functions of the log-probabilities of a chosen and a rejected completion under policy and reference; float32, one value for each pair.


@dataclass(frozen=True)
class LossOptions:
    """`beta`: how far the policy may move from the reference (ORPO: the weight of the odds ratio); `label_smoothing`: the share of
    pairs taken as swapped; `gamma`: SimPO's margin."""

    beta: float = 0.1
    label_smoothing: float = 0.0
    gamma: float = 0.0


@dataclass(frozen=True)
class PairLogps:
    """Sums of log-probabilities over completion tokens, float32 [pairs], under the policy and under the frozen reference (None for losses
    without a reference).

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
        """The log-ratio of policy to reference for the chosen completion."""
        assert self.reference_chosen is not None
        return self.chosen - self.reference_chosen

    @cached_property
    def rejected_ratio(self) -> Tensor:
        assert self.reference_rejected is not None
        return self.rejected - self.reference_rejected

    @cached_property
    def log_ratio(self) -> Tensor:
        """h of the DPO paper: how much more the policy prefers the chosen completion than the reference does, in nats."""
        return self.chosen_ratio - self.rejected_ratio

    @cached_property
    def mean_log_ratio(self) -> Tensor:
        """`log_ratio` of mean log-probabilities per token."""
        return self.chosen_ratio / self.chosen_tokens - self.rejected_ratio / self.rejected_tokens

    @cached_property
    def mean_chosen(self) -> Tensor:
        """The policy's mean log-probability per token of the chosen completion."""
        return self.chosen / self.chosen_tokens

    @cached_property
    def mean_rejected(self) -> Tensor:
        return self.rejected / self.rejected_tokens


PreferenceLoss = Callable[[PairLogps, LossOptions], Tensor]

#: The names in the result of `pair_metrics`; `kl` only with a reference.
METRICS = ("accuracy", "margin", "reward_chosen", "reward_rejected", "chosen_tokens", "rejected_tokens", "kl")


@torch.no_grad()
def pair_metrics(pairs: PairLogps, options: LossOptions) -> dict[str, Tensor]:
    """Returns the metrics of a batch for the log, float32 [pairs] each.

    Rewards are beta * (policy - reference), as in the DPO paper; without a reference beta * the policy's mean log-probability per token,
    as in the papers of ORPO and SimPO. `accuracy` is 1 where the chosen completion has the higher reward. `kl` is the policy's log-ratio
    to the reference per completion token. It is measured on data, not on samples, so it may be negative.
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


# ---- the losses on pairs -----------------------------------------------------------------------------


def sigmoid(pairs: PairLogps, options: LossOptions) -> Tensor:
    """Direct Preference Optimization (Rafailov et al. 2023, arXiv 2305.18290): -log sigmoid(beta h)."""
    return -logsigmoid(options.beta * pairs.log_ratio)


def conservative(pairs: PairLogps, options: LossOptions) -> Tensor:
    """cDPO: treats a share e of the labels as swapped: -(1-e) log sigmoid(beta h) - e log sigmoid(-beta h)
    (trainers.py of DPO's authors)."""
    share, scaled = options.label_smoothing, options.beta * pairs.log_ratio
    return -(1 - share) * logsigmoid(scaled) - share * logsigmoid(-scaled)


def mean_sigmoid(pairs: PairLogps, options: LossOptions) -> Tensor:
    """Length-normalised DPO (Tulu 3, arXiv 2411.15124): -log sigmoid(beta h), with h from mean log-probabilities per token."""
    return -logsigmoid(options.beta * pairs.mean_log_ratio)


def robust(pairs: PairLogps, options: LossOptions) -> Tensor:
    """Robust DPO (Chowdhury et al. 2024, arXiv 2403.00409), an unbiased estimate where a share e < 1/2 of the labels is swapped:
    (-(1-e) log sigmoid(beta h) + e log sigmoid(-beta h)) / (1-2e)."""
    share, scaled = options.label_smoothing, options.beta * pairs.log_ratio
    return (-(1 - share) * logsigmoid(scaled) + share * logsigmoid(-scaled)) / (1 - 2 * share)


def ipo(pairs: PairLogps, options: LossOptions) -> Tensor:
    """Identity Preference Optimization (Azar et al. 2023, arXiv 2310.12036): (h - 1 / (2 beta))^2, with h from mean log-probabilities
    per token, as in TRL and confirmed by the authors."""
    return (pairs.mean_log_ratio - 1 / (2 * options.beta)) ** 2


def orpo(pairs: PairLogps, options: LossOptions) -> Tensor:
    """Odds Ratio Preference Optimization (Hong et al. 2024, arXiv 2403.07691): -a - beta log sigmoid(log odds(a) - log odds(b)), where a
    and b are the mean log-probabilities per token of chosen and rejected.

    The first term is the loss of tuning on the chosen completions. Here it covers the completion's tokens, as in the paper's equation 6;
    the authors' code and TRL include the prompt's tokens.
    """
    a, b = pairs.mean_chosen, pairs.mean_rejected
    return -a - options.beta * logsigmoid(log_odds(a) - log_odds(b))


def log_odds(logp: Tensor) -> Tensor:
    """Returns log(p / (1 - p)) of log-probabilities, with finite values and gradients even where p rounds to 1.

    `expm1` keeps 1 - p exact near 0. TRL chooses between two formulas by `torch.where`, which makes the gradient NaN near p = 1.
    """
    logp = logp.clamp(max=-torch.finfo(logp.dtype).tiny)
    return logp - (-torch.expm1(logp)).log()


def simpo(pairs: PairLogps, options: LossOptions) -> Tensor:
    """Simple Preference Optimization (Meng et al. 2024, arXiv 2405.14734): -log sigmoid(beta (a - b) - gamma), where a and b are the mean
    log-probabilities per token of chosen and rejected."""
    return -logsigmoid(options.beta * (pairs.mean_chosen - pairs.mean_rejected) - options.gamma)


LOSSES: dict[str, PreferenceLoss] = {
    "sigmoid": sigmoid, "conservative": conservative, "mean-sigmoid": mean_sigmoid, "robust": robust, "ipo": ipo, "orpo": orpo,
    "simpo": simpo,
}  # fmt: skip
