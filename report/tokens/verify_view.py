"""What checking token shards has found, on a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from corpusmill.pipeline.safe import safe_line
from corpusmill.report.facts.histogram import number
from corpusmill.report.tables import cell, show, table
from corpusmill.report.tokens.verify import SplitCheck


def show_checks(checks: Sequence[SplitCheck], console: Console) -> bool:
    """Prints a row a folder and a sentence a fault; returns whether all is as it should be."""
    parent = checks[0].folder.rpartition("/")[0]
    made = table(f"Token shards in {parent}", "folder", ">shards", ">documents", ">tokens", ">texts compared", ">faults")
    for check in checks:
        counts = (check.shards, check.documents, check.tokens, check.compared, len(check.faults))
        made.add_row(cell(check.folder.rpartition("/")[2], 120), *map(number, counts))
    show(made, console)
    for check in checks:
        for sentence in check.faults:
            console.print(Text("Fault: ", style="bold red") + Text(safe_line(sentence, 600)))
        for sentence in check.notes:
            console.print(Text("Note: ", style="yellow") + Text(safe_line(sentence, 600)))
    return not any(check.faults for check in checks)
