"""`stats`: statistics of measured values for kept and for dropped documents.

All numbers are exact, counted by DuckDB over the report. Null and NaN are missing values; true is 1 and false is 0. Quantiles are
interpolated between the two nearest values, as in numpy and pandas; the deviation is that of a sample (n - 1).
"""

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.names import instead_of
from corpusmill.pipeline.safe import safe_line
from corpusmill.report.answers.choose import report_rows, shown
from corpusmill.report.machine import as_json, print_csv, warn
from corpusmill.report.queries.values import measured_columns
from corpusmill.report.query.run import Run
from corpusmill.report.query.sql import identifier
from corpusmill.report.read import ReportRule
from corpusmill.report.tables import limit, number, show_notes

Answer = TypeVar("Answer")
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
#: The quantiles of a table with a line for each column.
OVERVIEW = (0.05, 0.5, 0.95)
#: Values that one query holds in memory for quantiles, at most.
VALUES = 50_000_000
#: Characters of a number at most.
WIDEST = 13


@dataclass(frozen=True)
class Spread:
    """Statistics of a column's values; all but the counts are None if there are no values. `deviation` leaves out infinite values."""

    count: int = 0
    missing: int = 0
    mean: float | None = None
    deviation: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    quantiles: tuple[float | None, ...] = (None,) * len(QUANTILES)


@dataclass(frozen=True)
class ColumnStats:
    """A measured column, the rules that compare it, and its values in kept and in dropped documents."""

    name: str
    rules: list[ReportRule]
    kept: Spread
    dropped: Spread


def read_columns(run: Run, stage: str | None, chosen: Sequence[str] = ()) -> tuple[str, list[ColumnStats]]:
    """Returns the stage and the statistics of its measured columns in the report's order. `chosen`: names or patterns (`gopher_*`).

    Raises InputError for a stage without a report, and for a name that no measured column has.
    """
    stage, rows = report_rows(run, stage)
    schema = run.reader.schema(stage, "report")
    measured = measured_columns(schema, stage) if schema is not None else []
    names = [name for name in measured if not chosen or any(fnmatch.fnmatchcase(name, pattern) for pattern in chosen)]
    for pattern in chosen:
        if not fnmatch.filter(measured, pattern):
            raise InputError(f"{rows.name}: no column {shown(pattern)} holds numbers{instead_of(pattern, measured)}.")
    spreads = _settled(run, lambda: _all_spreads(run, stage, names))
    rules = run.rules(stage)
    return stage, [ColumnStats(name, [rule for rule in rules if rule.column == name], *spreads[name]) for name in names]


def _settled(run: Run, read: Callable[[], Answer]) -> Answer:
    """Returns the result of `read`, which runs several queries. Repeats it where a query found a damaged shard, so that all queries cover
    the same shards."""
    while True:
        known = len(run.warnings)
        answer = read()
        if len(run.warnings) == known:
            return answer


