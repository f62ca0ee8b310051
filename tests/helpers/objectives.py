"""Wraps functions of a model and a step as objectives of the loop."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from corpusmill.train.data import DataShare
from corpusmill.train.model import Llama, StepLoss


class Goal:
    """`function(model, step)` as an objective."""

    def __init__(self, function: Callable[..., StepLoss], metrics: Sequence[str] = ()):
        self.function, self.metrics = function, metrics

    def batches(self, step: int, share: DataShare) -> Iterator[Any]:
        yield (step,)

    def loss(self, model: Llama, batch: Any) -> StepLoss:
        return self.function(model, *batch)
