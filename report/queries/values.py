"""Reads the measured values: histograms, lengths of documents, personal data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.schemas import REPORT
from corpusmill.report.queries.ask import Query, ask, columns, has_report, number_of
from corpusmill.report.queries.rules import Decisions
from corpusmill.report.query.run import Run
from corpusmill.report.query.sql import column, literal
from corpusmill.report.read import NO_PAGE

BINS = 60
#: Rows of the sample from which bins and other thresholds are chosen; the counts cover all rows.
SAMPLE_ROWS = 100_000
#: Columns whose samples are in memory at a time.
TOGETHER = 8
#: Columns that are not measurements: places, numbers of copies, and the columns that every report begins with.
NOT_MEASURED = {"offset", "length", "copies"} | (set(REPORT.names) - {"chars_in"})
#: By stage, measured columns without a histogram: `similarity` has its own chart, without the exact copies that would hide all other
#: values; the number of an item measures nothing, and a document rarely holds more than one item.
NOT_DRAWN = {"dedup": {"similarity", "contaminated_item"}}
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
#: Ten bins for each power of ten; the last holds all longer documents.
EDGES = [10 ** (step / 10) for step in range(81)]
PII = "pii_"

Floats = npt.NDArray[np.float64]


def measured_columns(schema: pa.Schema, stage: str = "") -> list[str]:
    """Returns the columns of a stage's report that hold numbers or booleans, in their order."""
    left_out = NOT_MEASURED | NOT_DRAWN.get(stage, set())
    numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    return [f.name for f in schema if f.name not in left_out and any(test(f.type) for test in numeric)]


# ---- histograms ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bins:
    """The bins of a histogram: `count` bins from `low` to `high`, of equal width, or of equal ratio where `logarithmic`. `zeros`: one
    more bin, from 0 to `low`, comes before them. A bin holds its lower edge; the last holds both edges. `whole`: all values are whole
    numbers."""

    low: float
    high: float
    count: int
    logarithmic: bool = False
    zeros: bool = False
    whole: bool = False

    @property
    def edges(self) -> list[float]:
        if not self.logarithmic:
            return [float(edge) for edge in np.linspace(self.low, self.high, self.count + 1)]
        edges = [float(edge) for edge in np.geomspace(self.low, self.high, self.count + 1)]
        edges[0], edges[-1] = self.low, self.high
        return [0.0, *edges] if self.zeros else edges

    def place(self, value: str) -> str:
        """SQL: the bin of a value; -1 below all bins, the number of bins above them, NULL for NULL."""
        low, high, bins = literal(self.low), literal(self.high), len(self.edges) - 1
        first = int(self.zeros)
        inside = f"({value} - {low}) * {self.count} / {literal(self.high - self.low)}"
        if self.logarithmic:
            inside = f"{first} + ln({value} / {low}) * {self.count} / {literal(math.log(self.high / self.low))}"
        zeros = f" WHEN {value} >= 0 AND {value} < {low} THEN 0" if self.zeros else ""
        return (
            f"CASE WHEN {value} IS NULL THEN NULL{zeros} WHEN {value} < {low} THEN -1 WHEN {value} > {high} THEN {bins} "
            f"ELSE least(greatest(floor({inside}), {first}), {bins - 1}) END::INTEGER"
        )


def plan(values: Floats, marks: Sequence[float]) -> Bins:
    """Chooses bins for finite values (n): one for each number where there are few whole numbers, else 60 even or logarithmic ones. They
    cover all `marks` (thresholds) and nearly all values."""
    if not len(values):
        values = np.array([0.0, *marks])
    low, high = float(values.min()), float(np.quantile(values, 0.995, method="nearest"))
    for mark in marks:  # with some room above the threshold, where the failing values of a maximum are
        low, high = min(low, mark), max(high, mark + 0.2 * max(mark - low, 0.0))
    whole = bool(np.all(values == np.round(values)))
    if whole and high - low < BINS:
        return Bins(math.floor(low), math.floor(high) + 1, math.floor(high) + 1 - math.floor(low), whole=True)
    if low >= 0 and high > 20 * max(float(np.median(values)), high * 1e-6):
        first = max(float(np.min(values[values > 0], initial=high)), high * 1e-6)
        return Bins(first, high, BINS - 1, True, low < first, whole)
    if low == high:
        low, high = low - 0.5, high + 0.5
    return Bins(low, high, BINS, whole=whole)


