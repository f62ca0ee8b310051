"""What two runs do differently, on a terminal: the most important first."""

import json
import shlex
from collections import Counter
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from corpusmill.pipeline.safe import safe_line
from corpusmill.report.answers.diff import Difference, Wanted
from corpusmill.report.answers.diff_columns import ColumnChange
from corpusmill.report.answers.diff_documents import Counts, RuleCount
from corpusmill.report.answers.sample_view import show_document
from corpusmill.report.facts.histogram import number
from corpusmill.report.tables import cell, limit, share, show, table

#: Rows of the tables; --json has all.
RULES, COLUMNS, VALUES, SETTINGS = 15, 12, 8, 40
#: Columns of a terminal from which the tables say more.
WIDE = 110
#: A table, and what to say of rows that are left out.
Shown = tuple[Table, str]
SEEN = ("both", "only_a", "only_b", "neither")
OUTCOMES = {
    "both": "kept by both", "only_a": "kept by A only", "only_b": "kept by B only", "neither": "kept by neither",
    "kept_unseen_b": "kept by A, never seen by B", "dropped_unseen_b": "dropped by A, never seen by B",
    "kept_unseen_a": "kept by B, never seen by A", "dropped_unseen_a": "dropped by B, never seen by A",
}  # fmt: skip


def show_difference(found: Difference, wanted: Wanted, console: Console) -> None:
    """Prints the verdict, then tables of documents, recipes, rules, values and origins, then samples of both sides."""
    for side, folder in found.folders.items():
        console.print(Text(f"{side.upper()}: {safe_line(folder, 300)}", style="bold"))
    for sentence in found.notes:
        console.print(Text("Note: ", style="yellow") + Text(safe_line(sentence, 500)))
    console.print(Text(_verdict(found)))
    wide = console.width >= WIDE
    tables = [_outcomes(found), _settings(found), _rules(found, wide), _columns(found, wanted, wide)]
    tables += [_values(name, rows) for name, rows in found.properties.items()]
    for made, more in tables:
        if made.row_count:
            console.print()
            show(made, console, more)
    if found.columns_of_one:
        console.print(Text(f"Measured by one run alone: {safe_line(', '.join(found.columns_of_one), 600)}", style="dim"))
    for side in found.folders:
        _show_samples(found, side, wanted, console)


def _verdict(found: Difference) -> str:
    a, b = found.kept("a"), found.kept("b")
    what = f"of the stage {found.stages[0]}" if len(found.stages) == 1 else f"from {found.stages[0]} to {found.stages[-1]}"
    seen = sum(found.of(name).documents for name in SEEN)
    moved = found.of("only_a").documents + found.of("only_b").documents
    unseen = [found.of(f"kept_unseen_{side}").documents for side in ("b", "a")]
    if not moved and not any(unseen):
        return f"Both keep the same {a:,} documents ({what})."
    change = f" ({(b - a) / a:+.1%})" if a else ""
    said = f"A keeps {a:,} documents, B {b:,}{change} ({what}). Of {seen:,} that both have seen, they decide differently about {moved:,}."
    return said + (f" {unseen[0]:,} that A keeps B has never seen, and {unseen[1]:,} the other way." if any(unseen) else "")


def _outcomes(found: Difference) -> Shown:
    tokens = any(counts.tokens is not None for counts in found.counts.values())
    made = table("Documents", "", ">documents", ">share", ">characters", *([">tokens"] if tokens else []))
    total = sum(counts.documents for counts in found.counts.values())
    for name, title in OUTCOMES.items():
        counts = found.of(name)
        if counts.documents or name in SEEN:
            made.add_row(title, *_numbers(counts, total), *([cell(counts.tokens)] if tokens else []))
    return made, ""


def _numbers(counts: Counts, total: int) -> tuple[str, str, str]:
    return number(counts.documents), share(counts.documents, total), number(counts.characters)


def _settings(found: Difference) -> Shown:
    made = table("What the recipes, inputs and versions say differently", "key", "A", "B")
    for key, a, b in found.settings[:SETTINGS]:
        made.add_row(cell(key, 120), Text(_said(a)), Text(_said(b)))
    for column in made.columns:
        column.no_wrap = False
    return made, _left(len(found.settings) - SETTINGS, "--json has all")


