"""A document's story, and a list of documents that hold a passage, on a terminal."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from corpusmill.pipeline.safe import safe_line, safe_text
from corpusmill.report.answers.why_change import Change, distance, room
from corpusmill.report.answers.why_find import Holder, Passages
from corpusmill.report.facts.histogram import number
from corpusmill.report.read import Rule
from corpusmill.report.tables import cell, limit, table

if TYPE_CHECKING:
    from corpusmill.report.answers.why import Story, Told

TEXT = 400
#: Columns of a terminal that a table of values with all its columns needs.
WIDE = 96


def show_passages(run: str, passages: Passages, listed: int, console: Console) -> None:
    """A numbered list of the documents that hold a passage; of one alone the place in its text."""
    holders = passages.holders or []
    documents = "1 document holds" if passages.count == 1 else f"{passages.count:,} documents hold"
    said = (
        f"{documents} this text as the stage {passages.stage} wrote it:"
        if passages.stage
        else f"{passages.count:,} documents have this URL:"
    )
    console.print(Text(said, style="bold"))
    for place, holder in enumerate(holders, 1):
        head = f"{place:>2}. {safe_line(holder.url or '(no URL)', 300)}"
        console.print(Text(head))
        console.print(_indented(Text(f"id {safe_line(holder.id, 40)}, {safe_line(holder.outcome, 300)}", style="dim"), 4))
        if holder.passage:
            console.print(_indented(_snippet(holder), 4))
    if passages.count > listed:
        longer = " (a longer passage finds fewer)" if passages.stage else ""
        console.print(Text(f"and {passages.count - listed:,} more{longer}.", style="dim"))
    if passages.count > 1:
        console.print(Text(f"Why one of them: corpusmill why {shlex.quote(safe_line(run, 300))} ID", style="dim"), soft_wrap=True)
    else:
        console.print()


def _indented(shown: Text | Table, columns: int) -> Padding:
    return Padding(shown, (0, 0, 0, columns), expand=False)


def _snippet(holder: Holder) -> Text:
    before, passage, after = (safe_line(f"|{part}|", 240)[1:-1] for part in (holder.before, holder.passage, holder.after))
    return Text(before) + Text(f"⟦{passage}⟧", style="bold reverse") + Text(after)


def show_story(run: str, stories: list[Story], notes: list[str], console: Console) -> None:
    """Each document stage by stage, then the notes."""
    for story in stories:
        _explain(run, story, console)
    for sentence in notes:
        console.print(Text("Note: ", style="yellow") + Text(safe_line(sentence, 500)))


def _explain(run: str, story: Story, console: Console) -> None:
    console.print(Text(safe_line(story.url or "(no URL)", 400), style="bold"))
    console.print(Text(f"id {safe_line(story.id, 40)}", style="dim"))
    for told in story.told:
        same = [other for other in story.told if other.stage == told.stage]
        console.print()
        _tell(told, f", record {same.index(told) + 1} of {len(same)}" if len(same) > 1 else "", console)
    if story.text:
        console.print()
        console.print(Text("The text begins:", style="bold"))
        console.print(Text(safe_text(story.text, TEXT)))
        root = shlex.quote(safe_line(run, 300))
        console.print(Text(f"All of it: corpusmill raw {root} {safe_line(story.id, 40)} --text", style="dim"), soft_wrap=True)
    console.print()


def _tell(told: Told, which: str, console: Console) -> None:
    row = told.row
    kept = bool(row.get("kept"))
    head = Text(f"{told.stage}{which}: ", style="bold") + Text("kept" if kept else "dropped", style="green" if kept else "red")
    head.append(f"  {number(row.get('chars_in') or 0)} characters in, {number(row.get('chars_out') or 0)} out", style="dim")
    console.print(head)
    for name in row.get("failed") or []:
        console.print(_indented(Text(f"failed {safe_line(name, 80)}{_reason(name, told)}", style="red"), 2))
        if name in told.meanings:
            console.print(_indented(Text(safe_line(told.meanings[name], 300)), 4))
    for line in told.facts:
        console.print(_indented(Text(line), 2))
    if told.change is not None:
        _show_change(told.change, console)
    for line in told.commands:
        console.print(Text(f"  {line}", style="dim"), soft_wrap=True)
    if told.values:
        _print_values(told, console)


def _reason(name: str, told: Told) -> str:
    broken = [(rule, value) for value, rules in told.values.values() for rule in rules if rule.rule == name]
    parts = [
        f"{safe_line(rule.column, 60)} is {safe_line(number(value), 60)}, and fails if {limit(rule)}{_by(rule, value)}"
        for rule, value in broken
    ]
    return f": {'; '.join(parts)}" if parts else ""


def _by(rule: Rule, value: object) -> str:
    far = distance(rule, value)
    return "" if far is None else f" (by {number(far)})"


def _show_change(change: Change, console: Console) -> None:
    """What would keep the document: a command to be copied, and how much else comes back with it."""
    if change.command:
        console.print(Text("  to keep it: ") + Text(safe_line(change.command, 4000), style="cyan"), soft_wrap=True)
    if change.others is not None:
        others = {0: "no other document of this run", 1: "1 more document"}.get(change.others, f"{change.others:,} more documents")
        console.print(_indented(Text(f"which brings back {others}, too; with --dry-run it says so and changes nothing", style="dim"), 4))
    for key, value in change.settings.items() if not change.command else ():
        console.print(_indented(Text(f"to keep it: {safe_line(key, 120)}: {safe_line(str(value), 200)}"), 2))
    for sentence in change.sentences:
        console.print(_indented(Text(f"to keep it: {safe_line(sentence, 500)}"), 2))


def _print_values(told: Told, console: Console) -> None:
    """The measured values, with the rules that look at them where there are any, and how near they are to failing."""
    decided = any(rules for _, rules in told.values.values())
    wide = console.width >= WIDE
    made = table("", "value", ">measured", *(["fails if"] if decided else []), *(["room"] if decided and wide else []))
    failed = told.row.get("failed") or []
    for name, (value, rules) in told.values.items():
        limits = "\n".join(f"{limit(rule)} ({safe_line(rule.rule, 60)})" for rule in rules)
        rooms = "\n".join(_room(rule, value, rule.rule in failed) for rule in rules)
        line = [cell(name, 40), cell(value, 40), Text(limits), Text(rooms)][: len(made.columns)]
        made.add_row(*line, style="red" if any(rule.rule in failed for rule in rules) else None)
    if decided:
        made.columns[2].no_wrap = False
    console.print(_indented(made, 2))


def _room(rule: Rule, value: object, failed: bool) -> str:
    return room(rule, value, failed) or ("fails" if failed else "passes")
