"""What another threshold of a rule would keep, all other rules as they are, and the documents nearest to each threshold.

A rule decides alone about the documents that fail no other rule, so what another threshold of it keeps is a count of these.
Not so where another rule keeps a share of the documents that pass this one (`Decisions.moves`): its threshold is found anew.
"""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from corpusmill.report.queries.ask import Query, ask, columns, listed, number_of, slug
from corpusmill.report.queries.rules import Decisions, RuleCount
from corpusmill.report.queries.values import sample
from corpusmill.report.query.run import Run
from corpusmill.report.query.sql import column, literal
from corpusmill.report.read import ReportRule

#: For a minimum (`<`, `<=`) a document is kept whose value reaches the threshold, for a maximum one whose value stays below it.
MINIMA, MAXIMA = ("<", "<="), (">", ">=")
#: Thresholds that are tried on either side of the one that decided, and those of them that a table shows.
EACH_SIDE, IN_TABLE = 20, 4
#: Of the documents that are kept now, the tightest threshold that is tried drops about this share.
TIGHTEST = 0.5
#: Documents shown on either side of each rule, those that a rule of the headline dropped, and rows read for them: a crawl may hold one
#: document many times.
SAMPLES, EXAMPLES, CANDIDATES = 4, 3, 40
#: Characters shown of a text.
SAMPLE_TEXT = 700
#: Where texts lie as they came into a stage: the nearest stage before it that is there.
BEFORE = {"filter": ("ingest",), "dedup": ("filter", "ingest")}
#: Of what a rule alone removes, about so much would come back with the threshold that is proposed.
GIVES_BACK = 0.5


# ---- other thresholds ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TriedThreshold:
    """What a threshold keeps, and what it adds to (or takes from) what the run has kept. `threshold` is None for a rule that is off."""

    threshold: float | None
    documents: int
    characters: int
    more: int
    now: bool = False


@dataclass(frozen=True)
class Changes:
    """Thresholds of one rule in ascending order with what each keeps: documents, and characters of the text that came in.

    `place` is that of the threshold which decided. `off`: what is kept without the rule. A value that is missing never fails.
    """

    rule: ReportRule
    every: list[TriedThreshold]
    place: int
    off: TriedThreshold
    query: Query

    def table(self) -> list[TriedThreshold]:
        """Some thresholds on either side of the one that decided, spread over what they change, the loosest first."""
        chosen = {self.place, *_spread(range(self.place)), *_spread(range(self.place + 1, len(self.every)))}
        rows = [self.every[place] for place in sorted(chosen)]
        return [self.off, *(rows if self.rule.comparison in MINIMA else rows[::-1])]


def _spread(places: range) -> list[int]:
    """Up to `IN_TABLE` places of some, evenly spaced."""
    if len(places) <= IN_TABLE:
        return list(places)
    return [places[round(step * (len(places) - 1) / (IN_TABLE - 1))] for step in range(IN_TABLE)]


def numeric_rules(rules: Sequence[ReportRule], names: Collection[str]) -> list[ReportRule]:
    """The rules whose threshold is a number that could be another one, of columns that the report has. Of a name that several rules have
    nobody can say which of them fired."""
    several = Counter(rule.rule for rule in rules)
    numbers = [rule for rule in rules if is_number(rule.threshold) and rule.comparison in MINIMA + MAXIMA]
    return [rule for rule in numbers if rule.column in names and several[rule.rule] == 1]


