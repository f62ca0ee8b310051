"""The step `classifier`: scores of trained classifiers and of public fastText models. Several of them read the texts once.

Columns of the report: NAME for the label that has the classifier's name, NAME_LABEL for other labels. With windows, NAME_share: the share
of windows at or above the classifier's threshold. With `raw`, NAME_raw. If a model's labels are a scale, NAME is the expected value and
NAME_best the value of the likeliest label. A text without any word or n-gram of the model has no score (null), which fails no rule.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, model_validator

from corpusmill.filters.classifier.options import (
    ClassifierConfig,
    DecisionOptions,
    ModelOptions,
    Resolved,
    Where,
    column_name,
    describe,
    resolve,
)
from corpusmill.filters.classifier.score import HeadScores, Scorer, load_heads
from corpusmill.filters.rules import UNKNOWN, KeptShare, Rule, plain
from corpusmill.filters.step import DocumentBatch, Step, StepOutput, short_form
from corpusmill.pipeline.extras import CLASSIFIERS

# ---- Columns and rules

BEST = "best"  # for a scale: the value of the likeliest label


@dataclass(frozen=True)
class Outputs:
    """A classifier's labels in order, and the columns that they give. `own_thresholds`: the classifier's own thresholds by label, if it
    has any."""

    name: str
    labels: tuple[str, ...]
    window: bool
    scale: tuple[float, ...] = ()  # the number of each label if the labels are a scale; NAME is then the expected value
    own_thresholds: Mapping[str, float] | None = None
    keep_where: Where | None = None  # default for the recipe's option
    threshold: float | None = None  # default for the recipe's option
    comparison: str | None = None  # for the default threshold

    def column(self, label: str) -> str:
        """Returns the column of a label's score: the classifier's name where the label has the same name, else `NAME_LABEL`."""
        label = column_name(label)
        return self.name if label == self.name else f"{self.name}_{label}"

    @property
    def decided(self) -> tuple[str, ...]:
        """The labels that can have a threshold."""
        return (self.name, BEST) if self.scale else self.labels

    @property
    def main(self) -> tuple[str, ...]:
        """The labels that a single threshold applies to: the label with the classifier's name, else all."""
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
        """Returns the templates for `filters.rules.meaning` by column."""
        found = {}
        for label in self.decided:
            column, what = self.column(label), plain(f"the classifier {self.name}" + ("" if label == self.name else f" for {label}"))
            found[column] = f"a score of {{{'number' if self.scale else 'score'}}} by {what}"
            found[f"{column}_share"] = f"{{share}} of its windows reach the threshold of {what}"
        return found

    def rules(self, options: DecisionOptions) -> tuple[Rule, ...]:
        """Returns the rules that a recipe's options define. Raises ValueError if the options do not fit the classifier."""
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
                found = KeptShare(kept[label], options.of)
                rules.append(Rule(column, column, "<" if where == "high" else ">", UNKNOWN, found))
            elif label in thresholds:
                value = self._own_threshold(label) if thresholds[label] == "own" else float(thresholds[label])
                comparison = self.comparison if authors and self.comparison else "<" if where == "high" else ">="
                rules.append(Rule(column, column, comparison, value))
            if label in shares:
                rules.append(Rule(f"{column}_share", f"{column}_share", ">", float(shares[label])))
        return tuple(rules)

    def _by_label(self, key: str, value: Any) -> dict[str, Any]:
        """Returns an option's values by label; a single value applies to the main labels."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            return dict.fromkeys(self.main, value)
        for label in value:
            if label not in self.decided:
                raise ValueError(f"{key}: {self.name} has no label {label!r} (it has {', '.join(self.decided)})")
        return value

    def _own_threshold(self, label: str) -> float:
        if self.own_thresholds is None:
            raise ValueError(f"threshold: {self.name} has no threshold of its own; give a number, or the share to `keep`")
        return self.own_thresholds[label]


def twice(outputs: Sequence[Outputs]) -> str | None:
    """Returns the first name that two classifiers share, else None."""
    names = [each.name for each in outputs]
    return next((name for name in names if names.count(name) > 1), None)


# ---- Steps that score

#: Options that change decisions only, no values.
DECISIONS = ("keep_where", "threshold", "keep", "of", "max_share", "measure_only")


class ScoringStep(Step):
    """A step that scores texts by one or several classifiers. `options`: for each of `outputs`, what its scores decide."""

    def __init__(self, config: Any, outputs: Sequence[Outputs], options: Sequence[DecisionOptions], only_passing: bool):
        super().__init__(config)
        self.outputs, self.options, self.only_passing = outputs, options, only_passing
        self.document_columns = tuple(each.column(label) for each in outputs for label in each.main)
        self._rules = tuple(rule for each, given in zip(outputs, options) for rule in each.rules(given))

    @abstractmethod
    def resolved(self) -> list[Resolved]:
        """Returns the classifiers with their files, fetched or trained if necessary. Raises InputError."""

    def prepare(self, on_message: Callable[[str], None]) -> None:
        """Trains or fetches the classifiers; `on_message` receives a sentence if that takes long."""

    @property
    def columns(self) -> dict[str, pa.DataType]:
        return {name: kind for each, given in zip(self.outputs, self.options) for name, kind in each.columns(given.raw).items()}

    @property
    def rules(self) -> tuple[Rule, ...]:
        return self._rules

    @property
    def meanings(self) -> Mapping[str, str]:
        return {name: template for each in self.outputs for name, template in each.meanings().items()}

    @classmethod
    def without_decisions(cls, options: dict[str, Any]) -> dict[str, Any]:
        plain = {name: value for name, value in options.items() if name not in DECISIONS}
        return plain | {"models": [cls.without_decisions(each) for each in options["models"]]} if "models" in plain else plain

    def classifiers(self) -> dict[str, Resolved]:
        """The classifiers by name."""
        return {each.name: resolved for each, resolved in zip(self.outputs, self.resolved())}

    def bad_from(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for outputs, options, resolved in zip(self.outputs, self.options, self.resolved()):
            if (options.keep_where or outputs.keep_where) == "low" and not outputs.scale:
                found |= {outputs.column(head.label): head.threshold for head in resolved.classifier.heads}
        return found

    def model_digests(self) -> list[str]:
        digests = []
        for resolved in self.resolved():
            digests += [resolved.classifier.digest(), *resolved.files.values()]
        return digests

    def setup(self) -> None:
        self._scorer = Scorer([head for resolved in self.resolved() for head in load_heads(resolved.folder, resolved.classifier)])

    def measure(self, batch: DocumentBatch) -> StepOutput:
        scored = batch.passing if self.only_passing else None
        text = batch.text if scored is None else batch.text.filter(pa.array(scored))
        found = iter(self._scorer.score(text))
        columns: dict[str, npt.NDArray[np.float64]] = {}
        for outputs, options in zip(self.outputs, self.options):
            heads = {label: next(found) for label in outputs.labels}
            if outputs.scale:
                columns |= _on_scale(outputs, heads)
                continue
            for label, head in heads.items():
                column = outputs.column(label)
                columns[column] = head.score
                if outputs.window:
                    columns[f"{column}_share"] = np.where(np.isnan(head.score), np.nan, head.share)
                if options.raw:
                    columns[f"{column}_raw"] = head.raw
        return StepOutput({name: _without_nan(values, scored) for name, values in columns.items()})


class ClassifierStep(ScoringStep):
    Config = ClassifierConfig
    config: ClassifierConfig

    def __init__(self, config: ClassifierConfig):
        outputs = [outputs_of(options) for options in config.each]
        if name := twice(outputs):
            raise ValueError(f"models: two of them are called {name}; `name` gives one of them another")
        self.label = "+".join(each.name for each in outputs)
        super().__init__(config, outputs, config.each, config.only_passing)

    def resolved(self) -> list[Resolved]:
        return [resolve(options) for options in self.config.each]


def outputs_of(options: ModelOptions) -> Outputs:
    """Returns a model's columns and rules. Reads its description, but not the model."""
    described, convention = describe(options), options.convention
    name, labels = options.name or column_name(described.name), tuple(head.label for head in described.heads)
    window, scale = described.window is not None, tuple(options.scale.values())
    if not options.is_file:
        return Outputs(name, labels, window, own_thresholds=None if described.ranks else {h.label: h.threshold for h in described.heads})
    if convention is None:
        return Outputs(name, labels, window, scale)
    return Outputs(name, labels, window, scale, None, convention.keep_where, convention.threshold, convention.comparison)


