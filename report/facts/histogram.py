"""Histograms of measured values, exact counts over any number of rows in bounded memory.

The range that is drawn comes from some of the rows; everything outside is counted at its two ends, so the bars of a histogram
always sum to the number of values.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.schemas import REPORT
from corpusmill.report.facts.scan import Batch, as_floats

__all__ = ["Histogram", "Histograms", "as_floats", "measured_columns", "number", "plan", "plan_histograms"]

BINS = 60
#: Places and numbers of groups, not measurements; a histogram of them says nothing.
NOT_MEASURED = {"offset", "length", "copies"} | (set(REPORT.names) - {"chars_in"})
#: By stage, what says nothing here: `similarity` is drawn beside the clusters, without the exact copies that would hide all others;
#: an item's number measures nothing, and a document rarely holds more than one.
NOT_DRAWN = {"dedup": {"similarity", "contaminated_item", "contamination_matches"}}

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


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

    def count(self, values: Floats, kept: Bools) -> Ints:
        """(2, bins + 3): rows of a batch, dropped and kept: below, in each bin, above, missing. `values` (n) are NaN where missing."""
        edges = self.edges.copy()
        edges[-1] = np.nextafter(edges[-1], np.inf)  # the last bin holds both of its edges
        places = np.searchsorted(edges, values, side="right")
        places[np.isnan(values)] = len(edges) + 1
        size = len(edges) + 2
        return np.bincount(places + size * kept, minlength=2 * size).reshape(2, size)

    def add_counts(self, counts: Ints) -> None:
        """Adds up what `count` gave."""
        self.dropped, self.kept = self.dropped + counts[0, 1:-2], self.kept + counts[1, 1:-2]
        both = counts.sum(axis=0)
        self.below, self.above, self.missing = self.below + int(both[0]), self.above + int(both[-2]), self.missing + int(both[-1])

    def add(self, values: Floats, kept: Bools) -> None:
        """Counts a batch."""
        self.add_counts(self.count(values, kept))

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


class Histograms:
    """The measure of all histograms of a stage."""

    def __init__(self, histograms: dict[str, Histogram]):
        self.histograms = histograms
        self.columns = ("kept", *histograms)

    def measure(self, batch: Batch) -> list[Ints]:
        return [histogram.count(batch.floats(column), batch.kept) for column, histogram in self.histograms.items()]

    def add(self, measured: list[Ints]) -> None:
        for histogram, counts in zip(self.histograms.values(), measured, strict=True):
            histogram.add_counts(counts)


def plan_histograms(looked_at: Batch | None, columns: list[str], marks: dict[str, list[float]]) -> dict[str, Histogram]:
    """Empty histograms with edges from some rows of the report. `marks` (thresholds by column) are always inside."""
    plans = {}
    for column in columns:
        values = looked_at.floats(column) if looked_at else np.zeros(0)
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
