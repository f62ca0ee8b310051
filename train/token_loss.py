"""The negative log-likelihood of targets, in fp32 whatever the model computes in."""

import torch
import torch.nn.functional as F
from torch import Tensor

from corpusmill.train.packing import IGNORED


def token_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """`[B, T]` in fp32 (float64 logits: in float64) of targets `[B, T]` under logits `[B, T, vocab]`; 0 where a target is IGNORED."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none").view_as(targets)
