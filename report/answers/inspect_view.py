"""Rows on a terminal: in a table where they fit, else one below the other. Numbers are never cut."""

from dataclasses import dataclass, field
from typing import Any, Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.schemas import REPORT
from corpusmill.report.facts.histogram import number
from corpusmill.report.read import Rule
from corpusmill.report.tables import VALUES, limit, show, table

#: Columns that say where a record lies or why in words: no values.
NO_VALUES = {"source", "offset", "length", "reason"}
#: Columns of a terminal from which document and decision stand side by side.
SIDE_BY_SIDE = 72
#: Characters of a text in a table of chosen columns, at most (on wide terminals a line).
MOST_TEXT = 120
Row = dict[str, Any]


@dataclass
class Shown:
    """What is shown beside rows: `total` (None: not counted) is how many there are, `columns` those chosen, `asked` those of conditions."""

    title: str
    rules: list[Rule] = field(default_factory=list)
    run: str | None = None
    total: int | None = None
    offset: int = 0
    columns: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def show_rows(rows: list[Row], about: Shown, console: Console) -> None:
    """A report's rows with the decision and the values behind it, chosen columns as a table, any other row as names and values."""
    if not rows:
        console.print("No such rows." if not about.total else f"No such rows: there are {about.total:,}, and --offset is {about.offset:,}.")
    elif about.columns:
        show_grid(rows, about, console)
    elif set(REPORT.names) <= set(rows[0]):
        _show_decisions(rows, about, console)
    else:
        _show_values(rows, about, console)
    for sentence in about.notes:
        console.print(Text("Note: ", style="yellow") + Text(safe_line(sentence, 400)))
    if rows:
        _show_rest(len(rows), about, console)


def _show_rest(count: int, about: Shown, console: Console) -> None:
    end = about.offset + count
    if about.total is not None:
        more = f" --offset {end} shows more." if end < about.total else ""
        console.print(Text(f"Rows {about.offset + 1:,} to {end:,} of {about.total:,}.{more}", style="dim"))
    if about.run is not None:
        console.print(Text(f"All about one: corpusmill why {safe_line(about.run, 200)} ID", style="dim"), soft_wrap=True)


def _show_decisions(rows: list[Row], about: Shown, console: Console) -> None:
    beside = console.width >= SIDE_BY_SIDE
    made = table(about.title, "document", *(["decision"] if beside else []))
    for row in rows:
        document = Text(f"{safe_line(row['url'] or '(no URL)', 120)}\n{safe_line(row['id'], 40)}")
        decision = _decision(row, about)
        if beside:
            made.add_row(document, decision)
        else:
            made.add_row(Text("\n").join([document, decision]))
    if beside:
        made.columns[0].min_width = 32
    _wrapped(made, console)


def _show_values(rows: list[Row], about: Shown, console: Console) -> None:
    made = table(about.title, "row", "values")
    for place, row in enumerate(rows, about.offset):
        pairs = [f"{safe_line(name, 80)}: {safe_line(number(value), 240)}" for name, value in row.items() if value is not None]
        made.add_row(str(place), Text("\n".join(pairs)))
    _wrapped(made, console)


def _wrapped(made: Table, console: Console) -> None:
    for column in made.columns:
        column.no_wrap = False
    made.show_lines = True
    show(made, console)


def _decision(row: Row, about: Shown) -> Text:
    """Kept, or dropped by which rules; then why in words, and the values that failed, or the first ones, with their thresholds."""
    failed = row["failed"] or []
    broken = [rule.column for rule in about.rules if rule.rule in failed]
    others = [name for name in row if name not in {*REPORT.names, *NO_VALUES} or name == "chars_in"]
    values = [name for name in dict.fromkeys([*about.asked, *(broken or others)]) if row.get(name) is not None]
    text = Text("kept", style="green") if row["kept"] else Text(f"dropped: {safe_line(', '.join(failed), 400)}", style="red")
    if row.get("reason"):
        text.append(f"\n{safe_line(row['reason'], 200)}")
    for name in values[:VALUES]:
        limits = "; ".join(limit(rule) for rule in about.rules if rule.column == name and rule.rule in failed)
        value = f"{safe_line(name, 60)} = {safe_line(number(row[name]), 60)}" + (f", fails if {limits}" if limits else "")
        text.append(f"\n{value}", style="dim not green not red")
    return text


def show_grid(rows: list[Row], about: Shown, console: Console) -> None:
    """One column for each of `about.columns`; where they are too many for the width, a row's values one below the other."""
    made = table(about.title)
    for name in about.columns:
        cells = [_cell(row.get(name), console.width) for row in rows]
        is_number = all(_is_number(row.get(name)) for row in rows)
        head = _folded(name, max(12, *map(cell_len, cells)))
        whole = is_number or name == "id" or name.endswith("_id")  # an id is there to be copied
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
    """A column's name on as many lines as it needs, cut behind underscores where that is possible."""
    lines = [""]
    for part in safe_line(name, 120).replace("_", "_\0").split("\0"):
        if lines[-1] and len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return lines
