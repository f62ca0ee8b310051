"""Which rules fire together and which alone: exact counts of combinations and of pairs, in bounded memory.

At most `COMBINATIONS` different combinations are told apart. Those that first appear later are counted together, so every count that is
given is exact. Pairs are counted among the first `PAIRED` rules, those that the stage has declared before all others.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.report.facts.failures import Failures

COMBINATIONS, LONGEST = 50_000, 64
PAIRED = 200

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Combination:
    """Documents that failed exactly these rules, and their characters; names are sorted."""

    rules: tuple[str, ...]
    documents: int
    characters: int

    @property
    def name(self) -> str:
        return " + ".join(self.rules)


@dataclass(frozen=True)
class BatchCombinations:
    """The different combinations of a batch: for each its rules, documents and characters."""

    rules: list[tuple[str, ...]]
    documents: list[int]
    characters: list[int]


@dataclass
class Overlap:
    """Combinations of a stage. `others` and `others_characters` are of the combinations that are not told apart."""

    counts: dict[tuple[str, ...], list[int]] = field(default_factory=dict)
    others: int = 0
    others_characters: int = 0
    paired: dict[str, int] = field(default_factory=dict)  # rule to its place in the matrix
    left_out: bool = False  # whether there are rules beyond those that are paired
    matrix: Ints = field(default_factory=lambda: np.zeros((PAIRED, PAIRED), np.int64))

    def declare(self, names: Sequence[str]) -> None:
        """Gives rules a place in the matrix, as long as there is one."""
        for name in names:
            if name not in self.paired:
                if len(self.paired) < PAIRED:
                    self.paired[name] = len(self.paired)
                else:
                    self.left_out = True

    def add(self, batch: BatchCombinations) -> None:
        for rules, documents, characters in zip(batch.rules, batch.documents, batch.characters, strict=True):
            held = self.counts.get(rules)
            if held is None and len(self.counts) < COMBINATIONS and len(rules) <= LONGEST:
                held = self.counts[rules] = [0, 0]
            if held is None:
                self.others, self.others_characters = self.others + documents, self.others_characters + characters
            else:
                held[0], held[1] = held[0] + documents, held[1] + characters
        self.declare(sorted({name for rules in batch.rules for name in rules}.difference(self.paired)))
        fired = np.zeros((len(batch.rules), len(self.paired)))
        for row, rules in enumerate(batch.rules):
            fired[row, [self.paired[name] for name in rules if name in self.paired]] = 1
        size = len(self.paired)
        self.matrix[:size, :size] += (fired.T @ (fired * np.array(batch.documents, np.float64)[:, None])).astype(np.int64)

    def both(self, a: str, b: str) -> int:
        """Documents that failed both rules; 0 where one of them is not paired."""
        if a not in self.paired or b not in self.paired:
            return 0
        return int(self.matrix[self.paired[a], self.paired[b]])

    def most(self, number: int) -> list[Combination]:
        """The most frequent combinations, ties by name."""
        every = [Combination(rules, *counts) for rules, counts in self.counts.items()]
        return sorted(every, key=lambda found: (-found.documents, found.name))[:number]

    @property
    def together(self) -> Counter[tuple[str, str]]:
        """Documents by pair of rules that fired together; the names of a pair are sorted."""
        names = sorted(self.paired)
        found = {(a, b): self.both(a, b) for place, a in enumerate(names) for b in names[place + 1 :]}
        return Counter({pair: count for pair, count in found.items() if count})


def combinations(failures: Failures, characters: npt.NDArray[np.float64]) -> BatchCombinations:
    """The combinations of a batch; `characters` (n,) are those of its rows."""
    failed = np.flatnonzero(failures.counts)
    if not len(failed):
        return BatchCombinations([], [], [])
    ends = np.cumsum(failures.counts)
    offsets = np.concatenate([[0], ends[failed]]).astype(np.int32)
    codes = pa.array(failures.codes.astype(np.int32)).cast(pa.string())
    joined = pa.compute.binary_join(pa.ListArray.from_arrays(pa.array(offsets), codes), ",")
    table = pa.table({"rules": joined, "characters": characters[failed].astype(np.int64), "row": failed})
    groups = table.group_by("rules", use_threads=False).aggregate([([], "count_all"), ("characters", "sum"), ("row", "min")])
    rows = groups["row_min"].to_numpy()
    names = [tuple(sorted({failures.names[code] for code in failures.codes[ends[row] - failures.counts[row] : ends[row]]})) for row in rows]
    return BatchCombinations(names, groups["count_all"].to_pylist(), groups["characters_sum"].to_pylist())
