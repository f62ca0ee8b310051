"""`corpusmill stats` on a terminal of 80 columns, and for other programs."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from corpusmill.pipeline.safe import safe_line
from corpusmill.report.answers.stats import QUANTILES, Column, Group, Spread, read_columns, read_groups
from corpusmill.report.facts.histogram import number
from corpusmill.report.host import NONE
from corpusmill.report.machine import as_json, print_csv, warn
from corpusmill.report.query.run import Run
from corpusmill.report.tables import cell, limit, millions, share, show, table

#: Groups in a table; the others are added up in its last row.
SHOWN = 30
#: Characters of a number.
WIDEST = 13
OTHERS = "(all others)"


def show_stats(folder: str, stage: str | None, columns: Sequence[str], by: str | None, form: str, console: Console) -> None:
    """Statistics of a stage's measured columns, or sums by a property. `form` is `table`, `json` or `csv`."""
    with Run(folder) as run:
        if by is None:
            stage, measured = read_columns(run, stage, columns)
            _show_columns(stage, measured, form, console)
        else:
            stage, groups = read_groups(run, stage, by)
            _show_groups(stage, by, groups, form, console)
        notes = [*run.reader.warnings, *([f"{stage} is not finished."] if run.reader.stages[stage].status == "unfinished" else [])]
    if form != "table":
        warn(notes)
    else:
        for sentence in notes:
            console.print(Text("Note: ", style="yellow") + Text(safe_line(sentence, 400)))


def _show_columns(stage: str, columns: list[Column], form: str, console: Console) -> None:
    if form == "json":
        print(as_json({"stage": stage, "columns": [_column_json(column) for column in columns]}, indent=2))
    elif form == "csv":
        rows = [{"column": c.name, "decision": name, **_named(spread)}
                for c in columns for name, spread in (("kept", c.kept), ("dropped", c.dropped))]  # fmt: skip
        print_csv(rows, ["column", "decision", *_named(Spread())])
    elif not columns:
        console.print(f"{stage}: its report has no measured columns.")
    else:
        for column in columns:
            _show_column(column, console)


def _show_column(column: Column, console: Console) -> None:
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
    """A name or number in as many characters as four columns of numbers leave; none of its digits is cut off at the end."""
    text = "" if value is None else value if isinstance(value, str) else number(value)
    return text if len(text) <= WIDEST else f"{value:.4g}"


def _halves(named: list[list[tuple[str, Any]]]) -> tuple[list[list[tuple[str, Any]]], list[list[tuple[str, Any]]]]:
    """What stands on the left, and the quantiles on the right."""
    return [values[: -len(QUANTILES)] for values in named], [values[-len(QUANTILES) :] for values in named]


def _fails(column: Column) -> Text:
    return Text("fails if " + ", or ".join(f"{limit(rule)} ({safe_line(rule.rule, 80)})" for rule in column.rules), style="dim")


def _named(spread: Spread) -> dict[str, Any]:
    """The figures by name, quantiles last: `1%`, ..., `99%`."""
    figures = {"count": spread.count, "missing": spread.missing, "mean": spread.mean, "deviation": spread.deviation,
               "min": spread.minimum, "max": spread.maximum}  # fmt: skip
    return {**figures, **{f"{share:.0%}": value for share, value in zip(QUANTILES, spread.quantiles, strict=True)}}


def _column_json(column: Column) -> dict[str, Any]:
    rules = [{"rule": r.rule, "step": r.step, "comparison": r.comparison, "threshold": r.threshold} for r in column.rules]
    return {"column": column.name, "rules": rules, "kept": _named(column.kept), "dropped": _named(column.dropped)}


def _show_groups(stage: str, by: str, groups: list[Group], form: str, console: Console) -> None:
    rows = [_group_json(group, by) for group in groups]
    if form == "json":
        print(as_json({"stage": stage, "by": by, "groups": rows}, indent=2))
    elif form == "csv":
        print_csv(rows, list(_group_json(Group("", 0, 0, 0, 0, 0, 0), by)))
    else:
        _group_table(stage, by, groups, console)


def _group_json(group: Group, by: str) -> dict[str, Any]:
    figures: dict[str, Any] = {by: group.value, "documents": group.documents}
    if by == "rule":
        return {**figures, "alone": group.alone, "characters_in": group.characters_in}
    characters = {"characters_in": group.characters_in, "characters_out": group.characters_out}
    return {**figures, "kept": group.kept, **characters, "tokens": group.tokens}


def _group_table(stage: str, by: str, groups: list[Group], console: Console) -> None:
    if by == "rule":
        made = table(f"{stage}: documents that fail, by rule", "rule", ">documents", ">alone", ">characters in")
        for group in groups:
            made.add_row(cell(group.value), f"{group.documents:,}", f"{group.alone:,}", millions(group.characters_in))
    else:
        has_tokens = any(group.tokens is not None for group in groups)
        heads = [">documents", ">kept", ">share", ">characters in", ">out", *([">tokens"] if has_tokens else [])]
        made = table(f"{stage}: documents by {by}", by, *heads)
        folder = _folder([group.value for group in groups if group.value]) if by == "source" else ""
        for group in _summed_up(groups):
            name = Text(NONE, style="dim") if group.value is None else cell(group.value.removeprefix(folder))
            figures = [f"{group.documents:,}", f"{group.kept:,}", share(group.kept, group.documents),
                       millions(group.characters_in), millions(group.characters_out)]  # fmt: skip
            made.add_row(name, *figures, *([millions(group.tokens)] if has_tokens else []))
    made.columns[0].no_wrap = False
    show(made, console)


def _folder(paths: list[str]) -> str:
    """The folder in which all of them lie, with its slash; empty where they lie in several."""
    folders = {path.rpartition("/")[0] for path in paths}
    return f"{folders.pop()}/" if len(folders) == 1 else ""


def _summed_up(groups: list[Group]) -> Iterator[Group]:
    yield from groups[:SHOWN]
    rest = groups[SHOWN:]
    if rest:
        tokens = sum(g.tokens or 0 for g in rest) if any(g.tokens is not None for g in rest) else None
        kept, before, after = (sum(getattr(group, name) for group in rest) for name in ("kept", "characters_in", "characters_out"))
        yield Group(OTHERS, sum(group.documents for group in rest), kept, before, after, tokens)
