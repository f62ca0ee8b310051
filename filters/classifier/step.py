"""The step `classifier`: scores of trained classifiers and of public fastText models, several over one reading of the texts.

Columns of the report: NAME for the label that has the classifier's name, NAME_LABEL for others; with windows NAME_share (of windows at the
classifier's threshold or above), with `raw` NAME_raw. Of a model whose labels are a scale: NAME, the expected value, and NAME_best, that of
the likeliest label. A text with nothing that a model knows has no score (null), which fails no rule.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.filters.classifier.options import ClassifierConfig, ModelOptions
from corpusmill.filters.classifier.outputs import BEST, Outputs, twice
from corpusmill.filters.classifier.resolve import Resolved, heads_of, name_of, own_description, resolve
from corpusmill.filters.rules import Rule
from corpusmill.filters.step import Batch, Measured, Step
from corpusmill.pipeline.errors import ConfigError

#: Options that change no value.
DECISIONS = ("keep_where", "threshold", "keep", "of", "max_share", "measure_only")


class ClassifierStep(Step):
    Config = ClassifierConfig
    config: ClassifierConfig

    def __init__(self, config: ClassifierConfig):
        super().__init__(config)
        self.each = config.each
        self.outputs = [self.outputs_of(options) for options in self.each]
        if name := twice(self.outputs):
            raise ValueError(f"models: two of them are called {name}; `name` gives one of them another")
        self.label = "+".join(outputs.name for outputs in self.outputs)
        self.document_columns = tuple(outputs.column(label) for outputs in self.outputs for label in outputs.main)
        self.only_passing = config.only_passing
        self._rules = tuple(rule for outputs, options in zip(self.outputs, self.each) for rule in outputs.rules(options))

    def outputs_of(self, options: ModelOptions) -> Outputs:
        """What a model's columns and rules are: known before the model is read."""
        described, name = own_description(options), name_of(options)
        if described is not None:
            labels = tuple(head.label for head in described.heads)
            own = {head.label: head.threshold for head in described.heads}
            return Outputs(name, labels, (options.window or described.window) is not None, own=own)
        labels, convention = tuple(label for label, _ in heads_of(options)), options.convention
        outputs = Outputs(name, labels, options.window is not None, scale=bool(_values(options)))
        if convention is None:
            return outputs
        return Outputs(
            name, labels, outputs.window, outputs.scale, keep_where=convention.keep_where,
            threshold=convention.threshold, comparison=convention.comparison,
        )  # fmt: skip

    @property
    def columns(self) -> dict[str, pa.DataType]:
        return {
            name: kind for outputs, options in zip(self.outputs, self.each) for name, kind in outputs.columns(options.raw).items()
        }  # fmt: skip

    @property
    def rules(self) -> tuple[Rule, ...]:
        return self._rules

    @classmethod
    def without_decisions(cls, options: dict[str, Any]) -> dict[str, Any]:
        plain = {name: value for name, value in options.items() if name not in DECISIONS}
        return plain | {"models": [cls.without_decisions(each) for each in options.get("models", [])]} if "models" in plain else plain

    def resolved(self) -> list[Resolved]:
        """The classifiers with their files, fetched where need be."""
        return [resolve(options) for options in self.each]

    def classifiers(self) -> dict[str, Resolved]:
        return {outputs.name: resolved for outputs, resolved in zip(self.outputs, self.resolved())}

    def model_digests(self) -> list[str]:
        digests = []
        for resolved in self.resolved():
            digests += [resolved.classifier.digest(), *resolved.files.values()]
        return digests

    def setup(self) -> None:
        from corpusmill.filters.classifier.scorer import Scorer, load_heads

        heads = []
        for options, resolved in zip(self.each, self.resolved()):
            try:
                heads += load_heads(resolved.folder, resolved.classifier)
            except ValueError as error:
                raise ConfigError(f"{options.model or self.label}: {error}.") from error
        self._scorer = Scorer(heads)

    def measure(self, batch: Batch) -> Measured:
        scored = batch.passing if self.only_passing else None
        text = batch.text if scored is None else batch.text.filter(pa.array(scored))
        found = iter(self._scorer.score(text))
        columns: dict[str, Any] = {}
        for outputs, options in zip(self.outputs, self.each):
            heads = {label: next(found) for label in outputs.labels}
            if outputs.scale:
                raw = np.stack([head.raw for head in heads.values()])
                columns |= _scale(outputs, np.array(list(_values(options).values())), raw)
                continue
            for label, head in heads.items():
                column = outputs.column(label)
                columns[column] = head.score
                if outputs.window:
                    columns[f"{column}_share"] = np.where(np.isnan(head.score), np.nan, head.share)
                if options.raw:
                    columns[f"{column}_raw"] = head.raw
        return Measured({name: _without_nan(values, scored) for name, values in columns.items()})


def _values(options: ModelOptions) -> dict[str, float]:
    """The number that each label of a scale stands for, by the fastText label; empty where it is none."""
    return options.values or dict(options.convention.values if options.convention else {})


def _scale(outputs: Outputs, values: npt.NDArray[np.float64], raw: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[np.float64]]:
    """The expected value, and that of the likeliest label, from the probabilities (labels, texts).

    As the model cards have it, the probabilities are fastText's, which its rounding makes add up to a little more than 1.
    """
    known = ~np.isnan(raw).any(axis=0)
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
