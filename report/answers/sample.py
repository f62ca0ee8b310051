"""`sample`: shows random documents, or those nearest to a rule's threshold, with their texts, to judge a rule by eye.

Random documents are the first by a hash of id and seed, so they are the same on every machine and for any number of shards.
"""

import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from rich.console import Console
from rich.text import Text

from corpusmill.filters.gopher import STOP_WORDS
from corpusmill.filters.relation import Report
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.names import instead_of
from corpusmill.pipeline.recipe import stage_command
from corpusmill.pipeline.safe import safe_line, safe_text
from corpusmill.report.answers.choose import LATER, Choice, TableRows, asked_meanings, check_rules, choose, report_rows, shown
from corpusmill.report.answers.why_change import COMPARED, RETUNE, decides_again, distance, margin, passing
from corpusmill.report.machine import print_json_lines, warn
from corpusmill.report.query.run import Run, identifier
from corpusmill.report.read import DATA_STAGES, ReportRule, RunReader
from corpusmill.report.tables import VALUES, limit, number, print_indented, show_notes, table
from corpusmill.text.word_rules import WORD_RULES
from corpusmill.text.words import frequent_words

STEP = 4
#: The most frequent words that are shown.
MOST_WORDS = 40


@dataclass(frozen=True)
class Draw:
    """How to draw documents: `count` of them by `seed`, or with `near` those nearest to the rule's threshold. `chars`: characters shown of
    each text. `words`: show their most frequent words instead."""

    count: int = 20
    seed: int = 0
    near: bool = False
    chars: int = 600
    words: bool = False


@dataclass
class Samples:
    """Drawn documents. `rows`: report rows with the beginning of the text as `text` (None if no stage has it). `total`: documents to
    draw from."""

    run: str
    stage: str
    choice: Choice
    draw: Draw
    rules: list[ReportRule]
    total: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    texts_of: str | None = None  # the stage whose texts are shown
    notes: list[str] = field(default_factory=list)
    command: str = RETUNE  # the command that applies other thresholds of the chosen rules
    meanings: dict[str, str] = field(default_factory=dict)  # by chosen rule: the reason for which it drops a document, in words


def sample(folder: str, stage: str | None, choice: Choice, draw: Draw, as_json: bool, console: Console) -> None:
    """Shows documents of a stage with their input texts. Raises InputError for an unknown stage, rule or column."""
    with Run(folder, only_run=True) as run:
        found = draw_samples(run, stage, choice, draw)
        words = _words(run.reader, found) if draw.words else []
    if draw.words and as_json:
        print_json_lines(words)
    elif draw.words:
        rows = [[word["word"], word["share"], "yes" if word["stop_word"] else ""] for word in words]
        console.print(table(f"Words of {len(found.rows):,} documents", "word", ">share of all words", "stop word", rows=rows))
    elif as_json:
        print_json_lines(found.rows)
        warn(found.notes)
    else:
        show_samples(found, console)


def draw_samples(run: Run, stage: str | None, choice: Choice, draw: Draw) -> Samples:
    """Returns the documents that `sample` shows. Raises InputError."""
    name, rows = report_rows(run, stage, choice.rules)
    check_rules(run, name, choice.rules)
    if name in LATER:
        raise InputError(f"{name}: its report is about examples, which have no texts of their own (corpusmill inspect --stage {name}).")
    found = Samples(run.reader.storage.root, name, choice, draw, run.rules(name), meanings=asked_meanings(run, name, choice))
    if draw.near:
        _draw_near(run, rows, found)
    else:
        choose(rows, choice)
        found.total = rows.count()
        found.rows = list(rows.read(rows.columns, f" ORDER BY {by_chance(rows, draw.seed)}", draw.count))
    found.texts_of = add_texts(run.reader, name, found.rows, draw.chars)
    found.command = decides_again(run.reader, found.rules, choice.rules)
    found.notes += run.reader.warnings
    if run.reader.stages[name].status == "unfinished":
        found.notes.append(f"{name} is not finished, so there may be more documents.")
    return found


def _words(reader: RunReader, found: Samples) -> list[dict[str, Any]]:
    """Returns the most frequent words of the drawn texts by the run's word rule: their share, and whether they are stop words of the
    step `gopher_quality`. FineWeb-2 chose its stop words among the most frequent ones of a language's Wikipedia."""
    texts = [row["text"] for row in found.rows if row.get("text")]
    counted = frequent_words(reader.settings("filter").get("word_rule") or WORD_RULES[0], texts, sys.maxsize)
    stop_words = {word for kind, options in reader.steps() if kind == "gopher_quality" for word in options.get("stop_words") or STOP_WORDS}
    total = sum(count for _, count in counted)
    return [{"word": word, "share": count / total, "stop_word": word in stop_words} for word, count in counted[:MOST_WORDS]]


def by_chance(rows: TableRows, seed: int) -> str:
    """SQL: an order by a hash (MD5) of id and seed; ties by the place of the records."""
    places = [column for column in ("source", "offset", "url", "chars_in") if column in rows.columns]
    return ", ".join([f"md5(id || ':{int(seed)}')", *map(identifier, places), "kept"])


