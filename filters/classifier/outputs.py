"""The columns and rules of a classifier in the report: NAME and NAME_LABEL, and which of them decides about what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from corpusmill.filters.classifier.conventions import Where
from corpusmill.filters.classifier.options import DecisionOptions
from corpusmill.filters.classifier.resolve import column_name
from corpusmill.filters.meanings import plain
from corpusmill.filters.rules import UNKNOWN, Rule, Share

BEST = "best"  # of a scale: the value of the likeliest label


@dataclass(frozen=True)
class Outputs:
    """A classifier's labels in order, and what is measured of each. `own` gives its thresholds by label, where it has some."""

    name: str
    labels: tuple[str, ...]
    window: bool
    scale: tuple[float, ...] = ()  # what each label stands for, where they are steps: then there are an expected value and the likeliest
    own: Mapping[str, float] | None = None
    keep_where: Where | None = None  # unless the recipe says it
    threshold: float | None = None  # unless the recipe says one
    comparison: str | None = None  # that goes with it

    def column(self, label: str) -> str:
        """The column of a label's score: NAME for the label of that name, NAME_LABEL for others."""
        label = column_name(label)
        return self.name if label == self.name else f"{self.name}_{label}"

    @property
    def decided(self) -> tuple[str, ...]:
        """What can have a threshold."""
        return (self.name, BEST) if self.scale else self.labels

    @property
    def main(self) -> tuple[str, ...]:
        """The labels that a single threshold is for: the one with the classifier's name, else all."""
        named = tuple(label for label in self.decided if column_name(label) == self.name)
        return named or self.decided

    def columns(self, raw: bool) -> dict[str, pa.DataType]:
        columns: dict[str, pa.DataType] = {}
        for label in self.decided:
            column = self.column(label)
            columns[column] = pa.float64()
            if self.window:
                columns[f"{column}_share"] = pa.float64()
            if raw and not self.scale:
                columns[f"{column}_raw"] = pa.float64()
        return columns

    def meanings(self) -> dict[str, str]:
        """Templates of `filters.meanings` by column."""
        found = {}
        for label in self.decided:
            column, what = self.column(label), plain(f"the classifier {self.name}" + ("" if label == self.name else f" for {label}"))
            found[column] = f"a score of {{number}} by {what}"
            found[f"{column}_share"] = f"{{share}} of its windows reach the threshold of {what}"
        return found

    def rules(self, options: DecisionOptions) -> tuple[Rule, ...]:
        """The rules that a recipe's options make of it. Raises ValueError where they do not fit."""
        if options.measure_only:
            return ()
        thresholds, kept = self._by_label("threshold", options.threshold), self._by_label("keep", options.keep)
        authors = self.threshold is not None and not thresholds and not kept
        if authors:
            thresholds = dict.fromkeys(self.main, self.threshold)
        shares = self._by_label("max_share", options.max_share)
        if shares and not self.window:
            raise ValueError(f"max_share: {self.name} scores texts as a whole; with `window: 100` it scores windows of 100 words")
        where = options.keep_where or self.keep_where
        if (thresholds or kept) and where is None:
            raise ValueError("keep_where: say which scores are good, high (as of quality) or low (as of toxicity)")
        rules = []
        for label in self.decided:
            column = self.column(label)
            if label in kept:
                found = Share(kept[label], options.of)
                rules.append(Rule(column, column, "<" if where == "high" else ">", UNKNOWN, found))
            elif label in thresholds:
                value = self._own(label) if thresholds[label] == "own" else float(thresholds[label])
                comparison = self.comparison if authors and self.comparison else "<" if where == "high" else ">="
                rules.append(Rule(column, column, comparison, value))
            if label in shares:
                rules.append(Rule(f"{column}_share", f"{column}_share", ">", float(shares[label])))
        return tuple(rules)

    def _by_label(self, key: str, value: Any) -> dict[str, Any]:
        """What an option says of each label; one value is for the main ones."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            return dict.fromkeys(self.main, value)
        for label in value:
            if label not in self.decided:
                raise ValueError(f"{key}: {self.name} has no label {label!r} (it has {', '.join(self.decided)})")
        return value

    def _own(self, label: str) -> float:
        if self.own is None:
            raise ValueError(f"threshold: {self.name} has no threshold of its own; give a number, or the share to `keep`")
        return self.own[label]


def twice(outputs: Sequence[Outputs]) -> str | None:
    """A name that two of the classifiers have."""
    names = [each.name for each in outputs]
    return next((name for name in names if names.count(name) > 1), None)
