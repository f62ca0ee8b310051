"""`inspect`: shows rows of a run's reports, or of one Parquet file, as a table or as JSON lines."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import duckdb
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.names import not_a_run
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.schemas import REPORT
from corpusmill.pipeline.shards import open_parquet
from corpusmill.pipeline.storage import Storage, is_remote
from corpusmill.report.answers.choose import (
    Choice,
    TableRows,
    asked_meanings,
    check_rules,
    choose,
    file_rows,
    report_rows,
)
from corpusmill.report.machine import print_json_lines, warn
from corpusmill.report.query.run import Run
from corpusmill.report.query.sql import allow_store
from corpusmill.report.read import ReportRule
from corpusmill.report.tables import limit, number, show, show_notes, table

Row = dict[str, Any]
#: Terminals of at least this width show document and decision side by side.
SIDE_BY_SIDE = 72
#: Characters of a text in a table of chosen columns, at most; on wide terminals one line.
MOST_TEXT = 120


@dataclass
class TableInfo:
    """What a table needs besides its rows. `total`: how many rows there are (None: not counted). `columns`: the chosen columns. `asked`:
    the columns of conditions and of the order."""

    title: str
    rules: list[ReportRule] = field(default_factory=list)
    run: str | None = None
    total: int | None = None
    offset: int = 0
    columns: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RowOptions:
    """Which rows to show, and how. Empty `columns` means all columns, `limit` 0 all rows."""

    choice: Choice = field(default_factory=Choice)
    columns: tuple[str, ...] = ()
    order: str | None = None
    descending: bool = False
    limit: int = 20
    offset: int = 0
    as_json: bool = False


def inspect(target: str, stage: str | None, wanted: RowOptions, console: Console) -> None:
    """Shows rows of a run's report (of `stage`, else of the stage that has the first rule, else of the filter), or of one Parquet file.

    Raises InputError for a file, stage or column that does not exist.
    """
    remote, there = is_remote(target), os.path.exists(target)
    if not (target.lower().endswith(".parquet") if remote else there and Path(target).is_file()):
        if not remote and not there:
            raise InputError(not_a_run(target, "file or run"))
        _inspect_run(target, stage, wanted, console)
        return
    if stage is not None:
        raise InputError(f"{target}: --stage is for a run's folder, and this is one file.")
    _inspect_parquet(target, wanted, console)


def _inspect_run(target: str, stage: str | None, wanted: RowOptions, console: Console) -> None:
    with Run(target, only_run=True) as run:
        name, rows = report_rows(run, stage, wanted.choice.rules)
        check_rules(run, name, wanted.choice.rules)
        choose(rows, wanted.choice)
        notes = [f"{rule}: {phrase}" for rule, phrase in asked_meanings(run, name, wanted.choice).items()]
        notes += _damage(run, target, name)
        _show(rows, wanted, TableInfo(f"{name}: report", run.rules(name), target, notes=notes), console)
        if wanted.as_json:
            warn(_damage(run, target, name))  # including damage found during the reading


def _damage(run: Run, target: str, stage: str) -> list[str]:
    """Returns notes on missing rows: an unfinished stage, and damaged files."""
    unfinished = run.reader.stages[stage].status == "unfinished"
    notes = [f"{stage} is not finished, so there may be more documents."] if unfinished else []
    return [*(f"{target}: {sentence}" for sentence in run.reader.warnings), *notes]


def _inspect_parquet(path: str, wanted: RowOptions, console: Console) -> None:
    folder, _, name = path.rpartition("/")
    storage = Storage(folder or ("/" if path.startswith("/") else "."))
    with open_parquet(storage, name):
        pass  # raises one sentence where it is not a Parquet file
    with duckdb.connect(":memory:") as connection:
        allow_store(connection, storage)
        _inspect_file(path, file_rows(path, connection), wanted, console)


def _inspect_file(path: str, rows: TableRows, wanted: RowOptions, console: Console) -> None:
    needed = {"kept": wanted.choice.kept is not None, "failed": bool(wanted.choice.rules or wanted.choice.alone)}
    if lacking := [column for column, is_needed in needed.items() if is_needed and column not in rows.columns]:
        raise InputError(f"{path}: it has no column {lacking[0]!r}, so it is no report, and only --where chooses its rows.")
    choose(rows, wanted.choice)
    _show(rows, wanted, TableInfo(path), console)


def _show(rows: TableRows, wanted: RowOptions, about: TableInfo, console: Console) -> None:
    for column in wanted.columns:
        rows.column(column)
    columns = list(wanted.columns) or list(rows.columns)
    found = rows.read(columns, rows.order(wanted.order, wanted.descending), wanted.limit, wanted.offset)
    if wanted.as_json:
        print_json_lines(found)
        return
    about.total, about.offset, about.columns = rows.count(), wanted.offset, list(wanted.columns)
    about.asked = [wanted.order] if wanted.order else []
    if not about.total and wanted.choice.kept and wanted.choice.rules:
        about.notes.append(
            "a document that fails a rule is dropped; corpusmill sample RUN --rule RULE --near --kept shows those that it just let pass."
        )
    show_rows(list(found), about, console)


def show_rows(rows: list[Row], about: TableInfo, console: Console) -> None:
    """Shows rows: those of a report with decision and values, chosen columns as a table, all others as names and values."""
    if not rows:
        console.print("No such rows." if not about.total else f"No such rows: there are {about.total:,}, and --offset is {about.offset:,}.")
    elif about.columns:
        show_grid(rows, about, console)
    elif set(REPORT.names) <= set(rows[0]):
        _show_decisions(rows, about, console)
    else:
        _show_values(rows, about, console)
    show_notes(about.notes, console)
    if rows:
        _show_rest(len(rows), about, console)


def _show_rest(count: int, about: TableInfo, console: Console) -> None:
    end = about.offset + count
    if about.total is not None:
        more = f" --offset {end} shows more." if end < about.total else ""
        console.print(Text(f"Rows {about.offset + 1:,} to {end:,} of {about.total:,}.{more}", style="dim"))
    if about.run is not None:
        console.print(Text(f"All about one: corpusmill why {safe_line(about.run, 200)} URL-OR-WORDS", style="dim"), soft_wrap=True)


def _show_decisions(rows: list[Row], about: TableInfo, console: Console) -> None:
    """Prints a line for each document: its URL (its id where it has none), and what was decided."""
    wide = console.width >= SIDE_BY_SIDE
    made = table(about.title, "document", *(["decision"] if wide else []))
    for row in rows:
        document, decision = Text(safe_line(row["url"] or row["id"], 120)), _decision(row, about)
        if wide:
            made.add_row(document, decision)
        else:
            made.add_row(Text("\n").join([document, decision]))
    if wide:
        made.columns[0].min_width = 32
    for column in made.columns:
        column.no_wrap = False
    show(made, console)


def _show_values(rows: list[Row], about: TableInfo, console: Console) -> None:
    made = table(about.title, "row", "values")
    for place, row in enumerate(rows, about.offset):
        pairs = [f"{safe_line(name, 80)}: {safe_line(number(value), 240)}" for name, value in row.items() if value is not None]
        made.add_row(str(place), Text("\n".join(pairs)))
    for column in made.columns:
        column.no_wrap = False
    made.show_lines = True
    show(made, console)


def _decision(row: Row, about: TableInfo) -> Text:
    """Returns the decision: each failed rule with its value and threshold, the reason in words, and the values of `about.asked`."""
    failed = [_failure(name, row, about) for name in row["failed"] or []]
    asked = [f"{safe_line(name, 60)} {safe_line(number(row[name]), 60)}" for name in about.asked if row.get(name) is not None]
    reason = [safe_line(row["reason"], 200)] if row.get("reason") else []
    decision = Text("kept", style="green") if row["kept"] else Text(", ".join(failed), style="red")
    return decision.append("".join(f"; {part}" for part in reason + asked), style="dim not green not red")


def _failure(name: str, row: Row, about: TableInfo) -> str:
    """Returns a failed rule with the value that failed, where its column has one: `gopher_short_doc: 12 < 50`."""
    rules = [rule for rule in about.rules if rule.rule == name and row.get(rule.column) is not None]
    values = (f"{safe_line(number(row[rule.column]), 60)} {limit(rule)}" for rule in rules)
    return safe_line(name, 80) + "".join(f": {value}" for value in values)


def show_grid(rows: list[Row], about: TableInfo, console: Console) -> None:
    """Prints a table with one column for each of `about.columns`; where it is too wide, prints each row as a list of values."""
    made = table(about.title)
    for name in about.columns:
        cells = [_cell(row.get(name), console.width) for row in rows]
        is_number = all(_is_number(row.get(name)) for row in rows)
        head = _folded(name, max(12, *map(cell_len, cells)))
        whole = is_number or name == "id" or name.endswith("_id")  # an id is never cut, so that it can be copied
        justify: Literal["left", "right"] = "right" if is_number else "left"
        made.add_column(Text("\n".join(head)), justify=justify, no_wrap=whole, overflow="fold", min_width=max(map(cell_len, head)))
    for row in rows:
        made.add_row(*(Text(_cell(row.get(name), console.width)) for name in about.columns))
    show(made, console)


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, int | float)


def _cell(value: Any, width: int) -> str:
    return "" if value is None else safe_line(number(value), max(MOST_TEXT, width))


def _folded(name: str, width: int) -> list[str]:
    """Returns a column's name on as many lines as it needs, cut after underscores where possible."""
    lines = [""]
    for part in safe_line(name, 120).replace("_", "_\0").split("\0"):
        if lines[-1] and len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return lines
