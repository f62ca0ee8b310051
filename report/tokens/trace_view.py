"""A traced token on a terminal."""

import json

from rich.console import Console
from rich.text import Text

from corpusmill.pipeline.safe import quoted, safe_line
from corpusmill.report.answers.why import TOLD
from corpusmill.report.tables import cell, limit, show, table
from corpusmill.report.tokens.trace import Traced


def show_trace(traced: Traced, as_json: bool, console: Console) -> None:
    """Prints one JSON object (ASCII: escapes keep control characters harmless), or the text and two tables."""
    if as_json:
        print(json.dumps(traced.as_json(), indent=2, default=str))
        return
    if traced.batch:
        batch = traced.batch
        console.print(Text(f"Step {batch['step']:,}, row {batch['row']:,}, position {batch['position']:,} of the context:", style="bold"))
    console.print(Text(f"Token {traced.token:,} of shard {traced.shard} ({traced.split}): ", style="bold"), _marked(traced), sep="")
    made = table("", "what", "where")
    for name, value in _facts(traced).items():
        made.add_row(name, cell(value, 400))
    made.columns[1].no_wrap = False
    console.print(made)
    _print_values(traced, console)
    for sentence in traced.notes:
        console.print(Text("Note: ", style="yellow") + Text(safe_line(sentence, 400)))


def _marked(traced: Traced) -> Text:
    """The text around the token on one line, the characters that it is (a part) of between ⟦ and ⟧."""
    found = traced.around
    if found is None:
        return Text(f"id {traced.id}")
    inside = traced.special or found.characters
    before, inside, after = (safe_line(f"|{part}|", 2000)[1:-1] for part in (found.before, inside, found.after))
    return Text(before) + Text(f"⟦{inside}⟧", style="bold reverse") + Text(after)


def _facts(traced: Traced) -> dict[str, str]:
    address, found = traced.document, traced.around
    record = f"{address.source or '(not known)'}" + (f", offset {address.offset}" if address.offset is not None else "")
    facts = {}
    if traced.batch:
        facts["order"] = ", ".join(
            f"{name.replace('_', ' ')} {value:,}" for name, value in traced.batch.items() if name not in ("step", "row", "position")
        )
    facts["token"] = f"id {traced.id}"
    if traced.special:
        facts["token"] += f", {traced.special}"
    elif found is not None:
        part = "a part of " if found.partial else ""
        facts["token"] += f", bytes {found.raw.hex(' ')}: {part}{quoted(found.characters, 120)}"
    facts["place"] = f"number {traced.token - address.first:,} of the document's {address.tokens:,} tokens" + (
        "" if found is None else f", byte {found.first:,} of {address.text_begin + address.utf8_bytes:,}"
    )
    repeated = f", copy {address.copy + 1} of it in the mixture" if address.copy else ""
    return facts | {
        "document": address.id + repeated,
        "URL": address.url or "(none)",
        "crawl file": record + (f", length {address.length}" if address.length is not None else ""),
        "text": f"{address.data_file}, row {address.data_row}",
    }


def _print_values(traced: Traced, console: Console) -> None:
    """What each stage measured of the document."""
    made = table("What was measured", "stage", "value", ">measured", "fails if")
    for stage, row in traced.values.items():
        rules = traced.rules[stage]
        for name, value in row.items():
            if name not in TOLD and value is not None:
                limits = "; ".join(limit(rule) for rule in rules if rule.column == name)
                made.add_row(stage, cell(name, 40), cell(value, 40), cell(limits, 100))
    if made.row_count:
        console.print()
        show(made, console)
