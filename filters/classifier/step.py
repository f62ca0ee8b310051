"""The step `classifier`: scores of trained classifiers and of public fastText models, several over one reading of the texts.

Columns of the report: NAME for the label that has the classifier's name, NAME_LABEL for others; with windows NAME_share (of windows at the
classifier's threshold or above), with `raw` NAME_raw. Of a model whose labels are a scale: NAME, the expected value, and NAME_best, that of
the likeliest label. A text with nothing that a model knows has no score (null), which fails no rule.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.filters.classifier.options import ClassifierConfig, DecisionOptions, ModelOptions
from corpusmill.filters.classifier.outputs import BEST, Outputs, twice
from corpusmill.filters.classifier.resolve import Resolved, heads_of, name_of, own_description, resolve
from corpusmill.filters.rules import Rule
from corpusmill.filters.step import Batch, Measured, Step

if TYPE_CHECKING:
    from corpusmill.filters.classifier.scorer import HeadScores

#: Options that change no value.
DECISIONS = ("keep_where", "threshold", "keep", "of", "max_share", "measure_only")


class ScoringStep(Step):
    """A step that scores by one or several classifiers. `options` says what the scores of each of `outputs` decide."""

    def __init__(self, config: Any, outputs: Sequence[Outputs], options: Sequence[DecisionOptions], only_passing: bool):
        super().__init__(config)
        self.outputs, self.options, self.only_passing = outputs, options, only_passing
        self.document_columns = tuple(each.column(label) for each in outputs for label in each.main)
        self._rules = tuple(rule for each, given in zip(outputs, options) for rule in each.rules(given))

    @abstractmethod
    def resolved(self) -> list[Resolved]:
        """The classifiers with their files, fetched or trained where need be. Raises InputError."""

    def prepare(self, say: Callable[[str], None]) -> None:
        """Sees to it that the classifiers are there, where that takes long enough to `say` so."""

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

    def firing(self) -> dict[str, float]:
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
        from corpusmill.filters.classifier.scorer import Scorer, load_heads

        self._scorer = Scorer([head for resolved in self.resolved() for head in load_heads(resolved.folder, resolved.classifier)])

    def measure(self, batch: Batch) -> Measured:
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
        return Measured({name: _without_nan(values, scored) for name, values in columns.items()})


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
    """What a model's columns and rules are: known before the model is read."""
    described, name = own_description(options), name_of(options)
    if described is not None:
        labels = tuple(head.label for head in described.heads)
        own = None if described.ranks else {head.label: head.threshold for head in described.heads}
        return Outputs(name, labels, (options.window or described.window) is not None, own=own)
    labels, convention = tuple(label for label, _ in heads_of(options)), options.convention
    scale = tuple((options.values or (convention.values if convention else {})).values())
    if convention is None:
        return Outputs(name, labels, options.window is not None, scale)
    return Outputs(
        name, labels, options.window is not None, scale, None, convention.keep_where, convention.threshold, convention.comparison
    )


def _on_scale(outputs: Outputs, heads: "Mapping[str, HeadScores]") -> dict[str, npt.NDArray[np.float64]]:
    """The expected value, and that of the likeliest label.

    As the model cards have it, the probabilities are fastText's, which its rounding makes add up to a little more than 1.
    """
    raw = np.stack([head.raw for head in heads.values()])  # (labels, texts)
    known, values = ~np.isnan(raw).any(axis=0), np.array(outputs.scale)
    best = np.where(known, values[np.where(known, raw, 0).argmax(axis=0)], np.nan)
    total = np.zeros(raw.shape[1])
    for value, chance in zip(values, raw):  # label by label, so that no sum depends on how many texts there are
        total += value * chance
    return {outputs.column(outputs.name): total, outputs.column(BEST): best}


def _without_nan(values: npt.NDArray[np.float64], scored: npt.NDArray[np.bool_] | None) -> pa.Array:
    """The values as a column; null where there is none, and where a document was not scored."""
    if scored is not None:
        every = np.full(len(scored), np.nan)
        every[scored] = values
        values = every
    return pa.array(values, pa.float64(), mask=np.isnan(values))