def _all_spreads(run: Run, stage: str, names: Sequence[str]) -> dict[str, tuple[Spread, Spread]]:
    run.connection.execute("SET threads = 1")  # sums of floats are reproducible only in one order
    try:
        total = int(run.sql(f"SELECT count(*) FROM {stage}_report").fetchall()[0][0])
        each = max(1, VALUES // max(total, 1))
        return {name: pair for first in range(0, len(names), each) for name, pair in _spreads(run, stage, names[first : first + each])}
    finally:
        run.connection.execute("RESET threads")


def _spreads(run: Run, stage: str, names: Sequence[str]) -> Iterator[tuple[str, tuple[Spread, Spread]]]:
    """Yields the statistics of each column among kept and among dropped documents."""
    values = ", ".join(f"nullif({identifier(name)}::DOUBLE, 'nan'::DOUBLE) AS v{place}" for place, name in enumerate(names))
    measures = ", ".join(_measures(f"v{place}") for place in range(len(names)))
    found = run.sql(f"SELECT kept, count(*), {measures} FROM (SELECT kept, {values} FROM {stage}_report) GROUP BY kept").fetchall()
    by_decision = {bool(row[0]): row[1:] for row in found}
    for place, name in enumerate(names):
        yield name, (_spread(by_decision.get(True), place), _spread(by_decision.get(False), place))


def _measures(value: str) -> str:
    quantiles = ", ".join(map(str, QUANTILES))
    return (
        f"count({value}), avg({value}), stddev_samp({value}) FILTER (isfinite({value})), min({value}), max({value}), "
        f"quantile_cont({value}, [{quantiles}])"
    )


def _spread(row: tuple[object, ...] | None, place: int) -> Spread:
    """Returns the statistics of the column at `place` from a row of `_spreads`: the number of documents, then six values for each
    column."""
    if row is None:
        return Spread()
    rows, (count, mean, deviation, low, high, quantiles) = row[0], row[1 + 6 * place : 7 + 6 * place]
    assert isinstance(rows, int) and isinstance(count, int)
    if not count:
        return Spread(0, rows)
    return Spread(count, rows - count, mean, deviation, low, high, tuple(quantiles))  # type: ignore[arg-type]


def show_stats(folder: str, stage: str | None, columns: Sequence[str], form: str, console: Console) -> None:
    """Shows statistics of a stage's measured columns. `form` is `table`, `json` or `csv`."""
    with Run(folder) as run:
        stage, measured = read_columns(run, stage, columns)
        _show_columns(stage, measured, form, console, whole=bool(columns))
        notes = [*run.reader.warnings, *([f"{stage} is not finished."] if run.reader.stages[stage].status == "unfinished" else [])]
    if form != "table":
        warn(notes)
    else:
        show_notes(notes, console)


def _show_columns(stage: str, columns: list[ColumnStats], form: str, console: Console, whole: bool) -> None:
    """Prints the columns. In a terminal, all figures of each (`whole`), or a line for each."""
    if form == "json":
        print(as_json({"stage": stage, "columns": [_column_json(column) for column in columns]}, indent=2))
    elif form == "csv":
        rows = [{"column": c.name, "decision": name, **_named(spread)}
                for c in columns for name, spread in (("kept", c.kept), ("dropped", c.dropped))]  # fmt: skip
        print_csv(rows, ["column", "decision", *_named(Spread())])
    elif not columns:
        console.print(f"{stage}: its report has no measured columns.")
    elif whole:
        for column in columns:
            _show_column(column, console)
    else:
        _show_lines(columns, console)


def _show_lines(columns: list[ColumnStats], console: Console) -> None:
    made = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    made.add_column("column, fails if", overflow="fold")
    places = [QUANTILES.index(share) for share in OVERVIEW]
    for decision in ("kept", "dropped"):
        for share in OVERVIEW:
            made.add_column(f"{decision}\n{share:.0%}", justify="right", no_wrap=True)
    for column in columns:
        name = Text(safe_line(column.name, 100)).append(" " + " or ".join(limit(rule) for rule in column.rules) if column.rules else "", style="dim")
        made.add_row(name, *(_short(spread.quantiles[place]) for spread in (column.kept, column.dropped) for place in places))
    console.print(made)
    console.print(Text("All figures of a column: --column NAME", style="dim"))


def _short(value: float | None) -> str:
    """Formats a value in about seven characters."""
    if value is None:
        return ""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.2g}" if abs(value) < 0.001 else f"{value:.3g}"


def _show_column(column: ColumnStats, console: Console) -> None:
    console.print(Text(safe_line(column.name, 100), style="bold"), *([] if not column.rules else [_fails(column)]))
    made = Table(box=None, pad_edge=False, show_header=True, padding=(0, 3, 0, 0))
    for name in ("", "kept", "dropped", "", "kept", "dropped"):
        made.add_column(Text(name), justify="right" if name else "left", no_wrap=True)
    named = [list(_named(spread).items()) for spread in (column.kept, column.dropped)]
    left, right = ([(name, kept, dropped) for (name, kept), (_, dropped) in zip(*part, strict=True)] for part in _halves(named))
    for place in range(max(len(left), len(right))):
        cells = [*(left[place] if place < len(left) else ("", None, None)), *right[place]]
        made.add_row(*(Text(_figure(value)) for value in cells))
    console.print(made)
    console.print()


def _figure(value: Any) -> str:
    """Formats a value for a narrow column: a long number is rounded, never cut."""
    text = "" if value is None else value if isinstance(value, str) else number(value)
    return text if len(text) <= WIDEST else f"{value:.4g}"


def _halves(named: list[list[tuple[str, Any]]]) -> tuple[list[list[tuple[str, Any]]], list[list[tuple[str, Any]]]]:
    """Splits each list into the figures for the left table and the quantiles for the right one."""
    return [values[: -len(QUANTILES)] for values in named], [values[-len(QUANTILES) :] for values in named]


def _fails(column: ColumnStats) -> Text:
    return Text("fails if " + ", or ".join(f"{limit(rule)} ({safe_line(rule.rule, 80)})" for rule in column.rules), style="dim")


def _named(spread: Spread) -> dict[str, Any]:
    """Returns the figures by name, quantiles last: `1%`, ..., `99%`."""
    figures = {"count": spread.count, "missing": spread.missing, "mean": spread.mean, "deviation": spread.deviation,
               "min": spread.minimum, "max": spread.maximum}  # fmt: skip
    return {**figures, **{f"{share:.0%}": value for share, value in zip(QUANTILES, spread.quantiles, strict=True)}}


def _column_json(column: ColumnStats) -> dict[str, Any]:
    rules = [{"rule": r.rule, "step": r.step, "comparison": r.comparison, "threshold": r.threshold} for r in column.rules]
    return {"column": column.name, "rules": rules, "kept": _named(column.kept), "dropped": _named(column.dropped)}
