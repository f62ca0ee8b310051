"""Values that repeat, as small numbers: names (languages, crawl files, hosts) and verdicts (which rules failed together)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Codes = npt.NDArray[np.int32]
Counts = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Coded:
    """A column's different values, and which of them (n) each row has: what a thread can find out before the numbers are given."""

    def __init__(self, column: pa.ChunkedArray | pa.Array):
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        coded = column.cast(pa.string()).dictionary_encode(null_encoding="encode")
        self.values: list[str | None] = coded.dictionary.to_pylist()
        self.indices: Codes = coded.indices.to_numpy()

    def numbered(self, number: Callable[[Any], int]) -> Codes:
        """The rows (n), each with the number that its value is given."""
        return np.array([number(value) for value in self.values], np.int32)[self.indices] if self.values else self.indices


class Names:
    """Numbers strings in the order in which they come; null and the empty string are both None."""

    def __init__(self) -> None:
        self.values: list[str | None] = []
        self.numbers: dict[str | None, int] = {}

    def number(self, value: str | None) -> int:
        value = value or None
        if value not in self.numbers:
            self.numbers[value] = len(self.values)
            self.values.append(value)
        return self.numbers[value]

    def encode(self, coded: Coded) -> Codes:
        """The number of each row's name."""
        return coded.numbered(self.number)


class CodedVerdicts(Coded):
    """The verdicts of some rows as strings: `k` or `d`, a colon, and the places of the failed rules among `names` in digits.

    Whatever rules are called, no comma is among the digits.
    """

    def __init__(self, kept: pa.ChunkedArray, failed: pa.ChunkedArray):
        lists = failed.combine_chunks().cast(pa.list_(pa.string()))
        coded = lists.flatten().dictionary_encode(null_encoding="encode")
        self.names: list[str] = [name or "" for name in coded.dictionary.to_pylist()]
        digits = pa.array(map(str, range(len(self.names))), pa.string()).take(coded.indices)
        ends = np.concatenate([[0], np.cumsum(pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False))])
        joined = pc.fill_null(pc.binary_join(pa.ListArray.from_arrays(pa.array(ends, pa.int32()), digits), ","), "")
        super().__init__(pc.binary_join_element_wise(pc.if_else(kept.combine_chunks(), "k", "d").cast(pa.string()), joined, ":"))


@dataclass(frozen=True)
class Verdict:
    """What was decided: kept or not, and which rules failed (numbers of rules, in the report's order)."""

    kept: bool
    failed: tuple[int, ...]


@dataclass
class Verdicts:
    """All different verdicts of a stage: as a rule few, at most one a document, so all that is asked of them is asked once for each.

    `rules` are names: those of the stage in their order, then those that only stand in the report.
    """

    rules: list[str]
    all: list[Verdict] = field(default_factory=list)
    _numbers: dict[Verdict, int] = field(default_factory=dict)
    _rule_numbers: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rule_numbers = {}
        for number, rule in enumerate(self.rules):
            self._rule_numbers.setdefault(rule, number)

    def rule(self, name: str) -> int | None:
        """A rule's number."""
        return self._rule_numbers.get(name)

    def encode(self, coded: CodedVerdicts) -> Codes:
        """The number of each row's verdict."""
        rules = [self._rule_number(name) for name in coded.names]

        def number(key: str) -> int:
            kept, _, digits = key.partition(":")
            verdict = Verdict(kept == "k", tuple(rules[int(place)] for place in digits.split(",")) if digits else ())
            if verdict not in self._numbers:
                self._numbers[verdict] = len(self.all)
                self.all.append(verdict)
            return self._numbers[verdict]

        return coded.numbered(number)

    def _rule_number(self, name: str) -> int:
        if name not in self._rule_numbers:
            self._rule_numbers[name] = len(self.rules)
            self.rules.append(name)
        return self._rule_numbers[name]

    # ---- once all are known -------------------------------------------------------------------------

    def kept(self) -> Bools:
        """bool, one a verdict."""
        return np.array([verdict.kept for verdict in self.all], bool)

    def where(self, decision: str | None = None, rules: Sequence[int] = (), alone: bool = False) -> Bools:
        """bool, one a verdict: those of a decision in which all of `rules` failed; with `alone` no other (of no rules: exactly one)."""
        wanted = set(rules)

        def fits(verdict: Verdict) -> bool:
            failed = set(verdict.failed)
            right = decision is None or verdict.kept == (decision == "kept")
            return right and wanted <= failed and (not alone or (failed == wanted if wanted else len(failed) == 1))

        return np.array([fits(verdict) for verdict in self.all], bool)

    def fired(self, counts: Iterable[int]) -> tuple[list[int], list[int]]:
        """By rule: documents that failed it, and those that failed no other. `counts`: documents, one a verdict."""
        fired, alone = [0] * len(self.rules), [0] * len(self.rules)
        for verdict, count in zip(self.all, counts, strict=True):
            different = set(verdict.failed)
            for rule in different:
                fired[rule] += count
            if len(different) == 1:
                alone[verdict.failed[0]] += count
        return fired, alone
