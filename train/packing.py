"""Several short sequences in one row, kept apart by the document mask.

A sequence of n tokens takes n - 1 places: its last token is only ever a target. Sequences are placed longest first,
each into the fullest row that still has room (best-fit decreasing), so nothing is cropped and little is padded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.packing import best_fit
from corpusmill.pipeline.special_tokens import PAD_ID
from corpusmill.train.template import Encoded

IGNORED = -100  # a target that counts for nothing, as torch's cross_entropy has it


@dataclass(frozen=True)
class Packed:
    """Rows of `context` places: int64 [rows, context] each.

    `targets` are what follows in the same sequence, or IGNORED; `segments` number a row's sequences from 0, its padding
    last; `members[row]` are the sequences in it, by their place in what was packed.
    """

    ids: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    segments: npt.NDArray[np.int64]
    members: list[list[int]]

    @property
    def n_rows(self) -> int:
        return len(self.members)

    @property
    def fill(self) -> float:
        """The share of places that belong to a sequence; the padding's id may be that of a token."""
        return float((self.segments < np.array([len(numbers) for numbers in self.members])[:, None]).mean())


def pack(sequences: Sequence[Encoded], context: int, together: bool = True) -> Packed:
    """Packs sequences of 2 to `context` + 1 tokens; each into a row of its own where they are not put `together`. Equal sequences in
    equal order give equal rows."""
    lengths = np.array([len(sequence.ids) - 1 for sequence in sequences], np.int64)
    members = fitted(lengths, context) if together else [[number] for number in range(len(sequences))]
    shape = (len(members), context)
    ids, targets, segments = np.full(shape, PAD_ID, np.int64), np.full(shape, IGNORED, np.int64), np.zeros(shape, np.int64)
    for row, numbers in enumerate(members):
        place = 0
        for segment, number in enumerate(numbers):
            inputs, following = shift(sequences[number])
            end = place + len(inputs)
            ids[row, place:end], targets[row, place:end], segments[row, place:end] = inputs, following, segment
            place = end
        segments[row, place:] = len(numbers)
    return Packed(ids, targets, segments, members)


def shift(sequence: Encoded) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Inputs and targets of one sequence, [tokens - 1] each; what is not to be learned is IGNORED."""
    return sequence.ids[:-1], np.where(sequence.mask[1:], sequence.ids[1:], IGNORED)


def fitted(lengths: npt.NDArray[np.int64], capacity: int) -> list[list[int]]:
    """Numbers of the items in each row, the longest first (ties: the earlier first); rows as they were opened."""
    row, rows = best_fit(lengths, capacity)
    members: list[list[int]] = [[] for _ in range(rows)]
    for number in np.argsort(-lengths, kind="stable").tolist():
        members[row[number]].append(number)
    return members
