"""Batches by length. The shape of a text's batch depends on the text's own length and on the options, never on its neighbours.

Sums of floats depend in their last bits on the shape of the matrices that are multiplied, since libraries choose the order by it, and on
some processors on the row within the matrix. On a CPU each sequence is therefore computed by itself (`one_by_one`). A GPU needs batches: a
length is padded to one of few, and a batch that is not full is filled up with rows that nobody reads, so each text of a length is computed
in a batch of one shape.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Shaped:
    """Sequences that are computed together: `members` fill the first of `rows` rows of `length` tokens."""

    members: npt.NDArray[np.int64]
    rows: int
    length: int


def one_by_one(tokens: npt.NDArray[np.int64]) -> Iterator[Shaped]:
    """Each sequence by itself and without padding, so that nothing else can change its score. The longest comes first, so that what does
    not fit into memory is known at once."""
    for place in np.argsort(-tokens, kind="stable"):
        yield Shaped(np.array([place]), 1, int(tokens[place]))


def padded_lengths(tokens: npt.NDArray[np.int64], longest: int) -> npt.NDArray[np.int64]:
    """For each number of tokens (1 to `longest`) the length to which it is padded: one of eight for each doubling, at most `longest`.

    Whoever is shorter than `longest` has padding, since models may take another way where nothing is padded.
    """
    step = 1 << np.maximum(np.floor(np.log2(tokens)).astype(np.int64) - 3, 3)
    return np.minimum((tokens // step + 1) * step, longest)


def even_rows(fit: int) -> int:
    """The rows of a batch where so many fit: a power of two from 4 on, else 1.

    Matrices are worked on in tiles of so many rows; in a batch of five, the last row's sums were seen to be others than in the first four.
    """
    return 1 << (fit.bit_length() - 1) if fit >= 4 else 1


def batches(tokens: npt.NDArray[np.int64], longest: int, budget: int) -> Iterator[Shaped]:
    """All sequences, given how many tokens each has, in batches of at most `budget` tokens (or of one row), the longest first.

    The longest come first so that what does not fit into memory is known at once.
    """
    padded = padded_lengths(tokens, longest)
    unpadded = tokens == longest
    order = np.lexsort((np.arange(len(tokens)), ~unpadded, -padded))
    keys = padded[order] * 2 + unpadded[order]
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(order) else np.zeros(0, np.int64)
    for start, end in zip(starts, np.r_[starts[1:], len(order)]):
        length = int(padded[order[start]])
        rows = even_rows(budget // length)
        for first in range(start, end, rows):
            yield Shaped(order[first : min(first + rows, end)], rows, length)
