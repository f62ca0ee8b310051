"""A sweep as a table with bars, as CSV, and as a page with a chart."""

import csv
import io
from dataclasses import asdict, fields

from rich.console import Console
from rich.table import Table

from corpusmill.filters.sweep import Kept, Sweep
from corpusmill.pipeline.errors import InputError

BAR = 12


def show(result: Sweep, console: Console) -> None:
    """The table; the bar is the share of documents that all rules together keep, its dots what this rule alone would."""
    console.print(
        f"{result.rule}: a document fails where {result.column} {result.comparison} threshold; "
        f"{result.documents:,} documents, {result.characters:,} characters"
        + (f"; {result.missing:,} without a value always pass" if result.missing else "")
        + ("." if result.now is not None else "; the rule is off now."),
        markup=False,
    )
    table = Table(box=None, pad_edge=False)
    for title in ("threshold", "alone", "%", "characters", "together", "%", "characters"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("█ all · alone", no_wrap=True)
    for row in result.rows:
        mark = "now ▸ " if row.threshold == result.now else ""
        table.add_row(
            f"{mark}{row.threshold:.12g}",
            f"{row.alone_documents:,}", _percent(row.alone_documents, result.documents), f"{row.alone_characters:,}",
            f"{row.together_documents:,}", _percent(row.together_documents, result.documents), f"{row.together_characters:,}",
            _bar(row, result.documents),
        )  # fmt: skip
    console.print(table)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else "-"


def _bar(row: Kept, documents: int) -> str:
    together, alone = (round(BAR * count / documents) if documents else 0 for count in (row.together_documents, row.alone_documents))
    return "█" * together + "·" * (alone - together)


def as_csv(result: Sweep) -> str:
    """One line a threshold, with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Kept)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in result.rows)
    return text.getvalue()


def write_plot(result: Sweep, path: str) -> None:
    """A page that holds all it needs: shares of documents and characters over the thresholds.

    Raises InputError where it can't be written.
    """
    import plotly.graph_objects as go
    import plotly.io

    figure = go.Figure()
    thresholds = [row.threshold for row in result.rows]
    for title, key, whole in (
        ("documents, this rule alone", "alone_documents", result.documents),
        ("characters, this rule alone", "alone_characters", result.characters),
        ("documents, all rules", "together_documents", result.documents),
        ("characters, all rules", "together_characters", result.characters),
    ):
        shares = [100 * getattr(row, key) / whole if whole else 0 for row in result.rows]
        figure.add_scatter(x=thresholds, y=shares, name=title, mode="lines+markers", hovertemplate="%{y:.2f} %")
    if result.now is not None and thresholds and min(thresholds) <= result.now <= max(thresholds):
        figure.add_vline(x=result.now, line_dash="dash", annotation_text="now")
    figure.update_layout(
        title=f"{result.rule}: fails where {result.column} {result.comparison} threshold", hovermode="x unified", template="plotly_white"
    )
    figure.update_xaxes(title="threshold")
    figure.update_yaxes(title="kept, %", rangemode="tozero")
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(plotly.io.to_html(figure, include_plotlyjs=True, include_mathjax=False, full_html=True))
    except OSError as error:
        raise InputError(f"--plot {path}: can't be written ({error.strerror}).") from error
