"""What a stage's report says, in one pass: rules, histograms, and the documents nearest to each threshold."""

import heapq
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.report.histogram import Histogram, as_floats, measured_columns, plan_histograms
from corpusmill.pipeline.report.read import Rule, RunReader

#: Documents shown on either side of each rule.
SAMPLES = 2
#: Rules with samples and pairs: a report of an unusual run may name thousands.
MAX_RULES = 200

Bools = npt.NDArray[np.bool_]


@dataclass
class RuleCount:
    """How often a rule fired in a stage, and how often it alone."""

    name: str
    fired: int = 0
    alone: int = 0


@dataclass(frozen=True, order=True)
class Sample:
    """A document near a rule's threshold; the order is that of how well it shows the rule."""

    rank: tuple[int, float]  # fired with others, distance from the threshold
    place: int  # in the order of the report
    id: str
    url: str
    value: Any = field(compare=False)


@dataclass
class Decisions:
    """All counts of one stage's report."""

    stage: str
    rows: int = 0
    kept: int = 0
    chars_in: int = 0
    chars_out: int = 0
    rules: dict[str, RuleCount] = field(default_factory=dict)
    together: Counter[tuple[str, str]] = field(default_factory=Counter)
    thresholds: list[Rule] = field(default_factory=list)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    just_dropped: dict[str, list[Sample]] = field(default_factory=dict)
    just_kept: dict[str, list[Sample]] = field(default_factory=dict)

    @property
    def dropped(self) -> int:
        return self.rows - self.kept

    def by_removal(self) -> list[RuleCount]:
        """The rules that fired, the most frequent first."""
        return sorted((r for r in self.rules.values() if r.fired), key=lambda r: (-r.fired, r.name))


def read_decisions(reader: RunReader, stage: str, histograms: bool = True, samples: bool = True) -> Decisions | None:
    """The decisions of a stage; None where it has no usable report. Memory does not grow with the number of rows."""
    schema = reader.schema(stage, "report")
    if schema is None or not reader.is_report(stage):
        return None
    result = Decisions(stage, thresholds=reader.rules(stage))
    result.rules = {rule.rule: RuleCount(rule.rule) for rule in result.thresholds}
    columns = measured_columns(schema, stage) if histograms else []
    if histograms:
        result.histograms = plan_histograms(reader, stage, columns, _marks(result.thresholds))
    wanted = ["kept", "failed", "chars_in", "chars_out", *(["id", "url"] if samples else []), *columns]
    for table in reader.tables(stage, "report", dict.fromkeys(wanted)):
        _add(result, table, columns, samples)
    return result


def _marks(rules: list[Rule]) -> dict[str, list[float]]:
    marks: dict[str, list[float]] = {}
    for rule in rules:
        if isinstance(rule.threshold, int | float):
            marks.setdefault(rule.column, []).append(float(rule.threshold))
    return marks


def _add(result: Decisions, table: pa.Table, columns: list[str], samples: bool) -> None:
    kept = np.asarray(table["kept"].to_numpy(zero_copy_only=False), bool)
    fired = _fired(table)
    _count(result, fired)
    if samples:
        _sample(result, table, kept, fired)
    for column in columns:
        result.histograms[column].add(as_floats(table, column), kept)
    result.rows += table.num_rows
    result.kept += int(kept.sum())
    result.chars_in += int(np.nansum(as_floats(table, "chars_in")))
    result.chars_out += int(np.nansum(as_floats(table, "chars_out")))


def _fired(table: pa.Table) -> dict[str, Bools]:
    """For each rule in `failed`, in alphabetical order, the rows (n) in which it stands."""
    failed = table["failed"].combine_chunks()
    if isinstance(failed, pa.ChunkedArray):
        failed = failed.chunk(0) if failed.num_chunks else pa.array([], failed.type)
    lengths = np.asarray(failed.value_lengths().fill_null(0).to_numpy(zero_copy_only=False), np.int64)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    codes = failed.flatten().dictionary_encode()
    places = codes.indices.fill_null(len(codes.dictionary)).to_numpy(zero_copy_only=False)
    fired = {}
    for code, name in sorted(enumerate(codes.dictionary.to_pylist()), key=lambda pair: str(pair[1])):
        mask = np.zeros(len(lengths), bool)
        mask[rows[places == code]] = True
        fired[str(name)] = mask
    return fired


def _count(result: Decisions, fired: dict[str, Bools]) -> None:
    if not fired:
        return
    matrix = np.stack(list(fired.values())).astype(np.float32)  # (rules, n): exact as long as a batch is below 2**24 rows
    total = matrix.sum(axis=0)
    together = (matrix @ matrix.T).astype(np.int64) if len(fired) <= MAX_RULES else None
    for place, (name, mask) in enumerate(fired.items()):
        count = result.rules.setdefault(name, RuleCount(name))
        count.fired += int(mask.sum())
        count.alone += int((mask & (total == 1)).sum())
        if together is not None:
            names = list(fired)
            for other in np.flatnonzero(together[place, place + 1 :]):
                result.together[name, names[place + 1 + other]] += int(together[place, place + 1 + other])


def _sample(result: Decisions, table: pa.Table, kept: Bools, fired: dict[str, Bools]) -> None:
    thresholds = {rule.rule: rule for rule in result.thresholds}
    failures = np.sum(list(fired.values()), axis=0) if fired else np.zeros(len(kept))
    for name in sorted({*fired, *thresholds})[:MAX_RULES]:
        rule = thresholds.get(name)
        numeric = rule is not None and isinstance(rule.threshold, int | float) and rule.column in table.column_names
        values = as_floats(table, rule.column) if rule and numeric else np.zeros(len(kept))
        distance = np.abs(values - float(rule.threshold)) if rule and numeric else np.zeros(len(kept))
        if name in fired:
            ranks = (failures > 1).astype(np.int64)
            _keep_best(result.just_dropped.setdefault(name, []), table, fired[name], ranks, distance, values, numeric, result.rows)
        if numeric:
            zeros = np.zeros(len(kept), np.int64)
            _keep_best(result.just_kept.setdefault(name, []), table, kept, zeros, distance, values, numeric, result.rows)


def _keep_best(
    best: list[Sample], table: pa.Table, mask: Bools, ranks: npt.NDArray[np.int64], distance: npt.NDArray[np.float64],
    values: npt.NDArray[np.float64], numeric: bool, first: int,
) -> None:  # fmt: skip
    """Merges the rows of a batch that `mask` (n) names into the `SAMPLES` best ones so far."""
    rows = np.flatnonzero(mask & ~np.isnan(distance))
    rows = rows[np.lexsort((rows, distance[rows], ranks[rows]))][:SAMPLES]
    for row in rows.tolist():
        place = (int(ranks[row]), float(distance[row]))
        value = float(values[row]) if numeric else None
        best.append(Sample(place, first + row, table["id"][row].as_py(), table["url"][row].as_py() or "", value))
    best[:] = heapq.nsmallest(SAMPLES, best)
