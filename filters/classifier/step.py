"""The step `classifier`: scores of a trained classifier or of a public fastText model.

Columns of the report: NAME for the label that has the classifier's name, NAME_LABEL for other labels. If a model's labels are a scale, NAME
is the expected value and NAME_best the value of the likeliest label. A text without any word or n-gram of the model has no score (null),
which fails no rule. `quality`, `toxicity` and `spam` are the same step with other defaults.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.filters.classifier.options import (
    ClassifierConfig,
    QualityConfig,
    Resolved,
    SpamConfig,
    ToxicityConfig,
    column_name,
    describe,
    resolve,
    score_column,
)
from corpusmill.filters.classifier.score import Scorer
from corpusmill.filters.rules import UNKNOWN, KeptShare, Rule, plain
from corpusmill.filters.step import DocumentBatch, Step, StepOutput
from corpusmill.pipeline.extras import CLASSIFIERS

BEST = "best"  # for a scale: the value of the likeliest label
#: Options that change decisions only, no values.
DECISIONS = ("keep_where", "threshold", "keep", "of")


class ClassifierStep(Step):
    Config: ClassVar[type[ClassifierConfig]] = ClassifierConfig
    config: ClassifierConfig

    def __init__(self, config: ClassifierConfig):
        super().__init__(config)
        described = describe(config)  # the model itself is not read
        self.name = config.name or column_name(described.name)
        self.label = "" if config.STEP else self.name
        self.own_thresholds = {} if config.is_file or described.ranks else {head.label: head.threshold for head in described.heads}
        #: The labels that can have a threshold, and of these the ones that a single threshold is for.
        self.labels = (self.name, BEST) if config.values else tuple(head.label for head in described.heads)
        self.main = tuple(label for label in self.labels if column_name(label) == self.name) or self.labels
        self.document_columns = tuple(score_column(self.name, label) for label in self.main)
        self.only_passing = config.only_passing
        self.libraries = () if config.model else CLASSIFIERS  # a built-in model is trained at first use
        if len(self.columns) < len(self.labels):
            raise ValueError(f"two of the labels of {self.name} would give one column ({', '.join(self.columns)})")
        self._rules = self._decide()

    @property
    def columns(self) -> dict[str, pa.DataType]:
        return {score_column(self.name, label): pa.float64() for label in self.labels}

    @property
    def rules(self) -> tuple[Rule, ...]:
        return self._rules

    @property
    def meanings(self) -> Mapping[str, str]:
        found = {}
        for label in self.labels:
            what = plain(f"the classifier {self.name}" + ("" if label == self.name else f" for {label}"))
            found[score_column(self.name, label)] = f"a score of {{{'number' if self.config.values else 'score'}}} by {what}"
        return found

    def _decide(self) -> tuple[Rule, ...]:
        """Returns the rules that the options define. Raises ValueError if the options do not fit the classifier."""
        thresholds, kept = self._by_label("threshold"), self._by_label("keep")
        high = self.config.keep_where == "high"
        if (thresholds or kept) and self.config.keep_where is None:
            raise ValueError("keep_where: say which scores are good, high (as of quality) or low (as of toxicity)")
        rules = []
        for label in self.labels:
            column = score_column(self.name, label)
            if label in kept:
                rules.append(Rule(column, column, "<" if high else ">", UNKNOWN, KeptShare(kept[label], self.config.of)))
            elif label in thresholds:
                value = self._own_threshold(label) if thresholds[label] == "own" else float(thresholds[label])
                rules.append(Rule(column, column, "<" if high else ">=", value))
            elif label in self.main and self.config.STEP and not thresholds and not kept:  # fails nothing, and says which scores are good
                rules.append(Rule(column, column, *(("<", 0.0) if high else (">", 1.0))))
        return tuple(rules)

    def _by_label(self, key: str) -> dict[str, Any]:
        """Returns an option's values by label; a single value is for the main labels."""
        value = getattr(self.config, key)
        if not isinstance(value, dict):
            return {} if value is None else dict.fromkeys(self.main, value)
        for label in value:
            if label not in self.labels:
                raise ValueError(f"{key}: {self.name} has no label {label!r} (it has {', '.join(self.labels)})")
        return value

    def _own_threshold(self, label: str) -> float:
        if label not in self.own_thresholds:
            raise ValueError(f"threshold: {self.name} has no threshold of its own; give a number, or the share to `keep`")
        return self.own_thresholds[label]

    @classmethod
    def without_decisions(cls, options: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in options.items() if name not in DECISIONS}

    def resolved(self, on_message: Callable[[str], None] = lambda _: None) -> Resolved:
        """Returns the classifier with its files, fetched or trained if necessary. Raises InputError."""
        return resolve(self.config, on_message)

    def bad_from(self) -> dict[str, float]:
        if self.config.keep_where != "low" or self.config.values:
            return {}
        return {score_column(self.name, head.label): head.threshold for head in self.resolved().classifier.heads}

    def model_digests(self) -> list[str]:
        resolved = self.resolved()
        return [resolved.classifier.digest(), *resolved.files.values()]

    def setup(self) -> None:
        resolved = self.resolved()
        self._scorer = Scorer(resolved.folder, resolved.classifier)

    def measure(self, batch: DocumentBatch) -> StepOutput:
        scored = batch.passing if self.only_passing else None
        found = self._scorer.score(batch.text if scored is None else batch.text.filter(pa.array(scored)))
        if self.config.values:
            found = _on_scale(found, list(self.config.values.values()))
        return StepOutput({name: _without_nan(values, scored) for name, values in zip(self.columns, found, strict=True)})


class Quality(ClassifierStep):
    Config = QualityConfig


class Toxicity(ClassifierStep):
    Config = ToxicityConfig


class Spam(ClassifierStep):
    Config = SpamConfig


def _on_scale(scores: Sequence[npt.NDArray[np.float64]], values: Sequence[float]) -> list[npt.NDArray[np.float64]]:
    """Returns the expected value and the value of the likeliest label, from fastText's probabilities as the model cards compute them.

    The probabilities add up to a little more than 1, because fastText rounds them.
    """
    chances = np.stack(scores)  # (labels, texts)
    known = ~np.isnan(chances).any(axis=0)
    best = np.where(known, np.array(values)[np.where(known, chances, 0).argmax(axis=0)], np.nan)
    total = np.zeros(chances.shape[1])
    for value, chance in zip(values, chances):  # label by label, so that a sum does not depend on the number of texts
        total += value * chance
    return [total, best]


def _without_nan(values: npt.NDArray[np.float64], scored: npt.NDArray[np.bool_] | None) -> pa.Array:
    """Returns the values as a column; null for NaN and for documents that were not scored."""
    if scored is not None:
        every = np.full(len(scored), np.nan)
        every[scored] = values
        values = every
    return pa.array(values, pa.float64(), mask=np.isnan(values))
