"""Documents that hold a text, on a terminal."""

import json

from rich.console import Console
from rich.text import Text

from corpusmill.pipeline.safe import safe_line
from corpusmill.report.tokens.find import Findings, Found


def show_findings(run: str, findings: Findings, as_json: bool, console: Console) -> None:
    """Prints one JSON object, or a block a document with the command that traces the token."""
    if as_json:
        print(json.dumps(findings.as_json(run), indent=2, default=str))
        return
    outside = f", {findings.outside:,} of them in no shard" if findings.outside else ""
    console.print(f"Documents that hold this text: {findings.documents:,}{outside}. Occurrences: {findings.occurrences:,}.")
    for one in findings.found:
        console.print()
        _show(run, one, console)
    if findings.documents > len(findings.found):
        console.print(f"\nNot shown: {findings.documents - len(findings.found):,} (--limit shows more).")
    for sentence in findings.notes:
        console.print(Text("Note: ", style="yellow") + Text(safe_line(sentence, 400)))


def _show(run: str, one: Found, console: Console) -> None:
    document = one.document
    before, inside, after = (safe_line(f"|{part}|", 1000)[1:-1] for part in (one.snippet.before, one.snippet.characters, one.snippet.after))
    console.print(Text(safe_line(document["url"] or "(no URL)", 400), style="bold"))
    console.print(Text(before) + Text(f"⟦{inside}⟧", style="bold reverse") + Text(after))
    again = f", {one.occurrences:,} times" if one.occurrences > 1 else ""
    source = safe_line(f"{document['source']}, offset {document['offset']}", 400)
    console.print(Text(f"  id {safe_line(document['id'], 80)}; from {source}", style="dim"))
    console.print(Text(f"  {safe_line(document['data_file'], 200)}, row {document['data_row']}, byte {one.byte:,}{again}", style="dim"))
    if not one.places:
        console.print(Text("  in no shard", style="yellow"))
    for place in one.places:
        copy = f" (copy {place.copy + 1})" if place.copy else ""
        console.print(Text(f"  {place.split}, shard {place.shard}: tokens {place.first:,} to {place.first + place.tokens - 1:,}{copy}"))
        if place.token is not None:
            console.print(Text(f"    {place.command(run)}", style="cyan"))
