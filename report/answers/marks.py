"""Finds why a document failed, in its text: the places of each failed rule, and what a stage took out of the text or replaced."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.text import Text

from corpusmill.filters.places import KNOWN, MeasuredText, Span, Spans, measure_again
from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.safe import safe_line, safe_text
from corpusmill.report.queries.inside import COLUMNS, RULE
from corpusmill.report.queries.passages import Words, runs
from corpusmill.report.read import ReportRule

NO_PLACE = "a value of the whole text: no place stands for it"
UNKNOWN = "its places are unknown: the step can't be measured again here, or gives another value"
#: The end of the name of a column in which a filter of one's own returns the places that its rule counts.
PLACES = "_places"
#: The largest product of two parts' numbers of words that difflib compares.
COMPARED = 200_000


@dataclass(frozen=True)
class Mark:
    """The places of a failed rule, or without a rule of a change of the text. `what`: what is there, in words. `spans`: start and end in
    characters of the stage's input text, rising; they may overlap. None: nothing can be marked, and `what` says why."""

    stage: str
    rule: str
    what: str
    spans: Spans | None


class TextAlignment:
    """The words that a text has in common with a later form of it. Words beyond the first 150,000 count as left out of both."""

    def __init__(self, before: str, after: str):
        self.before, self.after = Words(before), Words(after)
        self.equal = list(_equal(self.before.list(), self.after.list()))
        self.origin = [-1] * len(self.after)
        for place, later, count in self.equal:
            self.origin[later : later + count] = range(place, place + count)

    def removed(self) -> Spans:
        """Returns the passages of the earlier text that the later text lacks, or has in another form."""
        spans, at = Spans(), 0
        for place, _, count in [*self.equal, (len(self.before), 0, 0)]:
            if place > at:
                spans.append((self.before.spans[at][0], self.before.spans[place - 1][1]))
            at = place + count
        return spans

    def back(self, span: Span) -> Span:
        """Returns the place in the earlier text from which a span of the later text comes; empty where it comes from none."""
        begin, end = span
        words = self.after.spans
        first, last = bisect_right(words, begin, key=lambda word: word[1]), bisect_left(words, end, key=lambda word: word[0])
        known = [word for word in range(first, last) if self.origin[word] >= 0]
        if not known:
            return 0, 0
        low, high = (self.before.spans[self.origin[word]] for word in (known[0], known[-1]))
        return low[0] + max(0, begin - words[known[0]][0]), high[1] - max(0, words[known[-1]][1] - end)


def _equal(a: list[str], b: list[str]) -> Iterator[tuple[int, int, int]]:
    """Yields the equal runs as `(place in a, place in b, length)`: those of `runs`, and those that difflib finds in parts between them."""
    at = to = 0
    for x, y, count in [*runs(a, b), (len(a), len(b), 0)]:
        if at < x and to < y and (x - at) * (y - to) <= COMPARED:
            blocks = SequenceMatcher(None, a[at:x], b[to:y], autojunk=False).get_matching_blocks()
            yield from ((at + block.a, to + block.b, block.size) for block in blocks if block.size)
        if count:
            yield x, y, count
        at, to = x + count, y + count


def filter_marks(settings: Mapping[str, Any], rules: Sequence[ReportRule], row: Mapping[str, Any], text: str) -> list[Mark]:
    """Returns a mark for each rule that a document failed in the filter stage, then one for each change of its text.

    `settings`: the resolved recipe's section. `row`: the document's row of the report. `text`: the stage's input text.
    """
    failed = {rule.rule: rule for rule in rules if rule.rule in (row.get("failed") or ())}
    found = {name: _unmeasured(rule, row, text) for name, rule in failed.items()}
    changes: list[Mark] = []
    for measured in measure_again(settings, text, row):
        back = _way_back(text, measured.text)
        for rule in (rule for rule in failed.values() if rule.step == measured.named.name):
            found[rule.rule] = _of_rule(rule, measured, row, back)
        changes += _changes(measured, back)
    return [*found.values(), *changes]


def _way_back(text: str, later: str) -> Callable[[Spans], Spans]:
    """Returns the function that brings spans of a step's text back to the stage's input text."""
    if later == text:
        return lambda spans: spans
    alignment = TextAlignment(text, later)
    return lambda spans: sorted(map(alignment.back, spans))


def _of_rule(rule: ReportRule, measured: MeasuredText, row: Mapping[str, Any], back: Callable[[Spans], Spans]) -> Mark:
    if not _same(measured.values.get(rule.column), row.get(rule.column)):
        return Mark("filter", rule.rule, UNKNOWN, None)
    places = measured.places(rule.column)
    return Mark("filter", rule.rule, NO_PLACE, None) if places is None else Mark("filter", rule.rule, places.what, back(places.spans))


def _same(value: Any, reported: Any) -> bool:
    """Whether a value is the reported one. A missing value fails no rule."""
    if isinstance(value, float) and isinstance(reported, int | float):
        return math.isclose(value, reported, rel_tol=1e-9)
    return value is not None and bool(value == reported)


def _changes(measured: MeasuredText, back: Callable[[Spans], Spans]) -> Iterator[Mark]:
    """Yields what a step took out of the text; for personal data, what it found of each kind."""
    if hasattr(measured.step, "placeholders"):
        for column, placeholder in measured.step.placeholders.items():
            places = measured.places(f"{column}{measured.named.suffix}")
            if places is not None and places.spans:
                yield Mark("filter", "", f"{places.what}, {'replaced' if placeholder is not None else 'counted'}", back(places.spans))
    elif measured.new_text != measured.text:
        spans = back(TextAlignment(measured.text, measured.new_text).removed())
        if spans:
            yield Mark("filter", "", f"what {measured.named.name} leaves out of the text", spans)


