"""Rules: comparisons of measured columns with thresholds. The rules of each filter stand in the filter's module, by preset."""

import json
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from string import Formatter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.names import instead_of
from corpusmill.pipeline.schemas import meanings_metadata

#: The key of the report's schema metadata that has a JSON list of {step, rule, column, comparison, threshold}.
METADATA_KEY = b"corpusmill.rules"

Threshold = float | int | tuple[str, ...]

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq,
}  # fmt: skip
NOT_IN = "not in"  # of a list of strings
#: The threshold of a rule with `kept` until it is found. No document fails the rule until then.
UNKNOWN = math.nan


@dataclass(frozen=True)
class KeptShare:
    """How much of the corpus a rule keeps: `share` (above 0, at most 1).

    `of`: the documents of which this is the share. `passing`: those that pass all rules with a given threshold; `all`: all documents.
    Documents without a value do not count.
    """

    share: float
    of: str


@dataclass(frozen=True)
class Rule:
    """A rule: a document fails it if `column comparison threshold` is true. NaN and null never fail.

    With `kept` the threshold is the value that keeps this share of the corpus (kept_share.py).
    """

    name: str
    column: str
    comparison: str
    threshold: Threshold
    kept: KeptShare | None = None

    def __post_init__(self) -> None:
        if self.comparison not in COMPARISONS and self.comparison != NOT_IN:
            raise ValueError(f"{self.name}: no such comparison: {self.comparison!r} (expected one of {', '.join([*COMPARISONS, NOT_IN])})")

    @property
    def unknown(self) -> bool:
        """Whether the threshold has still to be found."""
        return self.kept is not None and self.threshold != self.threshold

    def failing(self, column: pa.Array) -> npt.NDArray[np.bool_]:
        """bool (documents,): whether each document fails. `column`: the documents' values."""
        if self.comparison == NOT_IN:
            inside = pc.is_in(column, value_set=pa.array(self.threshold, pa.string()))
            return np.asarray(pc.and_(pc.invert(inside), pc.is_valid(column)).to_numpy(zero_copy_only=False), bool)
        values = column.to_numpy(zero_copy_only=False)  # nulls become NaN
        return np.asarray(fails(self.comparison, values, self.threshold), bool)


def fails(comparison: str, values: Any, threshold: Any) -> Any:
    """Returns whether a value, or each of an array, fails a rule with this number as threshold. NaN compares as false with everything. A
    threshold beyond the range of the values' type is infinite."""
    with np.errstate(over="ignore"):
        return COMPARISONS[comparison](values, threshold)


def limits(*rules: tuple[str, str, str, float | None]) -> tuple[Rule, ...]:
    """Returns the rules `(name, column, comparison, threshold)` that a recipe's options give, without the rules whose threshold is null."""
    return tuple(Rule(name, column, comparison, limit) for name, column, comparison, limit in rules if limit is not None)


@dataclass(frozen=True)
class StepRule:
    """A rule with its step, named as in the report. `template`: the wording of its meaning (`meaning`)."""

    step: str
    rule: Rule
    template: str = ""

    @property
    def meaning(self) -> str:
        """Why a document fails, as a phrase with the threshold; empty without a template."""
        return meaning(self.template, self.rule.comparison, self.rule.threshold)

    @property
    def kind(self) -> str:
        """What the template says of the column: a key of RANGES, or empty."""
        return next((field for _, field, _, _ in Formatter().parse(self.template) if field in RANGES), "")

    def check(self, threshold: float) -> None:
        """Raises ValueError for a threshold that no value of the column can have."""
        check_range(self.rule.name, self.rule.column, self.kind, threshold)

    def as_json(self) -> dict[str, Any]:
        threshold = list(self.rule.threshold) if isinstance(self.rule.threshold, tuple) else self.rule.threshold
        kept = {"kept": {"share": self.rule.kept.share, "of": self.rule.kept.of}} if self.rule.kept else {}
        kind = {"kind": self.kind} if self.kind else {}
        return {
            "step": self.step, "rule": self.rule.name, "column": self.rule.column,
            "comparison": self.rule.comparison, "threshold": threshold, **kind, **kept,
        }  # fmt: skip


def with_thresholds(rules: Iterable[StepRule], thresholds: Mapping[str, float | None]) -> list[StepRule]:
    """Returns the rules with some thresholds replaced, by rule name; None removes a rule. Raises ValueError if one does not fit."""
    rules = list(rules)
    by_name = {rule.rule.name: rule.rule for rule in rules}
    for name in thresholds:
        if name not in by_name:
            raise ValueError(f"thresholds.{name}: no such rule{instead_of(name, by_name)}")
        if isinstance(by_name[name].threshold, tuple) and thresholds[name] is not None:
            raise ValueError(f"thresholds.{name}: this rule compares with a list; it takes off or on, and no number")
    changed = []
    for rule in rules:
        if rule.rule.name not in thresholds:
            changed.append(rule)
        elif (threshold := thresholds[rule.rule.name]) is not None:
            changed.append(replace(rule, rule=replace(rule.rule, threshold=threshold, kept=None)))
    for rule in changed:
        if not isinstance(rule.rule.threshold, tuple) and not rule.rule.unknown:
            rule.check(rule.rule.threshold)
    return changed


