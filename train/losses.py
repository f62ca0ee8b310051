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
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from torch.utils.checkpoint import checkpoint

from corpusmill.train.compute import fused
from corpusmill.train.data import IGNORED, Batch, DataShare, counted_places

if TYPE_CHECKING:
    from corpusmill.train.model import Llama

# ---- next tokens -------------------------------------------------------------------------------------
#
# The negative log-likelihood of targets, always in fp32 at least.


def token_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns `[B, T]`: nats of targets `[B, T]` under logits `[B, T, vocab]`, fp32 (float64 for float64 logits); 0 for IGNORED targets."""
    nats: Any = F.cross_entropy(_wide(logits).flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
    whole = nats.full_tensor() if hasattr(nats, "placements") else nats  # plain, and whole on every rank of a tensor group
    return whole.view_as(targets)


# Of hidden states: the head's logits are the largest values of a step, so they exist only for the targets that count, and where they are
# many, or on a GPU, only for some rows at a time.
#
# torch 2.13 has `F.linear_cross_entropy` with options for chunks. It can't serve here: it returns its value in the input's type (in bf16 up
# to 0.2% off), and it does not compile.

#: Logits that exist at once, in fp32 512 MiB.
LOGITS = 2**27
#: By kind of device: the head's matrix is filled up to a multiple of so many rows, as kernels are slow for other sizes.
MULTIPLE = {"cuda": 128}


def target_nats(head: nn.Linear, hidden: Tensor, targets: Tensor, places: Tensor | None = None, compiled: bool = False) -> Tensor:
    """Returns nats `[n]` of the targets `[B, T]` that count, in order of rows and places, from hidden states `[B, T, width]`.

    `places` are those of `counted_places`; without them a GPU is asked for them, and the step waits. Where a tensor group shares out the
    positions, the head computes all of them, as each rank has only part of each row.
    """
    places = counted_places(targets) if places is None else places
    if hasattr(hidden, "placements"):
        return _nats_by_rows(head, hidden, targets).flatten().index_select(0, places)
    hidden, targets = hidden.flatten(0, 1).index_select(0, places), targets.flatten().index_select(0, places)
    if in_chunks(hidden, head):
        return linear_nats(head, hidden, targets, compiled=compiled)
    return F.cross_entropy(_wide(head(hidden)), targets, reduction="none")


def summed_nats(head: nn.Linear, hidden: Tensor, targets: Tensor, places: Tensor | None = None, compiled: bool = False) -> Tensor:
    """Returns the sum of the nats of all targets `[B, T]`, or of those at `places`, as in `target_nats`."""
    if hasattr(hidden, "placements"):
        nats = _nats_by_rows(head, hidden, targets).flatten()
        return (nats if places is None else nats.index_select(0, places)).sum()
    if not in_chunks(hidden, head):
        nats = token_nats(head(hidden), targets) if places is None else target_nats(head, hidden, targets, places)
        return nats.sum()
    hidden, targets = hidden.flatten(0, 1), targets.flatten()
    if places is not None:
        hidden, targets = hidden.index_select(0, places), targets.index_select(0, places)
    return linear_nats(head, hidden, targets, summed=True, compiled=compiled)


def _nats_by_rows(head: nn.Linear, hidden: Tensor, targets: Tensor) -> Tensor:
    """Returns nats `[B, T]` where a tensor group shares out positions and vocabulary: no more than LOGITS logits of whole rows exist at
    once, or those of one row, and the backward pass computes them again."""

    def nats(some: Tensor, wanted: Tensor) -> Tensor:
        return token_nats(head(some), wanted)

    rows = max(1, LOGITS // (targets.size(1) * head.out_features))
    if rows >= len(targets):
        return nats(hidden, targets)
    pieces = zip(hidden.split(rows), targets.split(rows))
    return torch.cat([checkpoint(nats, *piece, use_reentrant=False, preserve_rng_state=False) for piece in pieces])


def in_chunks(hidden: Tensor, head: nn.Linear) -> bool:
    """Whether the logits of these hidden states `[..., width]` are computed in chunks."""
    return hidden.device.type == "cuda" or hidden.numel() // hidden.size(-1) * head.out_features > LOGITS


def linear_nats(head: nn.Linear, hidden: Tensor, targets: Tensor, *, summed: bool = False, compiled: bool = False) -> Tensor:
    """Returns nats `[n]` of targets `[n]` (0 for IGNORED ones) from hidden states `[n, width]`, or their sum.

    No more than LOGITS logits exist at once (Liger Kernel, https://arxiv.org/abs/2410.10989, and Cut Your Losses, 2411.09009): a sum takes
    the gradient together with the value, single nats compute their logits again in the backward pass. Exponentials and sums are in fp32 at
    least. No softmax sees the rows by which the matrix is filled up (MULTIPLE).
    """
    weight, vocabulary, kind = head.weight, head.out_features, hidden.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    if extra := -vocabulary % MULTIPLE.get(kind, 1):
        weight = F.pad(weight, (0, 0, 0, extra))
    with torch.autocast(kind, enabled=False):
        at_once = summed and torch.is_grad_enabled()
        nats: Tensor = _LinearNats.apply(hidden, weight, targets, vocabulary, at_once, compiled)
    return nats if at_once or not summed else nats.sum()


class _LinearNats(torch.autograd.Function):
    """The function behind `linear_nats`. `at_once`: returns the sum, and takes the gradient in the forward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, vocabulary: int, at_once: bool, compiled: bool) -> Tensor:
        ctx.at_once, ctx.options = at_once, (vocabulary, compiled)
        needed = ctx.needs_input_grad[:2] if at_once else (False, False)
        scale = torch.ones(targets.shape, dtype=_wide(hidden[:0]).dtype, device=hidden.device)
        nats, *grads = _by_chunks(hidden, weight, targets, scale, needed, *ctx.options)
        ctx.save_for_backward(*(grads if at_once else (hidden, weight, targets)))
        return nats.sum() if at_once else nats

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.at_once:
            grads = [None if grad is None else grad * gradient.to(grad.dtype) for grad in ctx.saved_tensors]
        else:
            hidden, weight, targets = ctx.saved_tensors
            _, *grads = _by_chunks(hidden, weight, targets, gradient, ctx.needs_input_grad[:2], *ctx.options)
        return *grads, None, None, None, None