def _on_scale(outputs: Outputs, heads: "Mapping[str, HeadScores]") -> dict[str, npt.NDArray[np.float64]]:
    """Returns the expected value and the value of the likeliest label, from fastText's probabilities as the model cards compute them.

    The probabilities add up to a little more than 1, because fastText rounds them.
    """
    raw = np.stack([head.raw for head in heads.values()])  # (labels, texts)
    known, values = ~np.isnan(raw).any(axis=0), np.array(outputs.scale)
    best = np.where(known, values[np.where(known, raw, 0).argmax(axis=0)], np.nan)
    total = np.zeros(raw.shape[1])
    for value, chance in zip(values, raw):  # label by label, so that a sum does not depend on the number of texts
        total += value * chance
    return {outputs.column(outputs.name): total, outputs.column(BEST): best}


def _without_nan(values: npt.NDArray[np.float64], scored: npt.NDArray[np.bool_] | None) -> pa.Array:
    """Returns the values as a column; null for NaN and for documents that were not scored."""
    if scored is not None:
        every = np.full(len(scored), np.nan)
        every[scored] = values
        values = every
    return pa.array(values, pa.float64(), mask=np.isnan(values))


# ---- The steps `quality`, `toxicity` and `spam`.
#
# The model of `quality` is trained at first use, on data from registry packages. It puts pages in order, so it decides by a kept share or
# by a threshold in the recipe; without these it drops nothing. `toxicity` and `spam` need a model from the user: no package has text that
# people have judged for toxicity, nor spam of the web, and classifiers made without such text fired on most clean pages
# (docs/stages/classifiers.md).

