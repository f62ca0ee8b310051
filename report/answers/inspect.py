"""`inspect`: shows rows of a run's reports, or of any one shard, as a table, as JSON lines, or as CSV."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import duckdb
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.names import instead_of, not_a_run
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
    property_values,
    report_rows,
    shown,
)
from corpusmill.report.machine import print_csv, print_json_lines, warn
from corpusmill.report.query.run import Run, open_run
from corpusmill.report.query.sql import allow_store
from corpusmill.report.read import ReportRule
from corpusmill.report.tables import limit, number, show, show_notes, table

TOKENS_A_ROW = 16
TOKENIZER = "tokenizer/tokenizer.json"
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
    """Which rows to show, and how. Empty `columns` means all columns, `limit` 0 all rows; `form` is `table`, `json` or `csv`."""

    choice: Choice = field(default_factory=Choice)
    columns: tuple[str, ...] = ()
    order: str | None = None
    descending: bool = False
    limit: int = 20
    offset: int = 0
    form: str = "table"


def inspect(target: str, stage: str | None, wanted: RowOptions, console: Console) -> None:
    """Shows rows of a run's report (of `stage`, else of the stage that has the first rule, else of the filter), or of one file.

    Raises InputError for a file, stage or column that does not exist.
    """
    path, remote, there = Path(target), is_remote(target), os.path.exists(target)
    if not (target.lower().endswith(".parquet") if remote else there and path.is_file()):
        if not remote and not there:
            raise InputError(not_a_run(target, "file or run"))
        _inspect_run(target, stage, wanted, console)
        return
    if stage is not None:
        raise InputError(f"{target}: --stage is for a run's folder, and this is one file.")
    if not remote and path.name.lower().endswith((".bin", ".jsonl", ".json", ".ndjson")):
        _inspect_plain(path, wanted, console)
    else:
        _inspect_parquet(target if remote else str(path), wanted, console)


def _inspect_run(target: str, stage: str | None, wanted: RowOptions, console: Console) -> None:
    with open_run(target) as run:
        name, rows = report_rows(run, stage, wanted.choice.rules)
        check_rules(run, name, wanted.choice.rules)
        choose(rows, wanted.choice, run)
        notes = [f"{rule}: {phrase}" for rule, phrase in asked_meanings(run, name, wanted.choice).items()]
        notes += _damage(run, target, name)
        _show(rows, wanted, TableInfo(f"{name}: report", run.rules(name), target, notes=notes), console)
        if wanted.form != "table":
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
    needed = {"kept": wanted.choice.kept is not None, "failed": bool(wanted.choice.rules or wanted.choice.alone),
              "url": bool(wanted.choice.url or wanted.choice.host)}  # fmt: skip
    for column, is_needed in needed.items():
        if is_needed and column not in rows.columns:
            options = ", ".join(wanted.choice.options())
            raise InputError(f"{path}: no column {column!r}, so {options} has no meaning here.")
    choose(rows, wanted.choice)
    _show(rows, wanted, TableInfo(path), console)


def _inspect_plain(path: Path, wanted: RowOptions, console: Console) -> None:
    """Shows a file that is read from its beginning: JSON lines, or tokens."""
    given = [*wanted.choice.options(), *(["--order"] if wanted.order else [])]
    if given:
        raise InputError(f"{path}: {', '.join(given)} has no meaning here: that is for reports and other Parquet files.")
    rows = _token_rows(path) if path.name.lower().endswith(".bin") else _json_rows(path)
    end = wanted.offset + wanted.limit if wanted.limit else None
    rows = islice(rows, wanted.offset, end)
    if wanted.columns:
        rows = ({name: row.get(name) for name in wanted.columns} for row in rows)
    if wanted.form == "csv":
        found = list(rows)
        names = list(wanted.columns) or list(dict.fromkeys(name for row in found for name in row))
        print_csv(found, names)
    else:
        _print(rows, list(wanted.columns), wanted, TableInfo(str(path)), console)


def _show(rows: TableRows, wanted: RowOptions, about: TableInfo, console: Console) -> None:
    for column in wanted.columns:
        rows.column(column)
    columns = list(wanted.columns) or list(rows.columns)
    found = rows.read(columns, rows.order(wanted.order, wanted.descending), wanted.limit, wanted.offset)
    if wanted.form == "table":
        about.total = rows.count()
        if not about.total:
            about.notes += _nothing(rows, wanted.choice)
        about.asked = list(dict.fromkeys([*wanted.choice.least, *wanted.choice.most, *([wanted.order] if wanted.order else [])]))
    _print(found, columns, wanted, about, console)


def _print(rows: Iterator[Row], columns: Sequence[str], wanted: RowOptions, about: TableInfo, console: Console) -> None:
    if wanted.form == "json":
        print_json_lines(rows)
    elif wanted.form == "csv":
        print_csv(rows, columns)
    else:
        about.offset = wanted.offset
        about.columns = list(wanted.columns)
        show_rows(list(rows), about, console)


def _nothing(rows: TableRows, choice: Choice) -> Iterator[str]:
    """Explains an empty result: names a language, crawl file or host that no row has, and the existing ones."""
    for name in ("language", "source", "host"):
        value = getattr(choice, name)
        values = property_values(rows, name) if value is not None else []
        if values and value not in values:
            yield f"no document has the {name} {shown(value)}{instead_of(value, values)}."
    if choice.kept and choice.rules:
        yield "a document that fails a rule is dropped; corpusmill sample RUN --rule RULE --near --kept shows those that it just let pass."


def _json_rows(path: Path) -> Iterator[Row]:
    with open(path, "rb") as file:
        for place, line in enumerate(file, 1):
            if line.strip():
                try:
                    row = parse_json(line)
                except ValueError as error:
                    raise InputError(f"{path}:{place}: not a line of JSON ({error}).") from error
                yield row if isinstance(row, dict) else {"value": row}


def _token_rows(path: Path) -> Iterator[Row]:
    """Yields the tokens of a shard, several in a row, with their text where the run's tokenizer is present."""
    from corpusmill.pipeline.token_bytes import TokenBytes
    from corpusmill.pipeline.token_shards import TokenShards

    shards = TokenShards(path.parent)
    names = [shard.file for shard in shards.shards]
    if path.name not in names:
        raise InputError(f"{path}: shards.json beside it does not name this file.")
    tokens = shards.tokens(names.index(path.name))
    run = Storage(str(path.parent.parent.parent))
    names_of = TokenBytes.read(run, TOKENIZER) if run.exists(TOKENIZER) else None
    for first in range(0, len(tokens), TOKENS_A_ROW):
        ids = tokens[first : first + TOKENS_A_ROW]
        yield {"first": first, "tokens": " ".join(map(str, ids.tolist())), "text": names_of.text(ids) if names_of else ""}


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
        console.print(Text(f"All about one: corpusmill why {safe_line(about.run, 200)} URL-OR-ID", style="dim"), soft_wrap=True)


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
    failed = [rule for name in row["failed"] or [] for rule in [_failure(name, row, about)]]
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