def _by_chunks(
    hidden: Tensor, weight: Tensor, targets: Tensor, scale: Tensor, needed: tuple[bool, bool], vocabulary: int, compiled: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Returns nats `[n]`, and those gradients of hidden states and weight that are `needed`, of the sum of `scale` `[n]` times the nats."""
    value, gradient = (fused(_value), fused(_gradient)) if compiled else (_value, _gradient)
    nats, of_hidden, of_weight = list[Tensor](), list[Tensor](), torch.zeros_like(weight, dtype=scale.dtype) if needed[1] else None
    for some, wanted, each in zip(*(tensor.split(max(1, LOGITS // len(weight))) for tensor in (hidden, targets, scale))):
        logits = some @ weight.mT
        found, normaliser = value(logits, wanted, vocabulary)
        nats.append(found)
        if any(needed):
            logits = gradient(logits, normaliser, wanted, each, vocabulary)
        if needed[0]:
            of_hidden.append(logits @ weight)
        if of_weight is not None:
            of_weight += logits.mT @ some
    return torch.cat(nats), torch.cat(of_hidden) if needed[0] else None, None if of_weight is None else of_weight.to(weight.dtype)


def _value(logits: Tensor, targets: Tensor, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Returns the nats and the log-sum-exp `[n]` of logits `[n, rows of the matrix]`."""
    wide = _wide(logits)[:, :vocabulary]
    normaliser = wide.logsumexp(-1)
    nats = normaliser - wide.gather(1, targets.clamp(min=0).unsqueeze(1)).squeeze(1)
    return torch.where(targets == IGNORED, 0, nats), normaliser


def _gradient(logits: Tensor, normaliser: Tensor, targets: Tensor, scale: Tensor, vocabulary: int) -> Tensor:
    """Returns the gradient of `scale` `[n]` times the nats for logits `[n, rows of the matrix]`, in their type."""
    scale = torch.where(targets == IGNORED, 0, scale).unsqueeze(1)
    columns = torch.arange(logits.size(1), device=logits.device)
    found = (_wide(logits) - normaliser.unsqueeze(1)).exp_().mul_(scale)
    found = torch.where(columns == targets.unsqueeze(1), found - scale, found)
    if vocabulary < logits.size(1):
        found = torch.where(columns < vocabulary, found, 0)
    return found.to(logits.dtype)


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


# ---- objectives --------------------------------------------------------------------------------------
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
    """Next-token prediction. Batches are `(ids, targets, segments)`."""

    metrics: Sequence[str] = ()

    def batches(self, step: int, share: DataShare) -> Iterator[Batch]:
        raise NotImplementedError

    def loss(self, model: "Llama", batch: Batch) -> StepLoss:
        ids, targets, segments = batch
        return StepLoss(model(ids, segments, targets=targets, read=summed_nats), (targets != IGNORED).sum())


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
    without a reference). `chosen_tokens` and `rejected_tokens` are the numbers of tokens summed over."""

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor | None
    reference_rejected: Tensor | None
    chosen_tokens: Tensor
    rejected_tokens: Tensor

    @property
    def ratios(self) -> tuple[Tensor, Tensor]:
        """The log-ratios of policy to reference of the chosen and the rejected completion."""
        assert self.reference_chosen is not None and self.reference_rejected is not None
        return self.chosen - self.reference_chosen, self.rejected - self.reference_rejected

    @cached_property
    def mean_chosen(self) -> Tensor:
        """The policy's mean log-probability per token of the chosen completion."""
        return self.chosen / self.chosen_tokens

    @cached_property
    def mean_rejected(self) -> Tensor:
        return self.rejected / self.rejected_tokens


