"""Numbers as they are shown, and tables on a terminal: plain, harmless, within the width that there is."""

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

#: Columns of a terminal between two of a table, and those that a text needs at least.
GAP, LEAST = 3, 12
#: Values shown of a document in a list of several (`why`, `--columns` and `--json` show others).
VALUES = 6


def table(title: str, *columns: str, wide: int = 0, rows: Iterable[Sequence[Any]] = ()) -> Table:
    """A plain table; columns whose name begins with `>` are numbers. Column `wide` may wrap, the others never. `rows` hold any values."""
    made = Table(title=title or None, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for place, column in enumerate(columns):
        numeric = column.startswith(">")
        made.add_column(column.removeprefix(">"), justify="right" if numeric else "left", overflow="fold", no_wrap=place != wide)
    for row in rows:
        made.add_row(*(value if isinstance(value, Text) else cell(value) for value in row))
    return made


def show(made: Table, console: Console, more: str = "") -> None:
    """Prints a table under its title (rich would wrap one at the width of its table), and what is left out of it as `more`.

    Where numbers would have to be cut, each row becomes lines of `column: value`.
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
    """Prints sentences, each behind a word that says what they are."""
    for sentence in sentences:
        console.print(Text(f"{head}: ", style=style) + Text(safe_line(sentence, limit)))


def _least_width(made: Table) -> int:
    """Columns of a terminal that the table needs when all that may wrap is wrapped."""
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
    """A table cell that holds only harmless text; rich markup in it has no meaning."""
    return Text("" if value is None else safe_line(number(value), limit))


def limit(rule: ReportRule) -> str:
    """A rule's threshold in a few characters: `< 20`."""
    return safe_line(f"{rule.comparison} {number(rule.threshold)}", 80)


def share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def millions(count: int | None) -> str:
    """A large count in few characters."""
    if count is None:
        return ""
    return f"{count:,}" if count < 10_000_000 else f"{count / 1e6:,.0f} M"


def number(value: Any) -> str:
    """A count with separators, a float with four significant digits; the same on every machine. `value` may be numpy's."""
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