def is_number(value: Any) -> bool:
    """Whether a threshold is a number: not yes or no, not a list, not one that has yet to be found."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_changes(run: Run, d: Decisions) -> dict[str, Changes]:
    """By rule, what other thresholds keep; of the numeric rules that move no other."""
    kinds = columns(run, f"{d.stage}_report")
    rules = [rule for rule in numeric_rules(d.thresholds, kinds) if not d.moves(rule.rule)]
    return {rule.rule: _changes(run, d, rule, tried, kinds) for rule, tried in zip(rules, _tried(run, d, rules, kinds), strict=True)}


def _tried(run: Run, d: Decisions, rules: Sequence[ReportRule], kinds: dict[str, str]) -> list[list[float]]:
    """Of each rule the threshold that decided, and sensible ones on either side: quantiles of the values that they would bring back or
    drop, in some rows from all over the report."""
    if not rules:
        return []
    shares = np.arange(1, EACH_SIDE + 1) / EACH_SIDE
    alone = "if(len(failed) = 1, list_position({names}, failed[1]), if(len(failed) = 0, 0, NULL))"
    decided, *every = sample(run, d, [alone.format(names=listed([r.rule for r in rules])), *(number_of(r.column, kinds) for r in rules)])
    found = []
    for place, (rule, values) in enumerate(zip(rules, every, strict=True), 1):
        now, minimum, tight = float(rule.threshold), rule.comparison in MINIMA, TIGHTEST * shares**2
        tried = {now}
        for some, near in ((place, 1 - shares if minimum else shares), (0, tight if minimum else 1 - tight)):
            those = values[(decided == some) & np.isfinite(values)]
            if len(those):
                tried |= {sensible(value, now) for value in np.quantile(those, near, method="nearest").tolist()}
        found.append(sorted(tried))
    return found


def _changes(run: Run, d: Decisions, rule: ReportRule, tried: list[float], kinds: dict[str, str]) -> Changes:
    minimum, last = rule.comparison in MINIMA, len(tried)
    # A minimum keeps a value in the place `n` by the `n` lowest thresholds, a maximum by all but those.
    fails = f"value {rule.comparison}" if minimum else f"NOT value {rule.comparison}"
    cases = "\n    ".join(f"WHEN {fails} {literal(value)} THEN {place}" for place, value in enumerate(tried))
    keeps = "place IS NULL OR place > number" if minimum else "place IS NULL OR place <= number"
    query = ask(run, "threshold", f"What other thresholds of {rule.rule} keep", f"""\
WITH decided AS (
  SELECT CASE WHEN value IS NULL THEN NULL
    {cases}
    ELSE {last} END AS place, count(*) AS documents, coalesce(sum(chars_in), 0) AS characters
  FROM (SELECT {number_of(rule.column, kinds)} AS value, chars_in, failed FROM {d.stage}_report)
  WHERE len(failed) = 0 OR failed = [{literal(rule.rule)}]
  GROUP BY place
), tried AS (
  SELECT unnest({listed([*tried, None])}::DOUBLE[]) AS threshold, unnest(range({last + 1})) AS number
)
SELECT threshold, documents, documents - max(documents) FILTER (number = {tried.index(float(rule.threshold))}) OVER () AS more,
  documents / {d.rows or "NULL"} AS share, characters