#: The names in the result of `pair_metrics`; `kl` only with a reference.
METRICS = ("accuracy", "margin", "reward_chosen", "reward_rejected", "chosen_tokens", "rejected_tokens", "kl")


@torch.no_grad()
def pair_metrics(pairs: PairLogps, options: LossOptions) -> dict[str, Tensor]:
    """Returns the metrics of a batch for the log, float32 [pairs] each.

    Rewards are beta * (policy - reference), as in the DPO paper; without a reference beta * the policy's mean log-probability per token,
    as in the papers of ORPO and SimPO. `kl` is measured on data, not on samples, so it may be negative.
    """
    referred = pairs.reference_chosen is not None
    chosen, rejected = pairs.ratios if referred else (pairs.mean_chosen, pairs.mean_rejected)
    found = {
        "accuracy": (chosen > rejected).float(), "margin": options.beta * (chosen - rejected),
        "reward_chosen": options.beta * chosen, "reward_rejected": options.beta * rejected,
        "chosen_tokens": pairs.chosen_tokens.float(), "rejected_tokens": pairs.rejected_tokens.float(),
    }  # fmt: skip
    return found | ({"kl": (chosen + rejected) / (pairs.chosen_tokens + pairs.rejected_tokens)} if referred else {})


def log_ratio(pairs: PairLogps) -> Tensor:
    """h of the DPO paper: how much more the policy prefers the chosen completion than the reference does, in nats."""
    chosen, rejected = pairs.ratios
    return chosen - rejected


def mean_log_ratio(pairs: PairLogps) -> Tensor:
    """h of mean log-probabilities per token."""
    chosen, rejected = pairs.ratios
    return chosen / pairs.chosen_tokens - rejected / pairs.rejected_tokens


def conservative(pairs: PairLogps, options: LossOptions) -> Tensor:
    """-(1-e) log sigmoid(beta h) - e log sigmoid(-beta h), where a share e of the labels is taken as swapped."""
    share, scaled = options.label_smoothing, options.beta * log_ratio(pairs)
    return -(1 - share) * logsigmoid(scaled) - share * logsigmoid(-scaled)


def robust(pairs: PairLogps, options: LossOptions) -> Tensor:
    """(-(1-e) log sigmoid(beta h) + e log sigmoid(-beta h)) / (1-2e): an unbiased estimate where a share e < 1/2 is swapped."""
    share, scaled = options.label_smoothing, options.beta * log_ratio(pairs)
    return (-(1 - share) * logsigmoid(scaled) + share * logsigmoid(-scaled)) / (1 - 2 * share)


def orpo(pairs: PairLogps, options: LossOptions) -> Tensor:
    """-a - beta log sigmoid(log odds(a) - log odds(b)), where a and b are the mean log-probabilities per token of chosen and rejected.

    The first term covers the completion's tokens, as in the paper's equation 6; the authors' code and TRL include the prompt's tokens.
    """
    a, b = pairs.mean_chosen, pairs.mean_rejected
    return -a - options.beta * logsigmoid(log_odds(a) - log_odds(b))


def log_odds(logp: Tensor) -> Tensor:
    """Returns log(p / (1 - p)) of log-probabilities, with finite values and gradients even where p rounds to 1.

    `expm1` keeps 1 - p exact near 0. TRL chooses between two formulas by `torch.where`, which makes the gradient NaN near p = 1.
    """
    logp = logp.clamp(max=-torch.finfo(logp.dtype).tiny)
    return logp - (-torch.expm1(logp)).log()


#: The losses by name (docs/stages/align.md has the formulas). IPO's h is that of means, as in TRL and confirmed by its authors.
LOSSES: dict[str, Callable[[PairLogps, LossOptions], Tensor]] = {
    "sigmoid": lambda pairs, options: -logsigmoid(options.beta * log_ratio(pairs)),  # DPO, arXiv 2305.18290
    "conservative": conservative,  # cDPO, trainers.py of DPO's authors
    "robust": robust,  # arXiv 2403.00409
    "mean-sigmoid": lambda pairs, options: -logsigmoid(options.beta * mean_log_ratio(pairs)),  # Tulu 3, arXiv 2411.15124
    "ipo": lambda pairs, options: (mean_log_ratio(pairs) - 1 / (2 * options.beta)) ** 2,  # arXiv 2310.12036
    "orpo": orpo,  # arXiv 2403.07691
    "simpo": lambda pairs, options: -logsigmoid(options.beta * (pairs.mean_chosen - pairs.mean_rejected) - options.gamma),  # 2405.14734
}
