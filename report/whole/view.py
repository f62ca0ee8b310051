"""What `corpusmill verify` has found, on a terminal."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from corpusmill.pipeline.safe import safe_line
from corpusmill.report.facts.histogram import number
from corpusmill.report.tables import cell, show, table
from corpusmill.report.whole.verify import StageCheck

SHOWN = 100


def show_run(folder: str, checks: Sequence[StageCheck], console: Console) -> bool:
    """Prints a row a stage and a sentence a fault; returns whether all is as it was written."""
    made = table(f"Run {folder}", "stage", ">tasks", ">files", ">MB", ">rows", ">faults")
    for check in checks:
        made.add_row(cell(check.name), *map(number, (check.tasks, check.files, round(check.bytes / 1e6, 1), check.rows, len(check.faults))))
    show(made, console)
    quarantined = [sentence for check in checks for sentence in check.quarantined]
    for sentence in quarantined[:SHOWN]:
        console.print(Text("Given up: ", style="bold red") + Text(safe_line(sentence, 600)))
    for check in checks:
        for sentence in check.notes:
            console.print(Text("Note: ", style="yellow") + Text(safe_line(f"{check.name}: {sentence}", 600)))
    faults = [sentence for check in checks for sentence in check.faults]
    for sentence in faults[:SHOWN]:
        console.print(Text("Fault: ", style="bold red") + Text(safe_line(sentence, 600)))
    if faults[SHOWN:]:
        console.print(f"and {len(faults) - SHOWN:,} more faults")
    if not faults and quarantined:
        console.print(f"Every file is the one that was written, but {len(quarantined):,} tasks were given up: the run is not whole.")
    elif not faults:
        console.print("Every file is the one that was written, and every document that came in is accounted for.")
    return not faults


def as_json(checks: Sequence[StageCheck]) -> dict[str, Any]:
    """All of it for a program."""
    return {"good": not any(check.faults or check.quarantined for check in checks), "stages": [vars(check) for check in checks]}
