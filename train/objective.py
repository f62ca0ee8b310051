"""What a training minimises: batches that depend on the step alone, and a loss that is a sum over valid targets.

The step number is the whole state of the data, so a run that was killed and started again takes the same steps with the same bits;
and as losses are sums that are divided by the count of the whole step, neither micro-batches nor ranks change what is minimised.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from corpusmill.train.bits import Batch
from corpusmill.train.model import Llama
from corpusmill.train.packing import IGNORED
from corpusmill.train.token_loss import token_loss


@dataclass
class StepLoss:
    """The loss of a (micro-)batch: the sum over its valid targets (or pairs), how many there are, and sums to log.

    `metrics` are sums too: the log shows them divided by the step's count. `tokens` is for speed only (0: the count). What is a tensor is
    fetched from the device once a step.
    """

    total: Tensor
    count: int | Tensor
    metrics: Mapping[str, float | Tensor] = field(default_factory=dict)
    tokens: int | Tensor = 0


def step_totals(parts: Sequence[StepLoss], metrics: Sequence[str], device: torch.device) -> Tensor:
    """Loss, count, tokens and metrics summed over micro-batches, float64 `[3 + metrics]` on the device: nothing waits for it."""
    sums = torch.zeros(3 + len(metrics), dtype=torch.float64, device=device)
    for p in parts:
        counted = p.count if isinstance(p.tokens, int) and not p.tokens else p.tokens
        values = [p.total.detach(), p.count, counted, *(p.metrics[name] for name in metrics)]
        sums += torch.stack([v.double() if isinstance(v, Tensor) else torch.full_like(sums[0], v) for v in values])
    return sums


@dataclass(frozen=True)
class Share:
    """Which part of every step's rows this process computes: the `index`-th of `of` equal ones."""

    index: int = 0
    of: int = 1

    def bounds(self, rows: int) -> tuple[int, int]:
        """The rows `begin` to `end` of a step's `rows`, which `of` has to divide."""
        if rows % self.of:
            raise ValueError(f"{rows} rows can't be shared evenly by {self.of} processes")
        each = rows // self.of
        return self.index * each, (self.index + 1) * each

    def pieces(self, rows: int, size: int) -> list[tuple[int, int]]:
        """The first row and the one after the last of each micro-batch of this part, of `size` rows (0: all of them)."""
        first, last = self.bounds(rows)
        size = size or last - first
        return [(begin, min(begin + size, last)) for begin in range(first, last, size)]


class Objective(Protocol):
    """What the loop trains on. `metrics` are the names in every `StepLoss.metrics`, the same on all ranks."""

    metrics: Sequence[str]

    def batches(self, step: int, share: Share) -> Iterator[Any]:
        """The micro-batches of this share of a step's rows, on the model's device; as many for each share."""
        ...

    def loss(self, model: Llama, batch: Any) -> StepLoss: ...


class TokenObjective:
    """Next-token prediction: batches are `(ids, targets, segments)`. A pipeline's last stage has the logits alone and calls `of_logits`.
    `z_loss` is the weight of its (log Z)^2 in the gradient."""

    metrics: Sequence[str] = ()
    z_loss = 0.0

    def batches(self, step: int, share: Share) -> Iterator[Batch]:
        raise NotImplementedError

    def loss(self, model: Llama, batch: Batch) -> StepLoss:
        ids, targets, segments = batch
        return self.of_logits(model(ids, segments), targets)

    def of_logits(self, logits: Tensor, targets: Tensor) -> StepLoss:
        """The summed nats of `targets` `[B, T]` under `logits` `[B, T, vocab]`."""
        return StepLoss(token_loss(logits, targets, self.z_loss), (targets != IGNORED).sum())