def _said(value: Any) -> str:
    return safe_line(value if isinstance(value, str) else json.dumps(value, default=str), 200)


def _rules(found: Difference, wide: bool) -> Shown:
    """Rules that decided about a document that the other run keeps; with room, the thresholds of both runs."""
    rules = [rule for rule in found.rules if rule.weight]
    names = _short([(rule.stage, rule.rule) for rule in rules])
    heads = (">A fails", ">B fails", ">A drops,\nB keeps", ">B drops,\nA keeps")
    made = table("Rules: documents that fail them, and those that the other run keeps", "rule", *(["A", "B"] if wide else []), *heads)
    for rule, name in zip(rules[:RULES], names, strict=False):
        limits = [_limit(found, side, rule) for side in found.folders] if wide else []
        counts = [*rule.fired.values(), *rule.other_keeps.values()]
        made.add_row(Text(name), *map(Text, limits), *map(number, counts))
    return made, _left(len(rules) - RULES, "--json has all")


def _short(names: list[tuple[str, str]]) -> list[str]:
    """Names of rules or values, with their stage where another stage has one of that name."""
    several = Counter(name for _, name in names)
    return [safe_line(name if several[name] == 1 else f"{stage}: {name}", 60) for stage, name in names]


def _limit(found: Difference, side: str, rule: RuleCount) -> str:
    known = found.thresholds[side].get((rule.stage, rule.rule))
    return limit(known) if known is not None else ""


def _columns(found: Difference, wanted: Wanted, wide: bool) -> Shown:
    """Values whose distribution changed, by the distance of Kolmogorov and Smirnov; with room, more quantiles."""
    shown = [change for change in found.columns if change.distance or wanted.all_columns]
    shown = shown if wanted.all_columns else shown[:COLUMNS]
    heads = [">5% A", ">B", ">median A", ">B", ">95% A", ">B"] if wide else [">median A", ">B", ">mean A", ">B"]
    made = table("Values of what they keep (K-S: how far their distributions are apart)", "value", ">K-S", *heads)
    for change, name in zip(shown, _short([(change.stage, change.column) for change in shown]), strict=True):
        distance = "" if change.distance is None else f"{change.distance:.4f}"
        made.add_row(Text(name), distance, *_quantiles(change, wide))
    return made, _left(len(found.columns) - len(shown), "--columns shows all")


def _quantiles(change: ColumnChange, wide: bool) -> list[Text]:
    cells = []
    for place in (0, 2, 4) if wide else (2,):
        cells += [cell(run.quantiles[place] if run.quantiles else None, 16) for run in change.runs.values()]
    return cells if wide else [*cells, *(cell(run.mean, 16) for run in change.runs.values())]


def _values(name: str, rows: list[tuple[str, int, int]]) -> Shown:
    """How many documents of each language (host, crawl file) the runs keep, where that differs."""
    titles = {"language": "Languages", "host": "Hosts", "source": "Crawl files"}
    changed = [row for row in rows if row[1] != row[2]]
    made = table(f"{titles[name]} of what they keep: the largest changes", name, ">A", ">B", ">change")
    for value, a, b in changed[:VALUES]:
        made.add_row(cell(value, 60), number(a), number(b), f"{b - a:+,}")
    return made, _left(len(changed) - VALUES, "--json has all")


def _left(count: int, how: str) -> str:
    return f"{count:,} more ({how})" if count > 0 else ""


def _show_samples(found: Difference, side: str, wanted: Wanted, console: Console) -> None:
    """Documents that this run keeps, with what the other one says against them."""
    samples, other = found.samples[f"only_{side}"], "b" if side == "a" else "a"
    if not samples:
        return
    total = found.of(f"only_{side}").documents
    console.print()
    console.print(Text(f"Kept by {side.upper()}, dropped by {other.upper()}: {len(samples):,} of {total:,}, at random", style="bold"))
    for place, one in enumerate(samples, 1):
        show_document(place, one.row, one.rules, [], wanted.chars, console)
    root = shlex.quote(safe_line(found.folders[other], 300))
    console.print(Text(f"All about one: corpusmill why {root} {safe_line(samples[0].row['id'], 40)}", style="dim"), soft_wrap=True)