def check_range(rule: str, column: str, kind: str, threshold: float) -> None:
    """Raises ValueError for a threshold that no value of the rule's column can have. `kind`: as `StepRule.kind`."""
    low, high, words = RANGES.get(kind, (-math.inf, math.inf, ""))
    if not low <= threshold <= high:
        perhaps = f"; {threshold:g}% is {threshold / 100:g}" if high == 1 and 1 < threshold <= 100 else ""
        raise ValueError(f"{rule} compares {column}, {words}, not {threshold:g}{perhaps}")


def decide(rules: Sequence[StepRule], values: Mapping[str, pa.Array], documents: int) -> pa.Array:
    """Returns the report's column `failed`: for each document the names of all rules that it fails, in the order of the rules.

    `values`: the rules' columns, each with `documents` items.
    """
    failing = np.zeros((documents, len(rules)), bool)
    for place, rule in enumerate(rules):
        failing[:, place] = rule.rule.failing(values[rule.rule.column])
    rows, places = np.nonzero(failing)
    offsets = np.searchsorted(rows, np.arange(documents + 1)).astype(np.int32)
    names = pa.array([rule.rule.name for rule in rules], pa.string())
    return pa.ListArray.from_arrays(pa.array(offsets), names.take(pa.array(places)))


def rules_metadata(rules: Iterable[StepRule]) -> dict[bytes, bytes]:
    """Returns the rules and their meanings as schema metadata of a report table."""
    rules = list(rules)
    plain = {METADATA_KEY: json.dumps([rule.as_json() for rule in rules], ensure_ascii=False).encode()}
    return plain | meanings_metadata({rule.rule.name: rule.meaning for rule in rules if rule.meaning})


# ---- Why a rule fails a document, as a phrase: "fewer than 50 words". A step has a template for each column with a rule.
#
# A template holds one of these fields, which are replaced by the comparison with the threshold:
#
#     {count}   a number of things: fewer than 50, more than 100,000, exactly 3
#     {number}  a measured value: less than 3, at least 0.5
#     {score}   a number from 0 to 1
#     {share}   a part of a whole, in per cent: more than 30%
#     {ratio}   a number of things to that of others, in per cent, and perhaps more than 100%
#     {list}    the items of a list: en, de

#: The lowest and the highest threshold for a field, and what it is in words.
RANGES = {
    "count": (0, math.inf, "a count from 0 on"),
    "score": (0, 1, "a score from 0 to 1"),
    "share": (0, 1, "a share from 0 to 1"),
    "ratio": (0, math.inf, "a ratio from 0 on"),
}

WORDS: dict[str, dict[str, str]] = {
    "count": {"<": "fewer than", "<=": "at most", ">": "more than", ">=": "at least", "==": "exactly"},
    "number": {"<": "less than", "<=": "at most", ">": "more than", ">=": "at least", "==": "exactly"},
}


def meaning(template: str, comparison: str, threshold: Any) -> str:
    """Returns the phrase of a rule; empty without a template, or if the threshold has still to be found."""
    if not template or threshold != threshold:
        return ""
    if isinstance(threshold, tuple | list):
        return template.format(list=", ".join(threshold))
    number, percent = (f"{WORDS['number'][comparison]} {shown}" for shown in (f"{threshold:,}", f"{100 * threshold:.6g}%"))
    count = _count(comparison, threshold, template.startswith("{count} of"))
    return template.format(count=count, number=number, score=number, share=percent, ratio=percent)


def _count(comparison: str, threshold: float, of: bool) -> str:
    if (comparison, threshold) in (("<", 1), ("<=", 0)):
        return "none" if of else "no"
    return "one or more" if (comparison, threshold) == (">", 0) else f"{WORDS['count'][comparison]} {threshold:,}"


def words_of(words: tuple[str, ...]) -> str:
    """Returns a list of words as text for a template: the first dozen, and the number of the rest."""
    return plain(", ".join(words[:12]) + (f" and {len(words) - 12} more" if len(words) > 12 else ""))


def plain(text: str) -> str:
    """Escapes a text for a template: its braces are doubled."""
    return text.replace("{", "{{").replace("}", "}}")


def n_grams(top: str, duplicated: str) -> dict[str, str]:
    """Returns templates for columns about repeated phrases.

    `top` and `duplicated`: the columns' names, with `{}` for the number of words.
    """
    once = {top.format(n): f"one phrase of {n} words takes up {{share}} of the text" for n in (2, 3, 4)}
    return once | {duplicated.format(n): f"{{share}} of the text is in repeated phrases of {n} words" for n in range(5, 11)}
