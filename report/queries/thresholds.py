"""Counts the documents that another threshold of a rule would keep, with all other rules unchanged, and reads the documents nearest to each
threshold.

A rule decides alone about the documents that fail no other rule. So for another threshold, only these documents are counted. This would be
wrong where another rule keeps a share of the documents that pass, because that rule's threshold changes, too (`Decisions.moves`).
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

#: Comparisons by which a rule sets a minimum (values above the threshold pass), and a maximum.
MINIMA, MAXIMA = ("<", "<="), (">", ">=")
#: Thresholds tried on each side of the recipe's threshold.
EACH_SIDE = 20
#: The tightest threshold tried drops about this share of the documents that are kept now.
TIGHTEST = 0.5
#: Documents shown on each side of a rule's threshold, and rows read to find them, since a crawl may hold a document many times.
SAMPLES, CANDIDATES = 4, 40
#: Characters of a text that are shown.
SAMPLE_TEXT = 700
#: The stages whose documents are a stage's input texts: the first one present counts.
BEFORE = {"filter": ("ingest",), "dedup": ("filter", "ingest")}
#: One step of a threshold brings back about this share of the documents that only this rule removes. The page names this many rules first.
STEP, DECIDING = 0.5, 3


# ---- other thresholds ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Changes:
    """Tried thresholds of one rule, ascending, each with the documents kept, how many `more` (or fewer) that is than the run has kept, and
    the characters of their input text. `place`: the index of the recipe's threshold. A missing value never fails."""

    rule: ReportRule
    every: list[dict[str, Any]]
    place: int
    query: Query


def numeric_rules(rules: Sequence[ReportRule], names: Collection[str]) -> list[ReportRule]:
    """Returns the rules with a numeric threshold on a column that the report has. Rules that share a name are left out, since the report
    does not tell which of them fired."""
    several = Counter(rule.rule for rule in rules)
    numbers = [rule for rule in rules if is_number(rule.threshold) and rule.comparison in MINIMA + MAXIMA]
    return [rule for rule in numbers if rule.column in names and several[rule.rule] == 1]


def is_number(value: Any) -> bool:
    """Whether a threshold is a finite number: no boolean, no list, and no share whose threshold is still to be found."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_changes(run: Run, d: Decisions) -> dict[str, Changes]:
    """Reads, for each numeric rule, what other thresholds keep. Leaves out rules whose threshold changes another rule's threshold."""
    kinds = columns(run, f"{d.stage}_report")
    rules = [rule for rule in numeric_rules(d.thresholds, kinds) if not d.moves(rule.rule)]
    return {rule.rule: _changes(run, d, rule, tried, kinds) for rule, tried in zip(rules, _tried(run, d, rules, kinds), strict=True)}


def _tried(run: Run, d: Decisions, rules: Sequence[ReportRule], kinds: dict[str, str]) -> list[list[float]]:
    """Returns for each rule the thresholds to try: its own, and on both sides rounded quantiles of the values that they would bring back or
    drop, in a sample of the report."""
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
    # `place` n: for a minimum, the n lowest thresholds keep the value; for a maximum, all others do.
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
  SELECT unnest({listed(tried)}::DOUBLE[]) AS threshold, unnest(range({last})) AS number
)
SELECT threshold, documents, documents - max(documents) FILTER (number = {tried.index(float(rule.threshold))}) OVER () AS more,
  documents / {d.rows or "NULL"} AS share, characters
FROM (
  SELECT threshold, number, coalesce(sum(documents) FILTER ({keeps}), 0)::BIGINT AS documents,
    coalesce(sum(characters) FILTER ({keeps}), 0)::BIGINT AS characters
  FROM tried LEFT JOIN decided ON true
  GROUP BY threshold, number
)
ORDER BY threshold""")  # fmt: skip
    number = int if isinstance(rule.threshold, int) and all(value == round(value) for value in tried) else float
    rows = [row | {"threshold": number(row["threshold"])} for row in query.rows]
    return Changes(rule, rows, tried.index(float(rule.threshold)), query)


def sensible(value: float, now: float) -> float:
    """Returns a number near `value` with few digits; their distance is at most a tenth of the distance between `value` and `now`."""
    for digits in range(1, 8):
        rounded = float(f"{value:.{digits - 1}e}")
        if abs(rounded - value) <= 0.1 * abs(value - now):
            return rounded
    return value


def recipe_line(rule: str, threshold: float | None) -> str:
    """Returns a threshold as the command line sets it."""
    return f"filter.thresholds.{rule}={'off' if threshold is None else repr(threshold)}"


def change_text(more: int) -> str:
    """Formats a change of a count with its sign."""
    return f"+{more:,}" if more > 0 else f"−{-more:,}" if more < 0 else "±0"


# ---- documents near the thresholds --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NearMisses:
    """The documents on both sides of a rule's threshold, each with its `side` (dropped or kept), its `value` in the rule's column, the
    `others` of the rules that it failed, and its `text`, None if the run does not hold it. `id`: the id of their part of the page."""

    id: str
    rule: RuleCount
    comparison: ReportRule | None
    shown: list[dict[str, Any]]
    query: Query


def read_near_misses(run: Run, d: Decisions, most: int) -> list[NearMisses]:
    """Reads documents for up to `most` rules that fired: those just dropped (those that no other rule dropped come first) and those just
    kept. Ties go by id. Ids are hashes, so for a rule without a numeric threshold this is a random sample."""
    kinds = columns(run, f"{d.stage}_report")
    found = []
    for place, rule in enumerate(d.by_decision()[:most]):
        comparison = d.rule(rule.name)
        dropped = _nearest(d.stage, "dropped", f"list_contains(failed, {literal(rule.name)})", comparison, kinds)
        kept = _nearest(d.stage, "kept", "kept", comparison, kinds)
        both = [dropped, kept] if comparison is not None and comparison.column in kinds else [dropped]
        query = ask(run, "near", f"Documents near {rule.name}", "\nUNION ALL\n".join(f"({each})" for each in both))
        samples = [sample for side in ("dropped", "kept") for sample in _samples(query, rule.name, side)]
        found.append(NearMisses(f"near-{d.stage}-{place}-{slug(rule.name)[:40]}", rule, comparison, samples, query))
    texts = _texts(run, d.stage, [sample["id"] for each in found for sample in each.shown])
    return [replace(each, shown=[sample | {"text": texts.get(sample["id"])} for sample in each.shown]) for each in found]


def _nearest(stage: str, side: str, where: str, rule: ReportRule | None, kinds: dict[str, str]) -> str:
    """SQL: the rows nearest to a threshold, first those that fail no other rule."""
    known = rule is not None and rule.column in kinds
    distance = "0.0::DOUBLE"
    if rule is not None and known and is_number(rule.threshold):
        value = number_of(rule.column, kinds)
        distance, where = f"abs({value} - {literal(float(rule.threshold))})", f"{where} AND {value} IS NOT NULL"
    shown_value = column(rule.column) if rule is not None and known else "reason" if "reason" in kinds and side == "dropped" else "NULL"
    language = "language::VARCHAR" if "language" in kinds else "NULL::VARCHAR"
    return f"""\
