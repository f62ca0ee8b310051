"""How long documents are, in characters, as they came in and after each stage: exact quantiles, and counts for a logarithmic axis."""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from corpusmill.report.facts.scan import Batch

#: Lengths below this are counted in an array, the few above one by one.
SHORT = 1 << 18
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
#: Ten steps a decade, in whole numbers; what is longer than the last is in its bin.
EDGES = sorted({round(10 ** (step / 10)) for step in range(81)})

Ints = npt.NDArray[np.int64]


@dataclass
class Lengths:
    """Lengths of one set of documents: `name` says which, `stage` and `column` where they stand, `kept` whether only those that go on."""

    name: str
    stage: str
    column: str
    kept: bool
    short: Ints = field(default_factory=lambda: np.zeros(SHORT, np.int64))
    long: dict[int, int] = field(default_factory=dict)
    documents: int = 0
    characters: int = 0

    def count(self, batch: Batch) -> tuple[Ints, Ints]:
        """The different lengths in a batch and how often each occurs."""
        values = np.nan_to_num(batch.floats(self.column)).astype(np.int64)
        return np.unique(np.maximum(values[batch.kept] if self.kept else values, 0), return_counts=True)

    def add(self, lengths: Ints, counts: Ints) -> None:
        self.documents, self.characters = self.documents + int(counts.sum()), self.characters + int((lengths * counts).sum())
        below = int(np.searchsorted(lengths, SHORT))
        self.short[lengths[:below]] += counts[:below]
        for length, count in zip(lengths[below:].tolist(), counts[below:].tolist(), strict=True):
            self.long[length] = self.long.get(length, 0) + count

    def all(self) -> tuple[Ints, Ints]:
        """All lengths that occur, ascending, and how often."""
        below = np.flatnonzero(self.short)
        above = sorted(self.long)
        lengths = np.concatenate([below, np.array(above, np.int64)])
        return lengths, np.concatenate([self.short[below], np.array([self.long[length] for length in above], np.int64)])

    def quantiles(self) -> list[int]:
        """A document's length at each of `QUANTILES`; nothing where there is no document."""
        if not self.documents:
            return []
        lengths, counts = self.all()
        ends = np.cumsum(counts)
        n = self.documents
        places = [max(1, n - math.floor(n - n * share)) for share in QUANTILES]  # as DuckDB's quantile_disc counts
        return [int(lengths[np.searchsorted(ends, place)]) for place in places]

    def bins(self) -> Ints:
        """Documents between each of `EDGES` and the next."""
        lengths, counts = self.all()
        places = np.searchsorted(EDGES, lengths, side="right") - 1
        return np.bincount(places[places >= 0], counts[places >= 0], len(EDGES)).astype(np.int64)

    @property
    def empty(self) -> int:
        """Documents without a character."""
        return int(self.short[0])


class StageLengths:
    """The measure of a stage: what it let through, and, of the first one, what came in."""

    columns = ("kept", "chars_in", "chars_out")

    def __init__(self, stage: str, first: bool):
        self.sets = [Lengths("came in", stage, "chars_in", False)] if first else []
        self.sets.append(Lengths(f"after {stage}", stage, "chars_out", True))

    def measure(self, batch: Batch) -> list[tuple[Ints, Ints]]:
        return [each.count(batch) for each in self.sets]

    def add(self, measured: list[tuple[Ints, Ints]]) -> None:
        for each, found in zip(self.sets, measured, strict=True):
            each.add(*found)