FROM (
  SELECT threshold, number, coalesce(sum(documents) FILTER (threshold IS NULL OR {keeps}), 0)::BIGINT AS documents,
    coalesce(sum(characters) FILTER (threshold IS NULL OR {keeps}), 0)::BIGINT AS characters
  FROM tried LEFT JOIN decided ON true
  GROUP BY threshold, number
)
ORDER BY threshold NULLS LAST""")  # fmt: skip
    whole = isinstance(rule.threshold, int) and all(value == round(value) for value in tried)
    now = tried.index(float(rule.threshold))
    rows = [
        TriedThreshold(row["threshold"], row["documents"], row["characters"], row["more"], place == now)
        for place, row in enumerate(query.rows)
    ]
    if whole:
        rows = [replace(row, threshold=int(row.threshold)) if row.threshold is not None else row for row in rows]
    return Changes(rule, rows[:-1], now, rows[-1], query)


def sensible(value: float, now: float) -> float:
    """A number with few digits near `value`: not farther from it than a tenth of its distance from `now`."""
    for digits in range(1, 8):
        rounded = float(f"{value:.{digits - 1}e}")
        if abs(rounded - value) <= 0.1 * abs(value - now):
            return rounded
    return value


def recipe_line(rule: str, threshold: float | None) -> str:
    """What the command line and a recipe call a threshold."""
    return f"filter.thresholds.{rule}={'null' if threshold is None else repr(threshold)}"


# ---- documents near the thresholds --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NearDocument:
    """A document near a threshold, with the value that the rule judges. `others`: the rules that it failed as well. `text` is None where
    the run does not hold it."""

    side: str  # dropped or kept
    id: str
    url: str
    value: Any
    others: tuple[str, ...]
    language: str | None
    distance: float
    text: str | None = None


@dataclass(frozen=True)
class NearMisses:
    """The documents on both sides of a rule. `id` is that of its part of the page."""

    id: str
    rule: RuleCount
    comparison: ReportRule | None
    shown: list[NearDocument]
    query: Query


def read_near_misses(run: Run, d: Decisions, most: int) -> list[NearMisses]:
    """For each rule that fired, at most `most`: the documents just dropped, first those that no other rule dropped, and just kept. Of equal
    ones the first by id. Ids are hashes, so of a rule without a number to compare with, these are any documents."""
    kinds = columns(run, f"{d.stage}_report")
    found = []
    for place, rule in enumerate(d.by_removal()[:most]):
        comparison = d.rule(rule.name)
        dropped = _nearest(d.stage, "dropped", f"list_contains(failed, {literal(rule.name)})", comparison, kinds)
        kept = _nearest(d.stage, "kept", "kept", comparison, kinds)
        both = [dropped, kept] if comparison is not None and comparison.column in kinds else [dropped]
        query = ask(run, "near", f"Documents near {rule.name}", "\nUNION ALL\n".join(f"({each})" for each in both))
        samples = [sample for side in ("dropped", "kept") for sample in _samples(query, rule.name, side, SAMPLES)]
        found.append(NearMisses(f"near-{d.stage}-{place}-{slug(rule.name)[:40]}", rule, comparison, samples, query))
    texts = _texts(run, d.stage, [sample.id for each in found for sample in each.shown])
    return [replace(each, shown=[replace(sample, text=texts.get(sample.id)) for sample in each.shown]) for each in found]


def _nearest(stage: str, side: str, where: str, rule: ReportRule | None, kinds: dict[str, str], first: str = "len(failed) > 1") -> str:
    """SQL: the rows nearest to a threshold. `first`: a condition by which those that do not meet it come before all others."""
    known = rule is not None and rule.column in kinds
    distance = "0.0::DOUBLE"
    if rule is not None and known and is_number(rule.threshold):
        value = number_of(rule.column, kinds)
        distance, where = f"abs({value} - {literal(float(rule.threshold))})", f"{where} AND {value} IS NOT NULL"
    told = column(rule.column) if rule is not None and known else "reason" if "reason" in kinds and side == "dropped" else "NULL"
    language = "language::VARCHAR" if "language" in kinds else "NULL::VARCHAR"
    return f"""\