def _draw_near(run: Run, rows: TableRows, found: Samples) -> None:
    """Draws documents near the threshold: half that fail it, half that pass it and are kept; or only one kind, as the choice says."""
    rule = _threshold_rule(found)
    column, choice = rows.column(rule.column), found.choice
    fails = Report(rows.name, rows.columns).fails(rule.column, rule.comparison, rule.threshold)
    sides = [False, True] if choice.kept is None else [choice.kept]
    for place, kept in enumerate(sides):
        side = rows.without_conditions()
        choose(side, replace(choice, rules=(), alone=False, kept=None))
        if kept:
            side.add(f"kept AND NOT {rows.missing(rule.column)} AND NOT {fails}")
        else:
            side.add(f"list_contains(failed, ?) AND {fails}", rule.rule)
            if choice.alone:
                side.add("len(failed) = 1")
        found.total += side.count()
        order = f" ORDER BY abs({column} - {float(rule.threshold)!r}), {by_chance(rows, found.draw.seed)}"
        found.rows += side.read(rows.columns, order, (found.draw.count + place) // len(sides))


def _threshold_rule(found: Samples) -> ReportRule:
    """Returns the rule whose threshold is meant. Raises InputError if there is none, or more than one."""
    numeric = [r for r in found.rules if r.comparison in COMPARED and isinstance(r.threshold, int | float)]
    if len(found.choice.rules) != 1:
        names = ", ".join(dict.fromkeys(rule.rule for rule in numeric)) or "none"
        raise InputError(f"sample: --near needs one --rule with a threshold (rules of {found.stage} that have one: {names}).")
    name = found.choice.rules[0]
    rule = next((rule for rule in numeric if rule.rule == name), None)
    if rule is None:
        others = instead_of(name, [rule.rule for rule in numeric])
        raise InputError(f"{found.stage}: the rule {shown(name)} has no threshold, so nothing is near it{others}.")
    return rule


def add_texts(reader: RunReader, stage: str, rows: Iterable[dict[str, Any]], chars: int) -> str | None:
    """Gives each row the beginning of its input text, and returns the stage that had the texts."""
    rows, ids = list(rows), [row["id"] for row in rows]
    texts: dict[str, str] = {}
    source = None
    for name in text_stages(reader, stage):
        if ids and (texts := reader.texts(name, ids, 4 * chars + 64)):
            source = name
            break
    for row in rows:
        row["text"] = texts.get(row["id"])
    return source


def text_stages(reader: RunReader, stage: str) -> list[str]:
    """Returns the stages that may have a stage's input texts, the nearest earlier one first; the stage itself comes last."""
    order = [*DATA_STAGES, "tokens"]
    before = [name for name in order[: order.index(stage)] if reader.stages[name].outputs("data/")]
    return [*reversed(before), *([stage] if reader.stages[stage].outputs("data/") else [])]


def show_samples(found: Samples, console: Console) -> None:
    """Prints the documents, how many there are in all, and the commands that show one in detail."""
    near = [rule for rule in found.rules if found.draw.near and rule.rule in found.choice.rules][:1]
    for name, phrase in found.meanings.items():
        console.print(Text(f"{safe_line(name, 80)}: {safe_line(phrase, 300)}"))
    for place, row in enumerate(found.rows, 1):
        show_document(place, row, found.rules, [*near], found.draw.chars, console)
    if not found.rows:
        console.print(f"{found.stage}: no such documents.")
    show_notes(_notes(found), console)
    if found.rows:
        _show_rest(found, near, console)


def show_document(place: int, row: dict[str, Any], rules: list[ReportRule], near: list[ReportRule], chars: int, console: Console) -> None:
    """Prints one document: URL and id, the decision, the values that failed (and those of `near`), and the beginning of the text."""
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
        print_indented(Text(safe_text(row["text"], chars)), STEP, console)
    else:
        _line(Text("(no text: nothing that was read of it is kept)", style="dim"), console)
    console.print()


def _value(rule: ReportRule, value: Any, failed: bool) -> Text:
    by = "" if distance(rule, value) is None else f", {margin(rule, value, failed)}"
    return Text(f"{safe_line(rule.column, 60)} = {safe_line(number(value), 60)} (fails if {limit(rule)}{by})")


def _line(text: Text, console: Console) -> None:
    print_indented(text, STEP, console)


def _notes(found: Samples) -> list[str]:
    notes = list(found.notes)
    if found.choice.kept and found.choice.rules and not found.draw.near:
        notes.append("a document that fails a rule is dropped; with --near, --kept shows documents that only just pass the rule.")
    return notes


def _show_rest(found: Samples, near: list[ReportRule], console: Console) -> None:
    root = shlex.quote(safe_line(found.run, 300))
    how = f"nearest to {limit(near[0])}" if near else f"drawn with seed {found.draw.seed} (--seed {found.draw.seed + 1} draws others)"
    texts = f" Texts as the stage {found.texts_of} wrote them." if found.texts_of else ""
    console.print(Text(f"{len(found.rows):,} of {found.total:,} such documents of {found.stage}, {how}.{texts}"))
    one = safe_line(found.rows[0]["id"], 40)
    console.print(Text(f"All about one: corpusmill why {root} {one}", style="dim"), soft_wrap=True)
    console.print(Text(f"Its whole page: corpusmill raw {root} {one} --part body", style="dim"), soft_wrap=True)
    rule = next((r for r in found.rules if r.rule in found.choice.rules and distance(r, 0.0) is not None), None)
    if rule is None or found.stage != "filter":
        return
    name = shlex.quote(safe_line(rule.rule, 80))
    dropped = [row[rule.column] for row in found.rows if rule.rule in (row.get("failed") or [])]
    if not near:
        console.print(Text(f"Near its threshold: corpusmill sample {root} --rule {name} --near", style="dim"), soft_wrap=True)
    elif dropped:
        other = passing(rule, (min if rule.comparison in ("<", "<=") else max)(dropped))
        setting = f"--set filter.thresholds.{name}={other}"
        measured = f"{stage_command(safe_line(found.run, 300), 'filter', None, '--redo')} {setting}"
        command = f"corpusmill {RETUNE} {root} {setting} --dry-run" if found.command == RETUNE else measured
        console.print(Text(f"A threshold that lets those dropped here pass: {command}", style="dim"), soft_wrap=True)