def _unmeasured(rule: ReportRule, row: Mapping[str, Any], text: str) -> Mark:
    """Returns the mark of a rule whose step is not measured again: the places in the column of a filter of one's own, a list of starts and
    ends in the text that it got; else the reason why there are none."""
    column = f"{rule.column}{PLACES}"
    if column not in row:
        other = rule.step.split(":")[0] in ("python", "datatrove")
        known = rule.step in KNOWN or rule.step.rpartition("_")[0] in KNOWN
        what = f"a rule of other code: it marks places if it has a column {column}" if other else UNKNOWN if known else NO_PLACE
        return Mark("filter", rule.rule, what, None)
    try:
        numbers = [int(number) for number in (parse_json(row[column]) if isinstance(row[column], str) else row[column] or [])]
    except (TypeError, ValueError):
        numbers = []
    spans = [(begin, end) for begin, end in zip(numbers[::2], numbers[1::2], strict=False) if 0 <= begin < end <= len(text)]
    return Mark("filter", rule.rule, "the places that the filter gives", sorted(spans))


def was_cut(row: Mapping[str, Any]) -> bool:
    """Whether deduplication cut repeated lines or passages out of a document. `row`: of its report."""
    return any(row.get(cut) for cut, _, _ in COLUMNS.values())


def dedup_marks(row: Mapping[str, Any], text: str, after: str | None) -> list[Mark]:
    """Returns marks for the passage of an evaluation set, and for what deduplication cut inside the document.

    `row`: the document's row of the report. `text`: its text before the stage. `after`: its text after the stage, None if it was dropped.
    """
    marks = []
    if passage := row.get("contamination_passage"):
        at = text.find(passage)
        spans = [(at, at + len(passage))] if at >= 0 else None
        what = "words of an evaluation set" if spans else "words of an evaluation set; they stand in no text of the run"
        marks.append(Mark("dedup", RULE if RULE in (row.get("failed") or ()) else "", what, spans))
    if after is not None and was_cut(row):
        marks.append(Mark("dedup", "", "what dedup cut: it repeats in the corpus", TextAlignment(text, after).removed()))
    return marks


# ---- In the terminal

#: Characters of text around a place; passages with places that are shown at most; and the letters that a text can hold and be read.
AROUND, PASSAGES, LETTERS = 80, 40, "ABC"
STYLES = {"A": "yellow underline", "B": "cyan underline", "C": "magenta underline"}


@dataclass(frozen=True)
class MarkedText:
    """The input text of a stage, `text_of` the stage that wrote it, and its marks."""

    stage: str
    text_of: str
    text: str
    marks: list[Mark]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def show_marked(found: MarkedText, console: Console) -> None:
    """Prints the marks, each with a letter, then the passages of the text that hold one: `⟦A like this⟧`. Marks of the same places share a
    letter. Only the first three places have one; changes only where no failed rule has a place."""
    console.print(Text(f"Why {found.stage} decided so, in the text that {found.text_of} wrote:", style="bold"))
    by_rule = any(mark.rule and mark.spans for mark in found.marks)
    places: dict[tuple[Span, ...], str] = {}
    for mark in found.marks:
        shown = tuple(mark.spans or ()) if mark.rule or not by_rule else ()
        if shown and len(places) < len(LETTERS):
            places.setdefault(shown, LETTERS[len(places)])
        letter = places.get(shown, " ")
        count = "" if mark.spans is None else f"{len(mark.spans):,} {'place' if len(mark.spans) == 1 else 'places'}: "
        line = f"{letter} {f'{safe_line(mark.rule, 80)}: ' if mark.rule else ''}{count}{safe_line(mark.what, 200)}"
        console.print(Text(line, style=STYLES.get(letter, "dim")))
    if places:
        console.print()
        console.print(marked_text(found.text, {letter: list(spans) for spans, letter in places.items()}))


def marked_text(text: str, places: Mapping[str, Spans]) -> Text:
    """Returns the passages of a text that hold places, with the letters of these places; the rest is left out and counted."""
    spans = sorted({(begin, end, letter) for letter, each in places.items() for begin, end in each if begin < end})
    windows: list[list[int]] = []
    for begin, end, _ in spans:
        if windows and begin - AROUND <= windows[-1][1]:
            windows[-1][1] = max(windows[-1][1], end + AROUND)
        else:
            windows.append([max(0, begin - AROUND), end + AROUND])
    shown, at = Text(), 0
    for low, high in windows[:PASSAGES]:
        shown += _left_out(low - at)
        inside = [span for span in spans if low <= span[0] < high]
        at = min(high, len(text))
        cuts = sorted({low, at, *(place for begin, end, _ in inside for place in (begin, end))})
        for begin, end in pairwise(cuts):
            here = sorted({letter for first, last, letter in inside if first < end and last > begin})
            piece = safe_text(text[begin:end])
            shown += Text(f"⟦{','.join(here)} {piece}⟧", style=STYLES[here[0]]) if here else Text(piece)
    shown += _left_out(len(text) - at)
    if len(windows) > PASSAGES:
        shown += Text(f"{len(windows) - PASSAGES:,} more passages with places are not shown.", style="dim")
    return shown


def _left_out(characters: int) -> Text:
    return Text(f" … {characters:,} characters …\n", style="dim") if characters > 0 else Text()