SELECT '{side}' AS side, id, url, {told} AS value, failed, {language} AS language, {first} AS later, {distance} AS distance
FROM {stage}_report
WHERE {where}
ORDER BY later, distance, id
LIMIT {CANDIDATES}"""


def _samples(query: Query, rule: str, side: str, most: int) -> list[NearDocument]:
    """The first different documents of one side."""
    found: dict[str, NearDocument] = {}
    for row in query.rows:
        if row["side"] == side and row["id"] not in found:
            others = tuple(name for name in row["failed"] or () if name != rule)
            found[row["id"]] = NearDocument(side, row["id"], row["url"] or "", row["value"], others, row["language"], row["distance"])
    return list(found.values())[:most]


def _texts(run: Run, stage: str, ids: Collection[str]) -> dict[str, str]:
    """The beginnings of documents as they came into a stage, by id; of what was kept, else as it left the stage."""
    found: dict[str, str] = {}
    for where in (*BEFORE.get(stage, ()), stage):
        missing = sorted(set(ids) - found.keys())
        if missing and f"{where}_documents" in run.tables:
            sql = f"SELECT id, left(text, {SAMPLE_TEXT}) FROM {where}_documents WHERE id IN (SELECT unnest($ids::VARCHAR[]))"
            found |= {id_: text or "" for id_, text in run.sql(sql, ids=missing).fetchall()}
    return found


@dataclass(frozen=True)
class Examples:
    """Pages that failed `rule`; `alone`: and no other rule. Those in `language` (None: of any) come first."""

    rule: str
    comparison: ReportRule | None
    alone: bool
    language: str | None
    shown: list[NearDocument]
    query: Query


def read_examples(run: Run, d: Decisions, rule: RuleCount, language: str | None) -> Examples | None:
    """Some pages that a rule dropped, those nearest to its threshold, first the ones in a language that the reader likely knows; None where
    the run holds no text of them."""
    kinds, comparison, name = columns(run, f"{d.stage}_report"), d.rule(rule.name), literal(rule.name)
    where = f"failed = [{name}]" if rule.alone else f"list_contains(failed, {name})"
    preferred = language if "language" in kinds else None
    elsewhere = "false" if preferred is None else f"coalesce(language::VARCHAR <> {literal(preferred)}, true)"
    query = ask(run, "examples", f"Pages that {rule.name} dropped", _nearest(d.stage, "dropped", where, comparison, kinds, elsewhere))
    samples = _samples(query, rule.name, "dropped", EXAMPLES)
    texts = _texts(run, d.stage, [sample.id for sample in samples])
    shown = [replace(sample, text=texts.get(sample.id)) for sample in samples]
    return Examples(rule.name, comparison, rule.alone > 0, preferred, shown, query) if any(texts.values()) else None


# ---- what a newcomer needs first ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Headline:
    """`most` failed most documents of the stage, `deciding` is the threshold that removed most of those that failed nothing else.
    `line` changes the recipe so that `more` documents are kept; None where none can be changed. `off`: how many more are kept without the
    rule, by the line `off_line`; None where `line` says that already."""

    decisions: Decisions
    most: RuleCount
    deciding: RuleCount | None
    line: str | None
    more: int
    off: int | None
    off_line: str | None


def headline(decisions: dict[str, Decisions], changes: dict[str, Changes] | None = None) -> Headline | None:
    """About the filter stage, or the last stage that removed anything. `changes` are those of the filter stage."""
    stages = [d for d in (decisions.get("filter"), *reversed(list(decisions.values()))) if d is not None and d.by_removal()]
    if not stages:
        return None
    d, removing = stages[0], stages[0].by_removal()
    numeric = {rule.rule for rule in numeric_rules(d.thresholds, [rule.column for rule in d.thresholds])} if changes is not None else set()
    alone = sorted((rule for rule in removing if rule.alone), key=lambda rule: (rule.name not in numeric, -rule.alone, rule.name))
    deciding = alone[0] if alone else None  # one whose threshold is a number, where there is one
    line, more = (None, 0) if deciding is None or d.stage != "filter" else _loosened(d, deciding, changes or {})
    off_line = recipe_line(deciding.name, None) if deciding is not None and line is not None else None
    off = deciding.alone if deciding is not None and off_line not in (None, line) else None
    return Headline(d, removing[0], deciding, line, more, off, off_line)


def _loosened(d: Decisions, rule: RuleCount, changes: dict[str, Changes]) -> tuple[str | None, int]:
    """The recipe's line that gives back about half of what a rule alone removes, and how many documents; or that switches it off. None
    where that moves or ends a share, of which one pass can't count what is kept."""
    known = d.rule(rule.name)
    if known is None or known.share or d.moves(rule.name):
        return None, 0
    every = changes[rule.name].every if rule.name in changes else []
    looser = [change for change in every if change.more > 0]
    best = min(looser, key=lambda change: (abs(change.more - GIVES_BACK * rule.alone), change.more), default=None)
    return (recipe_line(rule.name, best.threshold), best.more) if best else (recipe_line(rule.name, None), rule.alone)
