"""`query`: shows the rows of one SELECT over a run's tables, or lists the tables."""

import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.interrupts import exit_code_of
from corpusmill.pipeline.names import counted
from corpusmill.pipeline.safe import safe_line
from corpusmill.report.answers.inspect import TableInfo, show_rows
from corpusmill.report.machine import as_json, print_csv, print_json_lines, warn
from corpusmill.report.queries.ask import plain
from corpusmill.report.query.run import Run
from corpusmill.report.query.sql import remove_spilled

#: Rows of a table on a terminal where no limit is given.
ROWS = 50
BATCH = 4096
#: Seconds that a query gets to end by itself once it was interrupted.
END = 0.5


def show_query(folder: str, query: str, limit: int | None, form: str, console: Console, seconds: float = 0) -> None:
    """Shows the rows of one SELECT, which can read nothing but the run. `form` is `table`, `json` (an object a line) or `csv`.

    `limit` 0 means all rows. Without a limit a table has `ROWS` rows, the other forms all. Raises InputError for a query that fails.
    After `seconds` (0: no limit), and by a signal, the process ends at once, whatever DuckDB does.
    """
    with Run(folder, only_run=True) as run:
        try:
            _answer(run, query, limit, form, console, seconds)
        finally:
            warn(run.reader.warnings)  # also where damage makes the query fail


def _answer(run: Run, query: str, limit: int | None, form: str, console: Console, seconds: float) -> None:
    count = ROWS if limit is None and form == "table" else limit or 0
    held, columns = _held(run, query, count, seconds)
    names = _different(columns)
    rows = _rows(held, names, count)
    if form == "json":
        print_json_lines(rows)
    elif form == "csv":
        print_csv(rows, names)
    else:
        shown = list(rows)
        show_rows(shown, TableInfo("", columns=names), console)
        more = bool(count) and len(held) > count
        if shown:
            console.print(Text(f"The first {count:,} rows; --limit 0 shows all." if more else counted(len(shown), "row"), style="dim"))


def _held(run: Run, query: str, count: int, seconds: float) -> Any:
    """Returns the rows of a query (the first `count` and one more; 0: all), and its columns. All files are read before this returns.

    DuckDB works in a thread, so that a signal is handled at once, whatever it does.
    """
    found: list[Any] = []

    def read() -> tuple[Any, list[str]]:
        answer = run.sql(query)
        return (answer.limit(count + 1) if count else answer).materialize(), answer.columns

    def work() -> None:
        try:
            found.append(run.guarded(read, lambda: query))
        except BaseException as error:  # noqa: BLE001 - raised below
            found.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        thread.join(seconds or None)
        if thread.is_alive():
            raise CorpusmillError(f"query: it has not ended after {seconds:g} seconds (--time-limit).")
    except (KeyboardInterrupt, CorpusmillError) as error:
        run.connection.interrupt()
        thread.join(END)
        code = error.exit_code if isinstance(error, CorpusmillError) else exit_code_of(error)
        print(f"corpusmill: {str(error) or 'interrupted.'}", file=sys.stderr, flush=True)
        remove_spilled()
        os._exit(code)  # an orderly end would abort where threads of DuckDB are still at work
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def show_tables(folder: str, form: str, console: Console) -> None:
    """Shows the tables of a run with the number of rows and the types of columns; of JSON files only the names."""
    with Run(folder, only_run=True) as run:
        _show_tables(run, form, console)


def _show_tables(run: Run, form: str, console: Console) -> None:
    files = [name for name in run.names if name.startswith("json_")]
    tables = [(name, run.table(name)) for name in run.names if name not in files]
    described = [(name, len(table), dict(zip(table.columns, map(str, table.types), strict=True))) for name, table in tables]
    if form == "json":
        print(as_json([*({"table": name, "rows": rows, "columns": columns} for name, rows, columns in described),
                       *({"table": name, "rows": None, "columns": {"content": "JSON"}} for name in files)], indent=2))  # fmt: skip
    elif form == "csv":
        lines = [{"table": name, "rows": rows, "column": column, "type": kind}
                 for name, rows, columns in described for column, kind in columns.items()]  # fmt: skip
        lines += [{"table": name, "rows": None, "column": "content", "type": "JSON"} for name in files]
        print_csv(lines, ["table", "rows", "column", "type"])
    else:
        for name, count, columns in described:
            console.print(Text.assemble((name, "bold"), f"  {counted(count, 'row')}"))
            console.print(Padding(Text(safe_line(", ".join(columns)), style="dim"), (0, 0, 0, 2)))
        console.print(Text("JSON files, each with the column content", style="bold"))
        console.print(Padding(Text(", ".join(files) or "none", style="dim"), (0, 0, 0, 2)))
    warn(run.reader.warnings)


def _rows(held: Any, names: list[str], count: int) -> Iterator[dict[str, Any]]:
    for place, row in enumerate(held.iter_rows(BATCH)):
        if count and place == count:
            return
        yield dict(zip(names, map(plain, row), strict=True))


def _different(names: list[str]) -> list[str]:
    """Returns the columns' names, all different: a repeated name becomes `name_2`."""
    found: list[str] = []
    for name in names:
        number, other = 1, name
        while other in found:
            number += 1
            other = f"{name}_{number}"
        found.append(other)
    return found
