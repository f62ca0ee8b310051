"""The order in which examples are seen: a new permutation each epoch, any sample of it computed alone."""

import numpy as np
import numpy.typing as npt

from corpusmill.train.permutation import permute


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
