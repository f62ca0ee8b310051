"""An evaluation on the terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from corpusmill.pipeline.report.measures import doubts, interval, value
from corpusmill.pipeline.report.safe import safe_line
from corpusmill.pipeline.report.tables import cell, share, show, table

#: Thresholds of the table, beside the classifier's own; the page and `--json` have more.
SHOWN = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
#: Sources of a table.
MOST = 20


def show_evaluation(result: Mapping[str, Any], console: Console) -> None:
    """Prints what `evaluate_files` found: warnings, then for each label its measures by source and length, and its thresholds."""
    head = f"{safe_line(result['classifier'], 60)}: {result['texts']:,} texts"
    if result["left_out"]:
        head += f"; {result['left_out']:,} that it has learned from are left out"
    console.print(Text(head, style="bold"))
    console.print(Text("In brackets: 95% bootstrap intervals.", style="dim"))
    for sentence in warnings(result):
        console.print(Text("Warning: ", style="bold yellow") + Text(safe_line(sentence, 400)))
    for label, found in result["labels"].items():
        console.print()
        console.print(Text(safe_line(f"{label}: yes from {found['threshold']:.4g} on", 100), style="bold"))
        for made in _tables(found):
            show(made, console)
            console.print()


def warnings(result: Mapping[str, Any]) -> list[str]:
    """What a reader should know before any number."""
    seen, sentences = result["in_training"], []
    if seen is None:
        sentences.append("the classifier does not say what it has learned from, so it may have seen these texts before.")
    elif seen["texts"] and not result["left_out"]:
        sources = ", ".join(
            f"{name} {count:,}" for name, count in sorted(seen["by_source"].items(), key=lambda pair: (-pair[1], pair[0]))[:5]
        )
        sentences.append(
            f"{seen['texts']:,} of {seen['of']:,} texts were in the training data ({sources}), so the numbers are too good; --unseen leaves them out."
        )
    if result["not_asked"]:
        sentences.append(f"no text has an answer to {', '.join(result['not_asked'])}.")
    return sentences + [f"{label}: {sentence}" for label, found in result["labels"].items() for sentence in doubts(found)]


def _tables(found: Mapping[str, Any]) -> Iterator[Table]:
    made = table("", "", ">examples", ">yes", ">AUC", ">precision", ">recall", ">F1", ">calibration error")
    every = [("all", found), *_most(found["by_source"]), *((f"{name} characters", part) for name, part in found["by_length"].items())]
    for name, part in every:
        at, error = part["at_threshold"], value(part["calibration_error"])
        numbers = f"{part['examples']:,}", share(part["yes"], part["examples"]), interval(part["roc_auc"])
        made.add_row(cell(name, 40), *numbers, *(value(at[key]) for key in ("precision", "recall", "f1")), error)
    yield made
    about = table("", "average precision", "Brier score", "calibration error (equal mass)", "(equal width)")
    names = ("average_precision", "brier", "calibration_error", "calibration_error_equal_width")
    about.add_row(*(interval(found[name]) for name in names))
    yield about
    rows = [row for row in found["thresholds"] if row["threshold"] in SHOWN]
    chosen = table("", ">threshold", ">precision", ">recall", ">F1", ">answered yes")
    for row in sorted([found["at_threshold"], *rows], key=lambda row: row["threshold"]):
        mark = "own ▸ " if row is found["at_threshold"] else ""
        chosen.add_row(f"{mark}{row['threshold']:.4g}", *(interval(row[key]) for key in ("precision", "recall", "f1")), value(row["kept"]))
    yield chosen


def _most(by_source: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The sources with most examples, by name; none where there is only one."""
    if len(by_source) < 2:
        return []
    names = sorted(by_source, key=lambda name: (-by_source[name]["examples"], name))[:MOST]
    return [(name, by_source[name]) for name in sorted(names)]
