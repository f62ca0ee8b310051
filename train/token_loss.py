"""The negative log-likelihood of targets, in fp32 whatever the model computes in."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from corpusmill.train.packing import IGNORED


def token_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """`[B, T]` in fp32 (float64 logits: in float64) of targets `[B, T]` under logits `[B, T, vocab]`; 0 where a target is IGNORED."""
    nats = F.cross_entropy(_wide(logits).flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
    return _whole(nats).view_as(targets)


def token_loss(logits: Tensor, targets: Tensor, z_loss: float = 0.0) -> Tensor:
    """The sum of `token_nats`. With a `z_loss` its gradient is that of nats + z_loss * (log Z)^2, where Z is the sum of a target's
    exponentiated logits (PaLM, https://arxiv.org/abs/2204.02311, section 5); its value stays that of the nats."""
    nats = token_nats(logits, targets).sum()
    if not z_loss:
        return nats
    penalty = z_loss * (log_z(logits).square() * (targets != IGNORED)).sum()
    return nats + (penalty - penalty.detach())


def target_nats(head: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor) -> Tensor:
    """-log p `[n]` of every one of the targets `[B, T]` that counts, in the order of rows and places, after hidden states `[B, T, width]`.

    Most of a prompt's logits are never needed, and never there. Where positions are shared out by a tensor group, each rank has some of
    all of them, so there the head works on all.
    """
    counted = targets != IGNORED
    if hasattr(hidden, "placements"):
        return token_nats(head(hidden), targets)[counted]
    return F.cross_entropy(_wide(head(hidden[counted])), targets[counted], reduction="none")


def log_z(logits: Tensor) -> Tensor:
    """`[B, T]` log-sum-exp of logits `[B, T, vocab]`.

    Spelled out where the vocabulary is sharded, as DTensor then adds up the shards' sums and does not gather their logits.
    """
    logits = _wide(logits)
    if not hasattr(logits, "placements"):
        return logits.logsumexp(-1)
    top = logits.detach().amax(-1, keepdim=True)
    return _whole((logits - top).exp().sum(-1).log() + top.squeeze(-1))


def _whole(values: Any) -> Tensor:
    """A plain tensor of what every rank of a tensor group has."""
    return values.full_tensor() if hasattr(values, "placements") else values


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
