"""Sampled documents on a terminal: each with its decision, its values and the beginning of its text."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from corpusmill.pipeline.safe import safe_line, safe_text
from corpusmill.report.answers.why_change import distance, passing
from corpusmill.report.decide_again import RETUNE
from corpusmill.report.facts.histogram import number
from corpusmill.report.read import Rule
from corpusmill.report.tables import VALUES, limit

if TYPE_CHECKING:
    from corpusmill.report.answers.sample import Samples

STEP = 4


def show_samples(found: Samples, console: Console) -> None:
    """The documents one after the other, how many there are in all, and the commands that show one more closely."""
    near = [rule for rule in found.rules if found.draw.near and rule.rule in found.choice.rules][:1]
    for name, phrase in found.meanings.items():
        console.print(Text(f"{safe_line(name, 80)}: {safe_line(phrase, 300)}"))
    for place, row in enumerate(found.rows, 1):
        show_document(place, row, found.rules, [*near], found.draw.chars, console)
    if not found.rows:
        console.print(f"{found.stage}: no such documents.")
    for sentence in _notes(found):
        console.print(Text("Note: ", style="yellow") + Text(safe_line(sentence, 400)))
    if found.rows:
        _show_rest(found, near, console)


def show_document(place: int, row: dict[str, Any], rules: list[Rule], near: list[Rule], chars: int, console: Console) -> None:
    """One document: URL and id, the decision, the values that failed (and those of `near`), the text's beginning."""
    failed = row.get("failed") or []
    console.print(Text(f"{place}. {safe_line(row.get('url') or '(no URL)', 400)}", style="bold"))
    facts = [f"id {safe_line(row['id'], 40)}", f"{number(row.get('chars_in') or 0)} characters"]
    facts += [safe_line(str(row["language"]), 40)] if row.get("language") else []
    _line(Text(", ".join(facts), style="dim"), console)
    _line(Text("kept", style="green") if row.get("kept") else Text(f"dropped: {safe_line(', '.join(failed), 400)}", style="red"), console)
    if row.get("kept_id") and row["kept_id"] != row["id"]:
        like = f", similarity {number(row['similarity'])}" if row.get("similarity") is not None else ""
        _line(Text(f"a copy of {safe_line(row['kept_id'], 40)}{like}"), console)
    if row.get("reason"):
        _line(Text(safe_line(str(row["reason"]), 400)), console)
    looked = [rule for rule in rules if (rule.rule in failed or rule in near) and row.get(rule.column) is not None]
    for rule in list(dict.fromkeys((r.column, r.comparison, str(r.threshold)) for r in looked))[:VALUES]:
        one = next(r for r in looked if (r.column, r.comparison, str(r.threshold)) == rule)
        _line(_value(one, row[one.column], one.rule in failed), console)
    if row.get("text"):
        console.print(Padding(Text(safe_text(row["text"], chars)), (0, 0, 0, STEP), expand=False))
    else:
        _line(Text("(no text: nothing that was read of it is kept)", style="dim"), console)
    console.print()


def _value(rule: Rule, value: Any, failed: bool) -> Text:
    far = distance(rule, value)
    by = "" if far is None else f", {'fails' if failed else 'passes'} by {number(far)}"
    return Text(f"{safe_line(rule.column, 60)} = {safe_line(number(value), 60)} (fails if {limit(rule)}{by})")


def _line(text: Text, console: Console) -> None:
    console.print(Padding(text, (0, 0, 0, STEP), expand=False))


def _notes(found: Samples) -> list[str]:
    notes = list(found.notes)
    if found.choice.kept and found.choice.rules and not found.draw.near:
        notes.append("a document that fails a rule is dropped; with --near, --kept shows those that the rule just lets pass.")
    return notes


def _show_rest(found: Samples, near: list[Rule], console: Console) -> None:
    root = shlex.quote(safe_line(found.run, 300))
    how = f"nearest to {limit(near[0])}" if near else f"drawn with seed {found.draw.seed} (--seed {found.draw.seed + 1} draws others)"
    texts = f" Texts as the stage {found.texts_of} wrote them." if found.texts_of else ""
    console.print(Text(f"{len(found.rows):,} of {found.total:,} such documents of {found.stage}, {how}.{texts}"))
    one = safe_line(found.rows[0]["id"], 40)
    console.print(Text(f"All about one: corpusmill why {root} {one}", style="dim"), soft_wrap=True)
    console.print(Text(f"Its whole page: corpusmill raw {root} {one} --body", style="dim"), soft_wrap=True)
    rule = next((r for r in found.rules if r.rule in found.choice.rules and distance(r, 0.0) is not None), None)
    if rule is None or found.stage != "filter":
        return
    name = shlex.quote(safe_line(rule.rule, 80))
    dropped = [row[rule.column] for row in found.rows if rule.rule in (row.get("failed") or [])]
    if not near:
        console.print(Text(f"Near its threshold: corpusmill sample {root} --rule {name} --near", style="dim"), soft_wrap=True)
    elif dropped:
        other = passing(rule, (min if rule.comparison in ("<", "<=") else max)(dropped))
        tried = " --dry-run" if found.command == RETUNE else " --redo"
        command = f"corpusmill {found.command} {root} --set filter.thresholds.{name}={other}{tried}"
        console.print(Text(f"A threshold that lets those dropped here pass: {command}", style="dim"), soft_wrap=True)
