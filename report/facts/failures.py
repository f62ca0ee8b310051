"""Which rules each row of a report failed, as arrays: the column `failed` without a Python object a row."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Failures:
    """For `n` rows that failed `k` times: `names[codes[i]]` (k,) is a rule that row `rows[i]` (k,) failed; `counts` (n,) are the rules
    of each row. Names are sorted; rows ascend, and the rules of a row are in the stage's order."""

    names: tuple[str, ...]
    codes: Ints
    rows: Ints
    counts: Ints

    @classmethod
    def of(cls, failed: pa.ChunkedArray) -> "Failures":
        """From the column `failed` (list of strings)."""
        lists = failed.combine_chunks()
        if isinstance(lists, pa.ChunkedArray):
            lists = lists.chunk(0) if lists.num_chunks else pa.array([], lists.type)
        lengths = np.asarray(lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False), np.int64)
        encoded = lists.flatten().dictionary_encode()
        rows = np.repeat(np.arange(len(lengths)), lengths)
        codes = np.asarray(encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False), np.int64)
        if (codes < 0).any():  # a null is no rule
            rows, codes = rows[codes >= 0], codes[codes >= 0]
        names = [str(name) for name in encoded.dictionary.to_pylist()]
        order = sorted(range(len(names)), key=names.__getitem__)
        places = np.zeros(len(names), np.int64)
        places[order] = np.arange(len(names))
        return cls(tuple(names[place] for place in order), places[codes], rows, np.bincount(rows, minlength=len(lengths)))

    @cached_property
    def firsts(self) -> Bools:
        """bool (k,): which of `codes` is the first of its row."""
        return np.diff(self.rows, prepend=-1) > 0

    @cached_property
    def alones(self) -> Bools:
        """bool (k,): which of `codes` is the only one of its row."""
        return np.asarray(self.counts[self.rows] == 1)

    @cached_property
    def passing(self) -> Ints:
        """The rows that failed nothing, ascending."""
        return np.flatnonzero(self.counts == 0)

    def rows_of(self, name: str, alone: bool) -> Ints:
        """The rows that failed this rule and no other (`alone`), or this one and others; ascending."""
        place = self.names.index(name) if name in self.names else len(self.names)
        order, ends = self._by_rule[alone]
        return self.rows[order[ends[place] : ends[place + 1]]] if place < len(self.names) else self.rows[:0]

    @cached_property
    def _by_rule(self) -> tuple[tuple[Ints, Ints], tuple[Ints, Ints]]:
        """For rows that failed several rules, then for those that failed one: the order of `codes` by rule, and where each rule begins."""
        return self._sorted(~self.alones), self._sorted(self.alones)

    def _sorted(self, mask: Bools) -> tuple[Ints, Ints]:
        chosen = np.flatnonzero(mask)
        codes = self.codes[chosen]
        ends = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(self.names)))])
        return chosen[np.argsort(codes, kind="stable")], ends