@dataclass
class Histogram:
    """A histogram of one column: counts in each of `bins`, of values `below` and `above` them, and of `missing` values (null or NaN)."""

    column: str
    bins: Bins
    kept: list[int]
    dropped: list[int]
    below: int = 0
    above: int = 0
    missing: int = 0
    query: Query | None = None

    @property
    def values(self) -> int:
        return sum(self.kept) + sum(self.dropped) + self.below + self.above

    @property
    def mostly_zeros(self) -> bool:
        """Whether most values lie in the bin of zeros of a logarithmic axis, where its bar would hide all others."""
        return self.bins.zeros and 2 * (self.kept[0] + self.dropped[0]) > self.values

    @property
    def flat(self) -> bool:
        """Whether a chart would show one bar."""
        both = [kept + dropped > 0 for kept, dropped in zip(self.kept, self.dropped, strict=True)]
        return sum(both[1:] if self.mostly_zeros else both) <= 1


def read_histograms(run: Run, d: Decisions) -> dict[str, Histogram]:
    """Reads the histograms of all measured columns of a stage's report, in its order."""
    kinds, schema = columns(run, f"{d.stage}_report"), run.reader.schema(d.stage, "report")
    names = [name for name in measured_columns(schema, d.stage) if name in kinds] if schema is not None else []
    planned = _plans(run, d, names, kinds)
    return {name: _histogram(run, d.stage, name, planned[name], kinds) for name in names}


def _plans(run: Run, d: Decisions, names: Sequence[str], kinds: dict[str, str]) -> dict[str, Bins]:
    """Returns the bins of each column, chosen on a sample of the report."""
    marks: dict[str, list[float]] = {}
    for rule in d.thresholds:
        if isinstance(rule.threshold, int | float):
            marks.setdefault(rule.column, []).append(float(rule.threshold))
    planned: dict[str, Bins] = {}
    for first in range(0, len(names), TOGETHER):
        some = names[first : first + TOGETHER]
        values = sample(run, d, [number_of(name, kinds) for name in some])
        planned |= {name: plan(of[np.isfinite(of)], marks.get(name, [])) for name, of in zip(some, values, strict=True)}
    return planned


def sample(run: Run, d: Decisions, values: Sequence[str]) -> list[Floats]:
    """Returns a sample of each of `values` (SQL): numbers (n) of about `SAMPLE_ROWS` rows spread over a report that `Run.hold` has read;
    NaN if missing."""
    if not values:
        return []
    named = ", ".join(f"coalesce({value}, 'nan'::DOUBLE) AS v{place}" for place, value in enumerate(values))
    rows = run.sql(f"SELECT {named} FROM {d.stage}_report WHERE rowid % {-(-d.rows // SAMPLE_ROWS) or 1} = 0").fetchnumpy()
    return [np.asarray(rows[f"v{place}"], np.float64) for place in range(len(values))]


def _histogram(run: Run, stage: str, name: str, bins: Bins, kinds: dict[str, str]) -> Histogram:
    query = ask(run, "values", f"Values of {name} ({stage})", f"""
        SELECT {bins.place("value")} AS bin, count(*) FILTER (kept) AS kept, count(*) FILTER (NOT kept) AS dropped
        FROM (SELECT kept, {number_of(name, kinds)} AS value FROM {stage}_report)
        GROUP BY bin
        ORDER BY bin
    """)  # fmt: skip
    count = len(bins.edges) - 1
    found = {row["bin"]: (row["kept"], row["dropped"]) for row in query.rows}
    kept, dropped = ([found.get(place, (0, 0))[side] for place in range(count)] for side in (0, 1))
    below, above, missing = (sum(found.get(place, (0, 0))) for place in (-1, count, None))
    return Histogram(name, bins, kept, dropped, below, above, missing, query)


# ---- lengths ------------------------------------------------------------------------------------------------------------------------


@dataclass
class Lengths:
    """The lengths in characters of one set of documents, `name`: at each of `QUANTILES`, and counts between each two of `EDGES`. `empty`:
    documents without characters."""

    name: str
    documents: int
    characters: int
    quantiles: list[int]
    bins: list[int]
    empty: int


