"""Shows the result of `corpusmill classifier evaluate` on the terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from corpusmill.pipeline.safe import safe_line
from corpusmill.report.queries.classifiers import doubts, interval, value
from corpusmill.report.tables import cell, show, show_notes, table

#: Thresholds of the table, besides the classifier's own; `--json` has more.
SHOWN = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
#: Sources in a table.
SHOWN_SOURCES = 20


def show_evaluation(result: Mapping[str, Any], console: Console) -> None:
    """Prints the result of `evaluate_files`: warnings, then for each label its measures by source and length, and its thresholds."""
    head = f"{safe_line(result['classifier'], 60)}: {result['texts']:,} texts"
    if result["left_out"]:
        head += f"; {result['left_out']:,} that it has learned from are left out"
    console.print(Text(head, style="bold"))
    console.print(Text("In brackets: 95% bootstrap intervals.", style="dim"))
    show_notes(warnings(result), console, "Warning", "bold yellow")
    for label, found in result["labels"].items():
        console.print()
        console.print(Text(safe_line(f"{label}: yes from {found['threshold']:.4g} on", 100), style="bold"))
        console.print(_sentence(found))
        console.print()
        for place, made in enumerate(_tables(found)):
            if place:
                console.print()
            show(made, console)


def warnings(result: Mapping[str, Any]) -> list[str]:
    """Returns the warnings to read before the numbers."""
    sentences = []
    if result["left_out"] is None:
        sentences.append("the classifier does not say what it has learned from, so it may have seen these texts before.")
    if result["not_asked"]:
        sentences.append(f"no text has an answer to {', '.join(result['not_asked'])}.")
    return sentences + [f"{label}: {sentence}" for label, found in result["labels"].items() for sentence in doubts(found)]


def _tables(found: Mapping[str, Any]) -> Iterator[Table]:
    made = table("", "", ">texts", ">AUC", ">precision", ">recall", ">F1", ">ECE")
    by_length = [(f"{name} chars", part) for name, part in found["by_length"].items()] if len(found["by_length"]) > 1 else []
    for name, part in [("all", found), *_most(found["by_source"]), *by_length]:
        numbers = (part["at_threshold"][key] for key in ("precision", "recall", "f1"))
        made.add_row(
            cell(name, 40), f"{part['examples']:,}", interval(part["roc_auc"]), *map(value, numbers), value(part["calibration_error"])
        )
    yield made
    rows = [row for row in found["thresholds"] if row["threshold"] in SHOWN]
    chosen = table("", "threshold", ">precision", ">recall", ">F1", ">answered yes")
    for row in sorted([found["at_threshold"], *rows], key=lambda row: row["threshold"]):
        mark = " ◂ own" if row is found["at_threshold"] else ""
        intervals = (interval(row[key]) for key in ("precision", "recall"))
        chosen.add_row(f"{row['threshold']:.4g}{mark}", *intervals, value(row["f1"]), value(row["kept"]))
    yield chosen


def _sentence(found: Mapping[str, Any]) -> str:
    answers = f"{found['yes']:,} yes, {found['no']:,} no" + (f", {found['unknown']:,} without an answer" if found["unknown"] else "")
    return (
        f"{answers}; average precision {interval(found['average_precision'])}, Brier score {interval(found['brier'])}, "
        f"expected calibration error (ECE) {interval(found['calibration_error'])}"
    )


def _most(by_source: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Returns the sources with most examples, by name; none where there is only one."""
    if len(by_source) < 2:
        return []
    names = sorted(by_source, key=lambda name: (-by_source[name]["examples"], name))[:SHOWN_SOURCES]
    return [(name, by_source[name]) for name in sorted(names)]
