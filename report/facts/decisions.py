"""What a stage's report says, in one pass: rules, their overlap, histograms, other thresholds, documents near to each threshold."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from corpusmill.report.facts.failures import Failures
from corpusmill.report.facts.histogram import Histogram, Histograms, measured_columns, plan_histograms
from corpusmill.report.facts.near import SAMPLES, Near, Sample
from corpusmill.report.facts.overlap import BatchCombinations, Overlap, combinations
from corpusmill.report.facts.scan import Batch, Measure, sample, scan
from corpusmill.report.facts.thresholds import Changes, numeric_rules, plan_changes, shares_moved
from corpusmill.report.meanings import read_meanings
from corpusmill.report.read import Rule, RunReader

__all__ = ["SAMPLES", "Decisions", "RuleCount", "Sample", "read_decisions"]

#: Rows from which edges of histograms and other thresholds are chosen; all are counted.
SAMPLE_ROWS = 100_000


@dataclass
class RuleCount:
    """How often a rule fired in a stage, how often it alone, and how often it was the first of a document's: documents, and characters of
    the text that came in."""

    name: str
    fired: int = 0
    alone: int = 0
    first: int = 0
    chars_fired: int = 0
    chars_alone: int = 0
    chars_first: int = 0


@dataclass
class Decisions:
    """All counts of one stage's report."""

    stage: str
    rows: int = 0
    kept: int = 0
    chars_in: int = 0
    chars_out: int = 0
    rules: dict[str, RuleCount] = field(default_factory=dict)
    overlap: Overlap = field(default_factory=Overlap)
    thresholds: list[Rule] = field(default_factory=list)
    meanings: dict[str, str] = field(default_factory=dict)  # by rule: what a document fails it for, in words
    histograms: dict[str, Histogram] = field(default_factory=dict)
    numeric: list[str] = field(default_factory=list)  # rules whose threshold may be another number
    changes: dict[str, Changes] = field(default_factory=dict)  # by rule; of the numeric ones that move no other
    just_dropped: dict[str, list[Sample]] = field(default_factory=dict)
    just_kept: dict[str, list[Sample]] = field(default_factory=dict)

    @property
    def dropped(self) -> int:
        return self.rows - self.kept

    @property
    def together(self) -> Counter[tuple[str, str]]:
        """Documents by pair of rules that fired together."""
        return self.overlap.together

    def by_removal(self) -> list[RuleCount]:
        """The rules that fired, the most frequent first."""
        return sorted((r for r in self.rules.values() if r.fired), key=lambda r: (-r.fired, r.name))

    def rule(self, name: str) -> Rule | None:
        """The comparison of a rule; None where the stage has none of this name."""
        return next((rule for rule in self.thresholds if rule.rule == name), None)

    def moves(self, name: str) -> list[str]:
        """The rules that keep a share of what passes the others, so that another threshold of this one moves theirs."""
        return [rule.rule for rule in shares_moved(self.thresholds, [name])]

    @property
    def sharing(self) -> list[str]:
        """The rules that keep a share of what passes the others."""
        return self.moves("")


@dataclass
class Counts:
    """The measure of documents, characters, rules and combinations."""

    result: Decisions
    columns: Sequence[str] = ("kept", "failed", "chars_in", "chars_out")

    def measure(self, batch: Batch) -> tuple[list[int], tuple[str, ...], npt.NDArray[np.int64], BatchCombinations]:
        """Rows, kept, characters in and out; names of rules with their six counts (rules, 6); combinations."""
        chars = np.nan_to_num(batch.floats("chars_in"))
        totals = [len(batch), int(batch.kept.sum()), int(chars.sum()), int(np.nansum(batch.floats("chars_out")))]
        return totals, batch.failures.names, _rule_counts(batch.failures, chars), combinations(batch.failures, chars)

    def add(self, measured: tuple[list[int], tuple[str, ...], npt.NDArray[np.int64], BatchCombinations]) -> None:
        totals, names, counts, found = measured
        r = self.result
        r.rows, r.kept, r.chars_in, r.chars_out = (a + b for a, b in zip((r.rows, r.kept, r.chars_in, r.chars_out), totals, strict=True))
        for name, each in zip(names, counts.tolist(), strict=True):
            rule = r.rules.setdefault(name, RuleCount(name))
            rule.fired, rule.alone, rule.first = rule.fired + each[0], rule.alone + each[1], rule.first + each[2]
            rule.chars_fired, rule.chars_alone = rule.chars_fired + each[3], rule.chars_alone + each[4]
            rule.chars_first += each[5]
        r.overlap.add(found)


def _rule_counts(failures: Failures, chars: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """(rules, 6): documents that failed each rule, it alone, it as the first; then their characters. `chars` (n,) are those of the rows."""
    size = len(failures.names)
    masks = (np.ones(len(failures.codes), bool), failures.alones, failures.firsts)
    found = [np.bincount(failures.codes[mask], minlength=size) for mask in masks]
    found += [np.bincount(failures.codes[mask], chars[failures.rows[mask]], size) for mask in masks]  # exact below 2**53
    return np.stack(found, axis=1).astype(np.int64)


def read_decisions(
    reader: RunReader, stage: str, histograms: bool = True, samples: bool = True, others: Sequence[Measure] = ()
) -> Decisions | None:
    """The decisions of a stage; None where it has no usable report. Memory does not grow with the number of rows.

    `others` are measures that want to see the same rows.
    """
    schema = reader.schema(stage, "report")
    if schema is None or not reader.is_report(stage):
        return None
    result = Decisions(stage, thresholds=reader.rules(stage), meanings=read_meanings(reader, stage))
    result.rules = {rule.rule: RuleCount(rule.rule) for rule in result.thresholds}
    result.overlap.declare(list(result.rules))
    measures: list[Measure] = [Counts(result)]
    if histograms:
        columns = measured_columns(schema, stage)
        wanted = list(dict.fromkeys(["kept", "failed", "chars_in", *columns, *(rule.column for rule in result.thresholds)]))
        looked_at = sample(reader, stage, wanted, SAMPLE_ROWS)
        result.histograms = plan_histograms(looked_at, columns, _marks(result.thresholds))
        numeric = numeric_rules(result.thresholds, schema)
        result.numeric = [rule.rule for rule in numeric]
        result.changes = plan_changes(looked_at, [rule for rule in numeric if not result.moves(rule.rule)])
        measures += [Histograms(result.histograms), *result.changes.values()]
    near = Near(result.thresholds, schema) if samples else None
    scan(reader, stage, [*measures, *([near] if near else []), *others])
    if near:
        result.just_dropped, result.just_kept = near.dropped, near.kept
    return result


def _marks(rules: list[Rule]) -> dict[str, list[float]]:
    marks: dict[str, list[float]] = {}
    for rule in rules:
        if isinstance(rule.threshold, int | float):
            marks.setdefault(rule.column, []).append(float(rule.threshold))
    return marks