SELECT '{side}' AS side, id, url, {shown_value} AS value, failed, {language} AS language, len(failed) > 1 AS later,
  {distance} AS distance
FROM {stage}_report
WHERE {where}
ORDER BY later, distance, id
LIMIT {CANDIDATES}"""


def _samples(query: Query, rule: str, side: str) -> list[dict[str, Any]]:
    """Returns the first documents of one side, without repeats."""
    found: dict[str, dict[str, Any]] = {}
    for row in query.rows:
        if row["side"] == side and row["id"] not in found:
            others = [name for name in row["failed"] or () if name != rule]
            found[row["id"]] = row | {"url": row["url"] or "", "others": others}
    return list(found.values())[:SAMPLES]


def _texts(run: Run, stage: str, ids: Collection[str]) -> dict[str, str]:
    """Returns the beginnings of a stage's input texts by id; where they are missing, the text of a kept document as the stage wrote it."""
    found: dict[str, str] = {}
    for where in (*BEFORE.get(stage, ()), stage):
        missing = sorted(set(ids) - found.keys())
        if missing and f"{where}_documents" in run.tables:
            sql = f"SELECT id, left(text, {SAMPLE_TEXT}) FROM {where}_documents WHERE id IN (SELECT unnest($ids::VARCHAR[]))"
            found |= {id_: text or "" for id_, text in run.rows(sql, ids=missing)}
    return found


# ---- what a newcomer needs first ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ThresholdStep:
    """A rule, and what one step of its threshold is worth: `line`, a change of the recipe, keeps `more` documents. `threshold` is None
    where the line switches the rule off; `line` is None where no count of the report can say what a change keeps."""

    rule: RuleCount
    line: str | None = None
    threshold: float | None = None
    more: int = 0
    query: Query | None = None


@dataclass(frozen=True)
class Headline:
    """What the report says first of a stage. `most`: the rule that failed the most documents. `deciding`: up to `DECIDING` rules that alone
    removed the most documents; what they removed would come back without them."""

    decisions: Decisions
    most: RuleCount
    deciding: list[ThresholdStep]


def headline(decisions: dict[str, Decisions], changes: dict[str, Changes] | None = None) -> Headline | None:
    """Returns the headline for the filter stage, or for the last stage that removed anything. `changes`: those of the filter stage; without
    them, each step switches its rule off."""
    stages = [d for d in (decisions.get("filter"), *reversed(list(decisions.values()))) if d is not None and d.by_removal()]
    if not stages:
        return None
    d, known = stages[0], changes or {}
    alone = [rule for rule in d.by_decision() if rule.alone]
    return Headline(d, d.by_removal()[0], [_step(d, rule, known.get(rule.name)) for rule in alone[:DECIDING]])


def _step(d: Decisions, rule: RuleCount, changes: Changes | None) -> ThresholdStep:
    """Returns the rule with the step that brings back about half of the documents that only this rule removes; where there is none, with
    the rule switched off. One pass can't count the effect where the step would change or end a share."""
    known = d.rule(rule.name)
    if d.stage != "filter" or known is None or known.share or d.moves(rule.name):
        return ThresholdStep(rule)
    looser = [change for change in changes.every if change["more"] > 0] if changes else []
    best = min(looser, key=lambda change: (abs(change["more"] - STEP * rule.alone), change["more"]), default=None)
    if best is None:
        return ThresholdStep(rule, recipe_line(rule.name, None), None, rule.alone, d.query)
    return ThresholdStep(
        rule, recipe_line(rule.name, best["threshold"]), best["threshold"], best["more"], changes.query if changes else None
    )
