"""Tables on a terminal: plain, harmless, within the width that there is."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from corpusmill.pipeline.report.histogram import number
from corpusmill.pipeline.report.read import Rule
from corpusmill.pipeline.report.safe import safe_line


def table(title: str, *columns: str, wide: int = 0) -> Table:
    """A plain table; columns whose name begins with `>` are numbers. Column `wide` may wrap, the others never."""
    made = Table(title=title or None, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for place, column in enumerate(columns):
        numeric = column.startswith(">")
        made.add_column(column.removeprefix(">"), justify="right" if numeric else "left", overflow="fold", no_wrap=place != wide)
    return made


def show(made: Table, console: Console) -> None:
    """Prints a table under its title: rich would wrap a title at the width of its table."""
    if made.title:
        console.print(Text(safe_line(str(made.title), 300), style="bold"))
        made.title = None
    console.print(made)


def cell(value: Any, limit: int = 200) -> Text:
    """A table cell that holds only harmless text; rich markup in it has no meaning."""
    return Text("" if value is None else safe_line(number(value), limit))


def limit(rule: Rule) -> str:
    """A rule's threshold in a few characters: `< 20`."""
    return safe_line(f"{rule.comparison} {number(rule.threshold)}", 80)


def share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def millions(count: int | None) -> str:
    """A large count in few characters."""
    if count is None:
        return ""
    return f"{count:,}" if count < 10_000_000 else f"{count / 1e6:,.0f} M"
