"""The documents nearest to each rule's threshold: just dropped and just kept. Of those at the same distance, the first by id.

Ids are hashes, so of a rule without a number to compare with, these are any documents.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.report.facts.scan import Batch
from corpusmill.report.facts.thresholds import is_number
from corpusmill.report.read import Rule

#: Documents shown on either side of each rule.
SAMPLES = 4
#: Rules with samples, the stage's own first: a report of an unusual run may name thousands.
MAX_RULES = 200

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, order=True)
class Sample:
    """A document near a rule's threshold; the order is that of how well it shows the rule."""

    rank: tuple[int, float]  # fired with others, distance from the threshold
    id: str
    place: tuple[int, int]  # shard and row, in the order of the report
    url: str = field(compare=False)
    value: Any = field(compare=False)
    others: tuple[str, ...] = field(compare=False)  # rules that failed as well
    shard: str = field(compare=False)
    row: int = field(compare=False)
    language: str | None = field(default=None, compare=False)  # as the stage has found it


class Near:
    """The measure of near misses."""

    def __init__(self, rules: Sequence[Rule], schema: pa.Schema):
        names = set(schema.names)
        self.rules = {rule.rule: rule for rule in rules if rule.column in names}
        self.own = list(self.rules)[:MAX_RULES]
        self.room = MAX_RULES - len(self.own)
        self.reason = "reason" if "reason" in names else None
        wanted = [rule.column for rule in self.rules.values()] + ([self.reason] if self.reason else [])
        wanted += ["language"] if "language" in names else []
        self.columns = list(dict.fromkeys(["kept", "failed", "id", "url", *wanted]))
        self.dropped: dict[str, list[Sample]] = {}
        self.kept: dict[str, list[Sample]] = {}

    def measure(self, batch: Batch) -> tuple[dict[str, list[Sample]], dict[str, list[Sample]]]:
        """By rule: the best samples of a batch among those dropped and those kept."""
        dropped, kept = {}, {}
        passing = np.flatnonzero(batch.kept)
        others = [name for name in batch.failures.names if name not in self.rules][: self.room]  # the first by name, of all batches as well
        for name in [*self.own, *others]:
            rule = self.rules.get(name)
            dropped[name] = self._best(batch, rule, batch.failures.rows_of(name, alone=True), False)
            if len(dropped[name]) < SAMPLES:  # those that this rule alone dropped come first
                dropped[name] += self._best(batch, rule, batch.failures.rows_of(name, alone=False), True)
            kept[name] = self._best(batch, rule, passing, False) if rule is not None else []
        return dropped, kept

    def add(self, measured: tuple[dict[str, list[Sample]], dict[str, list[Sample]]]) -> None:
        for held, found in zip((self.dropped, self.kept), measured, strict=True):
            for name, samples in found.items():
                if samples:
                    best: dict[str, Sample] = {}
                    for sample in sorted([*held.get(name, []), *samples]):
                        best.setdefault(sample.id, sample)
                    held[name] = list(best.values())[:SAMPLES]
            for name in sorted(held.keys() - self.rules.keys())[self.room :]:  # no batch has skipped one of those that stay
                del held[name]

    def _best(self, batch: Batch, rule: Rule | None, rows: Ints, others: bool) -> list[Sample]:
        """The best of some rows, at most `SAMPLES`. `others`: whether they failed other rules as well."""
        numeric = rule is not None and is_number(rule.threshold)
        distance = np.zeros(len(rows))
        if numeric and rule is not None:
            distance = np.abs(batch.floats(rule.column)[rows] - float(rule.threshold))
            rows, distance = rows[~np.isnan(distance)], distance[~np.isnan(distance)]
        many = 2 * SAMPLES
        while True:  # until there are enough different documents: a crawl may hold one many times
            chosen = _nearest(batch.table["id"], rows, distance, many)
            if len({id_ for _, id_ in chosen}) >= SAMPLES or many >= len(rows):
                break
            many *= 4
        found: dict[str, int] = {}
        for at, id_ in chosen:
            found.setdefault(id_, at)
        best = list(found.values())[:SAMPLES]
        return [self._sample(batch, rule, int(rows[at]), (int(others), float(distance[at])), numeric) for at in best]

    def _sample(self, batch: Batch, rule: Rule | None, row: int, rank: tuple[int, float], numeric: bool) -> Sample:
        table, place = batch.table, batch.place(row)
        column = rule.column if rule else self.reason if not batch.kept[row] else None
        failed = [str(name) for name in table["failed"][row].as_py() or [] if rule is None or name != rule.rule]
        value = table[column][row].as_py() if column and column in table.column_names else None
        id_, url = str(table["id"][row].as_py()), table["url"][row].as_py() or ""
        language = table["language"][row].as_py() if "language" in self.columns and "language" in table.column_names else None
        told = None if language is None else str(language)
        return Sample(rank, id_, (place.number, place.first), url, value, tuple(failed), place.shard, place.first, told)


def _nearest(ids: pa.ChunkedArray, rows: Ints, distance: npt.NDArray[np.float64], many: int) -> list[tuple[int, str]]:
    """(place in `rows`, id) of the `many` nearest, sorted by distance, then by id, then by place."""
    if len(rows) > many:
        near = np.flatnonzero(distance <= np.partition(distance, many - 1)[many - 1])
    else:
        near = np.arange(len(rows))
    found = ids.take(pa.array(rows[near])).to_pylist() if len(near) <= 8 * many else None
    if found is None:  # many at the same distance
        table = pa.table({"distance": distance[near], "id": ids.take(pa.array(rows[near])), "at": near})
        best = pc.select_k_unstable(table, many, [("distance", "ascending"), ("id", "ascending"), ("at", "ascending")])
        near, found = near[best.to_numpy()], table["id"].take(best).to_pylist()
    order = sorted(range(len(near)), key=lambda at: (distance[near[at]], found[at], near[at]))
    return [(int(near[at]), found[at]) for at in order]
