"""What a training minimises: batches that depend on the step alone, and a loss that is a sum over valid targets.

The step number is the whole state of the data, so a run that was killed and started again takes the same steps with the same bits;
and as losses are sums that are divided by the count of the whole step, neither micro-batches nor ranks change what is minimised.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from corpusmill.train.bits import Batch
from corpusmill.train.model import Llama
from corpusmill.train.token_loss import token_nats


@dataclass
class StepLoss:
    """The loss of a (micro-)batch: the sum over its valid targets (or pairs), how many there are, and sums to log.

    `metrics` are sums too: the log shows them divided by the step's count. `tokens` is for speed only (0: the count).
    """

    total: Tensor
    count: int
    metrics: dict[str, float] = field(default_factory=dict)
    tokens: int = 0


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


class Objective(Protocol):
    """What the loop trains on. `metrics` are the names in every `StepLoss.metrics`, the same on all ranks."""

    metrics: Sequence[str]

    def batches(self, step: int, share: Share) -> Iterator[Any]:
        """The micro-batches of this share of a step's rows, on the model's device; as many for each share."""
        ...

    def loss(self, model: Llama, batch: Any) -> StepLoss: ...


class TokenObjective:
    """Next-token prediction: batches are `(ids, targets, segments)`. A pipeline's last stage has the logits alone and calls `of_logits`."""

    metrics: Sequence[str] = ()
    z_loss = 0.0

    def batches(self, step: int, share: Share) -> Iterator[Batch]:
        raise NotImplementedError

    def loss(self, model: Llama, batch: Batch) -> StepLoss:
        ids, targets, segments = batch
        return self.of_logits(model(ids, segments), targets)

    def of_logits(self, logits: Tensor, targets: Tensor) -> StepLoss:
        """The summed nats of `targets` `[B, T]` under `logits` `[B, T, vocab]`."""
        return StepLoss(token_nats(logits, targets).sum(), int((targets >= 0).sum()))
