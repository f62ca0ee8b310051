"""The order in which examples are seen: a new permutation each epoch, any sample of it computed alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corpusmill.train.objective import Share
from corpusmill.train.permutation import permute

#: Rows, pairs or completions that are measured together; fixed, so that what is measured does not depend on the training batch.
EVALUATION_BATCH = 16


def examples_of_step(step: int, batch: int, examples: int, seed: int) -> npt.NDArray[np.int64]:
    """Which of `examples` the `batch` places of a step hold. Epochs follow each other without a gap."""
    epochs, places = np.divmod(step * batch + np.arange(batch, dtype=np.int64), examples)
    chosen = np.empty_like(places)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        chosen[here] = permute(places[here], examples, seed, int(epoch))
    return chosen


def steps_of(epochs: float, batch: int, examples: int) -> int:
    """The fewest steps that see every example `epochs` times."""
    return int(np.ceil(epochs * examples / batch))


def in_turn(count: int) -> Iterator[list[int]]:
    """The numbers below `count` in batches, for measuring."""
    for begin in range(0, count, EVALUATION_BATCH):
        yield list(range(begin, min(begin + EVALUATION_BATCH, count)))


@dataclass(frozen=True)
class Order:
    """Which of `examples` are in each step of `batch`, computed `micro_batch` at a time (0: all of a process's share)."""

    examples: int
    batch: int
    micro_batch: int
    seed: int

    def of_step(self, step: int) -> list[int]:
        numbers: list[int] = examples_of_step(step, self.batch, self.examples, self.seed).tolist()
        return numbers

    def bounds(self, share: Share) -> list[tuple[int, int]]:
        """Where each micro-batch of a share begins and ends in its step."""
        return share.pieces(self.batch, self.micro_batch)

    def pieces(self, step: int, share: Share) -> list[list[int]]:
        """The examples of each micro-batch of a share."""
        numbers = self.of_step(step)
        return [numbers[begin:end] for begin, end in self.bounds(share)]

    def first_epoch(self, share: Share) -> Iterator[tuple[list[int], int]]:
        """The examples of each micro-batch of a share in the first epoch, and how many of them are of that epoch: the last ones may be
        the next epoch's."""
        for step in range(steps_of(1, self.batch, self.examples)):
            numbers, left = self.of_step(step), self.examples - step * self.batch
            for begin, end in self.bounds(share):
                yield numbers[begin:end], min(max(left - begin, 0), end - begin)
