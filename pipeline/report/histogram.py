"""Histograms of measured values, exact counts over any number of rows in bounded memory.

The range that is drawn comes from a sample of row groups (at most about 200,000 rows); everything outside is counted
at its two ends, so the bars of a histogram always sum to the number of values.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.report.read import RunReader
from corpusmill.pipeline.schemas import REPORT

BINS = 60
SAMPLE_ROWS = 200_000
#: Places and numbers of groups, not measurements; a histogram of them says nothing.
NOT_MEASURED = {"offset", "length", "copies"} | (set(REPORT.names) - {"chars_in"})
#: By stage, what says nothing here: `similarity` is drawn beside the clusters, without the exact copies that would hide all others;
#: an item's number measures nothing, and a document rarely holds more than one.
NOT_DRAWN = {"dedup": {"similarity", "contaminated_item", "contamination_matches"}}

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass
class Histogram:
    """Counts of one column: `edges` has one value more than `kept` and `dropped`; a bin holds its lower edge.

    `below` and `above` are the values outside of the edges, `missing` the nulls and NaNs.
    """

    column: str
    edges: Floats
    logarithmic: bool = False
    whole: bool = False  # the values are whole numbers
    kept: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    dropped: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    below: int = 0
    above: int = 0
    missing: int = 0

    def __post_init__(self) -> None:
        self.kept = np.zeros(len(self.edges) - 1, np.int64)
        self.dropped = np.zeros(len(self.edges) - 1, np.int64)

    def add(self, values: Floats, kept: Bools) -> None:
        """Counts a batch: `values` (n, NaN where missing) and whether each row was kept (n)."""
        known = ~np.isnan(values)
        self.missing += int(len(values) - known.sum())
        values, kept = values[known], kept[known]
        places = np.searchsorted(self.edges, values, side="right") - 1
        places[values == self.edges[-1]] -= 1  # the last bin holds both of its edges
        bins = len(self.kept)
        self.below += int((places < 0).sum())
        self.above += int((places >= bins).sum())
        inside = (places >= 0) & (places < bins)
        self.kept += np.bincount(places[inside & kept], minlength=bins)
        self.dropped += np.bincount(places[inside & ~kept], minlength=bins)

    @property
    def values(self) -> int:
        return int(self.kept.sum() + self.dropped.sum()) + self.below + self.above

    @property
    def mostly_zeros(self) -> bool:
        """Whether most values lie before the first step of a logarithmic axis, where they would hide all others."""
        return self.logarithmic and self.edges[0] == 0 and 2 * int(self.kept[0] + self.dropped[0]) > self.values


def measured_columns(schema: pa.Schema, stage: str = "") -> list[str]:
    """The columns of a stage's report that hold numbers or yes/no, in their order."""
    left_out = NOT_MEASURED | NOT_DRAWN.get(stage, set())
    numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    return [f.name for f in schema if f.name not in left_out and any(test(f.type) for test in numeric)]


def as_floats(table: pa.Table, column: str) -> Floats:
    """A column (n) as float64 with NaN for nulls; all NaN where the table lacks it or it holds no numbers."""
    if column not in table.column_names:
        return np.full(table.num_rows, np.nan)
    values = table[column]
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    try:
        values = pc.cast(values, pa.float64(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return np.full(table.num_rows, np.nan)
    return np.asarray(values.to_numpy(zero_copy_only=False), np.float64)


def plan_histograms(reader: RunReader, stage: str, columns: list[str], marks: dict[str, list[float]]) -> dict[str, Histogram]:
    """Empty histograms with edges from a sample of the stage's report. `marks` (thresholds by column) are always inside."""
    rows, groups = reader.report_rows(stage)
    every = max(1, math.ceil(rows / SAMPLE_ROWS)) if groups > 1 else 1
    sample: dict[str, list[Floats]] = {column: [] for column in columns}
    for table in reader.tables(stage, "report", columns, every):
        for column in columns:
            sample[column].append(as_floats(table, column))
    plans = {}
    for column in columns:
        values = np.concatenate(sample[column] or [np.zeros(0)])
        plans[column] = plan(column, values[np.isfinite(values)], marks.get(column, []))
    return plans


def plan(column: str, values: Floats, marks: list[float]) -> Histogram:
    """Edges for a column from sampled finite values (n): a bin a number for few whole numbers, else 60 even or logarithmic ones."""
    if len(values) == 0:
        values = np.array([0.0, *marks])
    low, high = float(np.min(values)), float(np.quantile(values, 0.995, method="nearest"))
    for mark in marks:  # with some room behind it, where those that fail are
        low, high = min(low, mark), max(high, mark + 0.2 * max(mark - low, 0.0))
    whole = bool(np.all(values == np.round(values)))
    if whole and high - low < BINS:
        return Histogram(column, np.arange(math.floor(low), math.floor(high) + 2, dtype=np.float64), whole=True)
    if low >= 0 and high > 20 * max(float(np.median(values)), high * 1e-6):
        smallest = max(float(np.min(values[values > 0], initial=high)), high * 1e-6)
        edges = np.geomspace(smallest, high, BINS)
        edges[0], edges[-1] = smallest, high
        return Histogram(column, np.concatenate([[0.0], edges]) if low < smallest else edges, logarithmic=True, whole=whole)
    if low == high:
        low, high = low - 0.5, high + 0.5
    return Histogram(column, np.linspace(low, high, BINS + 1), whole=whole)


def number(value: Any) -> str:
    """A count with separators, a float with four significant digits; the same on every machine."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(number(item) for item in value)
    if isinstance(value, float | np.floating):
        value = float(value)
        if not math.isfinite(value):
            return str(value)
        if value == round(value) and abs(value) < 1e15:
            return f"{int(value):,}"
        return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    return str(value)
