"""What another threshold of a rule would keep, all other rules as they are: exact counts for many thresholds from one pass.

A rule decides alone about the documents that fail no other rule. Of these every value is counted between the thresholds that are tried, so
what each of them would keep is a sum.

Not so where another rule keeps a share of the documents that pass this one (`shares_moved`): its threshold is found anew.
"""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.report.facts.scan import Batch
from corpusmill.report.read import Rule

#: For a minimum (`<`, `<=`) a document is kept whose value reaches the threshold, for a maximum one whose value stays below it.
MINIMA, MAXIMA = ("<", "<="), (">", ">=")
#: Thresholds that are tried on either side of the one that decided, and those of them that a table shows.
EACH_SIDE, IN_TABLE = 20, 4
#: Of the documents that are kept now, the tightest threshold that is tried drops about this share.
TIGHTEST = 0.5

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Change:
    """What a threshold keeps, and what it adds to (or takes from) what the run has kept. `threshold` is None for a rule that is off."""

    threshold: float | None
    documents: int
    characters: int
    more: int
    now: bool = False


@dataclass
class Changes:
    """Thresholds of one rule in ascending order, and for each what it keeps: documents, and characters of the text that came in.

    `place` is that of the threshold which decided. `off`: what is kept without the rule. A value that is missing never fails.
    """

    rule: Rule
    thresholds: Floats
    place: int
    documents: Ints = field(init=False)
    characters: Ints = field(init=False)
    off: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        self.documents, self.characters = (np.zeros(len(self.thresholds), np.int64) for _ in range(2))

    @property
    def columns(self) -> Sequence[str]:
        return ("failed", "chars_in", self.rule.column)

    def measure(self, batch: Batch) -> Ints:
        """(2, thresholds + 1): documents and characters that each threshold keeps, and those that are kept without the rule."""
        rows = decided_by(batch, self.rule.rule)
        values, chars = batch.floats(self.rule.column)[rows], np.nan_to_num(batch.floats("chars_in")[rows])
        size = len(self.thresholds)
        inclusive = self.rule.comparison in ("<", ">=")  # of a value that equals the threshold
        places = np.searchsorted(self.thresholds, values, side="right" if inclusive else "left")
        counts = [np.bincount(places, weights, size + 1) for weights in (None, chars)]
        if self.rule.comparison in MINIMA:  # kept by all thresholds below; missing values come last, so by all
            kept = [count.sum() - np.cumsum(count)[:-1] for count in counts]
        else:
            missing = np.isnan(values)
            kept = [np.cumsum(count)[:-1] + lost for count, lost in zip(counts, (missing.sum(), chars[missing].sum()), strict=True)]
        return np.stack([np.append(each, count.sum()) for each, count in zip(kept, counts, strict=True)]).astype(np.int64)

    def add(self, measured: Ints) -> None:
        self.documents, self.characters = self.documents + measured[0, :-1], self.characters + measured[1, :-1]
        self.off = self.off[0] + int(measured[0, -1]), self.off[1] + int(measured[1, -1])

    def change(self, place: int) -> Change:
        """What the threshold at a place would keep."""
        documents, now = int(self.documents[place]), int(self.documents[self.place])
        threshold = shortest(float(self.thresholds[place]), self.whole)
        return Change(threshold, documents, int(self.characters[place]), documents - now, place == self.place)

    @property
    def whole(self) -> bool:
        """Whether all thresholds are whole numbers, and are written as such."""
        return bool(np.all(self.thresholds == np.round(self.thresholds))) and isinstance(self.rule.threshold, int)

    def table(self) -> list[Change]:
        """Some thresholds on either side of the one that decided, spread over what they change, the loosest first."""
        chosen = {self.place, *self._spread(range(self.place)), *self._spread(range(self.place + 1, len(self.thresholds)))}
        rows = [self.change(place) for place in sorted(chosen)]
        off = Change(None, *self.off, self.off[0] - int(self.documents[self.place]))
        return [off, *(rows if self.rule.comparison in MINIMA else rows[::-1])]

    def _spread(self, places: range) -> list[int]:
        """Up to `IN_TABLE` places of some, evenly spaced."""
        if len(places) <= IN_TABLE:
            return list(places)
        return [places[round(step * (len(places) - 1) / (IN_TABLE - 1))] for step in range(IN_TABLE)]


def decided_by(batch: Batch, rule: str) -> Ints:
    """The rows that fail no rule but this one, if any."""
    return np.concatenate([batch.failures.passing, batch.failures.rows_of(rule, alone=True)])


def numeric_rules(rules: Sequence[Rule], schema: pa.Schema) -> list[Rule]:
    """The rules whose threshold is a number that could be another one, of columns that the report has. Of a name that several rules have
    nobody can say which of them fired."""
    names, several = set(schema.names), Counter(rule.rule for rule in rules)
    numbers = [rule for rule in rules if is_number(rule.threshold) and rule.comparison in MINIMA + MAXIMA]
    return [rule for rule in numbers if rule.column in names and several[rule.rule] == 1]


def shares_moved(rules: Sequence[Rule], moved: Collection[str]) -> list[Rule]:
    """The rules that keep a share of what passes the others, and so get another threshold where those of `moved` do."""
    return [rule for rule in rules if moved and rule.share and rule.share[1] == "passing" and rule.rule not in moved]


def is_number(value: Any) -> bool:
    """Whether a threshold is a number: not yes or no, not a list, not one that has yet to be found."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def plan_changes(looked_at: Batch | None, rules: Sequence[Rule]) -> dict[str, Changes]:
    """The thresholds to try of each rule, from some rows of the report: where they would change something."""
    plans = {}
    for rule in rules:
        passing, failing = np.zeros(0), np.zeros(0)
        if looked_at is not None:
            values = looked_at.floats(rule.column)
            passing, failing = values[looked_at.failures.passing], values[looked_at.failures.rows_of(rule.rule, alone=True)]
        tried = _tried(rule, passing[np.isfinite(passing)], failing[np.isfinite(failing)])
        plans[rule.rule] = Changes(rule, tried, int(np.searchsorted(tried, float(rule.threshold))))
    return plans


def _tried(rule: Rule, passing: Floats, failing: Floats) -> Floats:
    """The threshold that decided, and sensible ones on either side: quantiles of the values that they would bring back or drop."""
    now = float(rule.threshold)
    shares = np.arange(1, EACH_SIDE + 1) / EACH_SIDE
    found = {now}
    minimum = rule.comparison in MINIMA
    if len(failing):
        found |= {sensible(value, now) for value in np.quantile(failing, 1 - shares if minimum else shares, method="nearest").tolist()}
    if len(passing):
        tight = TIGHTEST * shares**2
        found |= {sensible(value, now) for value in np.quantile(passing, tight if minimum else 1 - tight, method="nearest").tolist()}
    return np.array(sorted(found))


def sensible(value: float, now: float) -> float:
    """A number with few digits near `value`: not farther from it than a tenth of its distance from `now`."""
    for digits in range(1, 8):
        rounded = float(f"{value:.{digits - 1}e}")
        if abs(rounded - value) <= 0.1 * abs(value - now):
            return rounded
    return value


def shortest(value: float, whole: bool) -> float:
    """A threshold as a recipe would write it."""
    return int(value) if whole else value


def recipe_line(rule: str, threshold: float | None) -> str:
    """What the command line and a recipe call a threshold."""
    return f"filter.thresholds.{rule}={'null' if threshold is None else repr(threshold)}"
