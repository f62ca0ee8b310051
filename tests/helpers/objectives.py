"""Wraps functions of a model and a step as objectives of the loop."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from corpusmill.train.data import DataShare
from corpusmill.train.losses import StepLoss
from corpusmill.train.model import Llama


class Goal:
    """`function(model, step)` as an objective; with `pieces`, `function(model, step, piece)` for each of that many micro-batches."""

    def __init__(self, function: Callable[..., StepLoss], metrics: Sequence[str] = (), pieces: int = 1):
        self.function, self.metrics, self.pieces = function, metrics, pieces

    def batches(self, step: int, share: DataShare) -> Iterator[Any]:
        yield from ((step, piece) if self.pieces > 1 else (step,) for piece in range(self.pieces))

    def loss(self, model: Llama, batch: Any) -> StepLoss:
        return self.function(model, *batch)