def read_lengths(run: Run, stages: Sequence[str]) -> tuple[list[Lengths], list[Query]]:
    """Reads the lengths of the input documents and of those after each of `stages`. Sets without documents are left out."""
    pages = f" WHERE NOT list_contains(failed, {literal(NO_PAGE)})"  # what else an archive holds, such as requests, has no length
    sets = [("came in", stage, "chars_in", pages) for stage in stages[:1]]
    sets += [(f"after {stage}", stage, "chars_out", " WHERE kept") for stage in stages]
    if not sets:
        return [], []
    names = [f"p{round(100 * share):02d}" for share in QUANTILES]
    every = "\n      UNION ALL ".join(
        f"SELECT {place} AS place, {literal(name)} AS documents_that, {chars} AS characters FROM {stage}_report{where}"
        for place, (name, stage, chars, where) in enumerate(sets)
    )
    each = (f"min(characters) FILTER (upto >= {share} * total) AS {name}" for share, name in zip(QUANTILES, names, strict=True))
    quantiles = ",\n  ".join(each)
    # `quantile_disc` gives the same values, but holds the lengths of all documents in memory
    table = ask(run, "lengths", "Lengths in characters", f"""\
SELECT place, any_value(documents_that) AS documents_that, sum(documents)::BIGINT AS documents,
  sum(documents * characters)::BIGINT AS characters,
  {quantiles}
FROM (
  SELECT *, sum(documents) OVER (PARTITION BY place ORDER BY characters) AS upto, sum(documents) OVER (PARTITION BY place) AS total
  FROM (
    SELECT place, documents_that, characters, count(*) AS documents
    FROM (
      {every}
    )
    GROUP BY ALL
  )
)
GROUP BY place
ORDER BY place""")  # fmt: skip
    chart = ask(run, "lengths-chart", "Documents by length", f"""\
SELECT place, if(characters > 0, least(floor(10 * log10(characters) + 1e-9), {len(EDGES) - 1})::INTEGER, NULL) AS step,
  count(*) AS documents
FROM (
  {every}
)
GROUP BY place, step
ORDER BY place, step""")  # fmt: skip
    counts = {(row["place"], row["step"]): row["documents"] for row in chart.rows}
    found = [
        Lengths(row["documents_that"], row["documents"], row["characters"], [row[name] for name in names],
                [counts.get((row["place"], step), 0) for step in range(len(EDGES))], counts.get((row["place"], None), 0))
        for row in table.rows
    ]  # fmt: skip
    return found, [table, chart]


# ---- personal data ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PersonalData:
    """The finds of the step `pii`. `query`: its row counts all documents, those kept, and those `touched`, with at least one find. `kinds`:
    the rows of `kinds_query`, for each the report's `column`, the `placeholder` in the text (None if the data stays), and whether the
    recipe names this kind (`known`)."""

    kinds: list[dict[str, Any]]
    query: Query
    kinds_query: Query


def read_personal_data(run: Run) -> PersonalData | None:
    """Reads the kinds of personal data that the filter stage searched for; None if it searched for none or has no documents."""
    kinds = columns(run, "filter_report") if has_report(run, "filter") else {}
    names = [name for name, kind in kinds.items() if name.startswith(PII) and kind.endswith(("INT", "INTEGER"))]
    if not names:
        return None
    some = " OR ".join(f"{column(name)} > 0" for name in names)
    whole = ask(run, "pii-documents", "Documents with personal data", f"""
        SELECT count(*) AS rows, count(*) FILTER (kept) AS kept, count(*) FILTER ({some}) AS touched,
          count(*) FILTER (kept AND ({some})) AS kept_touched, touched / nullif(count(*), 0) AS share,
          kept_touched / nullif(count(*) FILTER (kept), 0) AS kept_share
        FROM filter_report
    """)  # fmt: skip
    by_kind = ask(run, "pii", "Personal data by kind", f"""
        SELECT kind, coalesce(sum(finds), 0)::BIGINT AS finds, count(*) FILTER (finds > 0) AS documents,
          coalesce(sum(finds) FILTER (kept), 0)::BIGINT AS kept_finds, count(*) FILTER (kept AND finds > 0) AS kept_documents,
          documents / {whole.first["rows"] or "NULL"} AS share, kept_documents / {whole.first["kept"] or "NULL"} AS kept_share
        FROM (SELECT kept, unnest({list(names)}) AS kind, unnest([{", ".join(map(column, names))}]) AS finds FROM filter_report)
        GROUP BY kind
        ORDER BY list_position({list(names)}, kind)
    """)  # fmt: skip
    if not whole.first["rows"]:
        return None
    options = next((options for kind, options in run.reader.steps() if kind == "pii"), {})
    known = {f"{PII}{name}{plural}": name for name in options for plural in ("s", "")}
    return PersonalData([_kind(row, known.get(row["kind"]), options) for row in by_kind.rows], whole, by_kind)


def _kind(row: dict[str, Any], option: str | None, options: dict[str, Any]) -> dict[str, Any]:
    placeholder, name = options.get(option) if option else None, row["kind"]
    given = placeholder if isinstance(placeholder, str) else None
    return row | {"column": name, "kind": name.removeprefix(PII).replace("_", " "), "placeholder": given, "known": option is not None}