BUILTIN = ("quality",)
#: For steps without a built-in model: why there is none, and how to make one.
NO_MODEL = {
    name: f"none is built in, since no package ships {what}; train one on labelled texts (`corpusmill classifier train labelled.jsonl "
    f"--output models/{name}`, where `label` is 1 or 0) and name it: `- {name}: models/{name}` (docs/stages/classifiers.md)"
    for name, what in (("toxicity", "text that people have judged"), ("spam", "judged spam of the web"))
}


class QualityConfig(DecisionOptions):
    """A quality score in [0, 1]: edited prose against mail (a built-in classifier); drops nothing by default."""

    only_passing: bool = Field(False, description="Documents that fail a rule of an earlier step are not scored (null), which saves time.")

    @model_validator(mode="before")
    @classmethod
    def _has_its_model(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and "model" in given:
            raise ValueError("model: this step has its own; for another, `- classifier: {model: ..., name: ...}`")
        return given


class Quality(ScoringStep):
    Config = QualityConfig
    config: QualityConfig
    libraries = CLASSIFIERS  # the model is trained at first use, and their versions are part of its name

    def __init__(self, config: QualityConfig):
        # Without `own_thresholds`: the model's threshold separates encyclopedia from mail, its training texts, and means nothing for pages.
        outputs = Outputs("quality", ("quality",), config.window is not None, keep_where="high", threshold=0.0, comparison="<")
        super().__init__(config, [outputs], [config], config.only_passing)

    def prepare(self, on_message: Callable[[str], None]) -> None:
        from corpusmill.filters.classifier.builtin import builtin  # it imports numba, which reading a recipe does not need

        builtin("quality", on_message)

    def resolved(self) -> list[Resolved]:
        from corpusmill.filters.classifier.builtin import builtin

        return [resolve(ModelOptions.model_validate({"model": str(builtin("quality")), "window": self.config.window}))]


class _NamedConfig(ClassifierConfig):
    """The options of `classifier`, with the step's name as the default name of its columns; high scores are bad."""

    kind: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _has_a_model(cls, given: Any) -> Any:
        given = short_form(given, "model", cls) if isinstance(given, str) else given
        if not isinstance(given, Mapping):
            return given
        if not given.get("model"):
            raise ValueError(f"model: {NO_MODEL[cls.kind]}")
        return {"name": cls.kind, "keep_where": "low", **given}


class ToxicityConfig(_NamedConfig):
    """A toxicity score in [0, 1] by a classifier of yours; drops nothing by default."""

    kind = "toxicity"


class SpamConfig(_NamedConfig):
    """A spam score in [0, 1] by a classifier of yours; drops nothing by default."""

    kind = "spam"


class _NamedStep(ScoringStep):
    """The step `classifier` for one named score.

    Without a threshold in the recipe it has a rule that fails no document, which records that low scores are good.
    """

    config: _NamedConfig

    def __init__(self, config: _NamedConfig):
        outputs = replace(outputs_of(config), keep_where="low", threshold=1.0, comparison=">")
        super().__init__(config, [outputs], [config], config.only_passing)

    def resolved(self) -> list[Resolved]:
        return [resolve(self.config)]


class Toxicity(_NamedStep):
    Config = ToxicityConfig


class Spam(_NamedStep):
    Config = SpamConfig
