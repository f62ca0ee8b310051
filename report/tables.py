"""Formats numbers, and prints tables on a terminal without control characters and within its width."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from corpusmill.pipeline.safe import safe_line
from corpusmill.report.read import ReportRule

#: Spaces between two columns of a table, and the width that a text column needs at least.
GAP, LEAST = 3, 12
#: Values that a list shows for each document; `why`, `--columns` and `--json` show more.
VALUES = 6


def table(title: str, *columns: str, wide: int = 0, rows: Iterable[Sequence[Any]] = ()) -> Table:
    """Makes a plain table. Columns whose name begins with `>` hold numbers. Only the column number `wide` may wrap. `rows` hold any
    values."""
    made = Table(title=title or None, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for place, column in enumerate(columns):
        numeric = column.startswith(">")
        made.add_column(column.removeprefix(">"), justify="right" if numeric else "left", overflow="fold", no_wrap=place != wide)
    for row in rows:
        made.add_row(*(value if isinstance(value, Text) else cell(value) for value in row))
    return made


def show(made: Table, console: Console, more: str = "") -> None:
    """Prints a table below its title (rich would wrap the title to the table's width), then the note `more` about rows left out.

    Where the width is too small for the numbers, prints each row as lines of `column: value`.
    """
    if made.title:
        console.print(Text(safe_line(str(made.title), 300), style="bold"))
        made.title = None
    if _least_width(made) <= console.width:
        console.print(made)
    else:
        _show_lines(made, console)
    if more:
        console.print(Text(more, style="dim"))


def show_notes(sentences: Iterable[str], console: Console, head: str = "Note", style: str = "yellow", limit: int = 400) -> None:
    """Prints sentences, each after the word `head`."""
    for sentence in sentences:
        console.print(Text(f"{head}: ", style=style) + Text(safe_line(sentence, limit)))


def print_indented(text: Text, columns: int, console: Console) -> None:
    """Prints a text with its lines indented, and without the blanks behind them that rich's padding would add."""
    for line in text.wrap(console, max(console.width - columns, 1)):
        line.rstrip()
        console.print(Text(" " * columns) + line, soft_wrap=True)


def _least_width(made: Table) -> int:
    """Returns the width that the table needs when every cell that may wrap is wrapped."""
    least = 0
    for column in made.columns:
        width = max((cell_len(line) for line in _texts([column.header, *column.cells])), default=0)
        wraps = not column.no_wrap and column.justify != "right"
        least += min(width, max(LEAST, column.min_width or 0)) if wraps else width
    return least + GAP * (len(made.columns) - 1)


def _texts(cells: Iterable[Any]) -> Iterator[str]:
    return (line for one in cells for line in (one.plain if isinstance(one, Text) else str(one)).split("\n"))


def _show_lines(made: Table, console: Console) -> None:
    heads = [" ".join(_texts([column.header])).strip().replace("_ ", "_") for column in made.columns]
    for row in zip(*(column.cells for column in made.columns), strict=True):
        for place, (head, one) in enumerate(zip(heads, row, strict=True)):
            value = one if isinstance(one, Text) else Text(str(one))
            if value.plain:
                name = Text("" if place == 0 else f"{head}: ")
                console.print(Padding(name + value, (0, 0, 0, 0 if place == 0 else 2), expand=False))


def cell(value: Any, limit: int = 200) -> Text:
    """Makes a table cell without control characters; rich markup in it has no effect."""
    return Text("" if value is None else safe_line(number(value), limit))


def limit(rule: ReportRule) -> str:
    """Returns a rule's comparison and threshold: `< 20`."""
    return safe_line(f"{rule.comparison} {number(rule.threshold)}", 80)


def share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def millions(count: int | None) -> str:
    """Returns a count, in millions from 10 million on."""
    if count is None:
        return ""
    return f"{count:,}" if count < 10_000_000 else f"{count / 1e6:,.0f} M"


def number(value: Any) -> str:
    """Formats a value: a count with separators, a float with four significant digits; the same on every machine. Accepts numpy's types."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(number(item) for item in value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        if value == round(value) and abs(value) < 1e15:
            return f"{int(value):,}"
        return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    return str(value)
