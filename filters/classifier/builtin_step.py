"""The steps `quality`, `toxicity` and `spam`: classifiers that are trained at first use, from data that registry packages ship.

What each is trained on lies in filters/classifier/defaults/; a run tells in `filter/classifiers/NAME.json` how far to trust it. Without
a threshold they measure and drop nothing; their rule is there all the same, so that `sweep` and `retune` can move it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field, model_validator

from corpusmill.filters.classifier.card import read_classifier
from corpusmill.filters.classifier.conventions import Where
from corpusmill.filters.classifier.options import DecisionOptions, ModelOptions
from corpusmill.filters.classifier.outputs import Outputs
from corpusmill.filters.classifier.resolve import Resolved, resolve
from corpusmill.filters.classifier.step import ScoringStep


@dataclass(frozen=True)
class Builtin:
    """What has to be known of a built-in before it is trained. `nothing`: comparison and threshold that no score fails."""

    labels: tuple[str, ...]
    window: int | None
    keep_where: Where
    nothing: tuple[str, float]


BUILTINS = {
    "quality": Builtin(("quality",), None, "high", ("<", 0.0)),
    "toxicity": Builtin(("toxicity",), 25, "low", (">", 1.0)),  # words: docs/classifiers.md, Windows
    "spam": Builtin(("spam",), None, "low", (">", 1.0)),
}


class BuiltinConfig(DecisionOptions):
    """A classifier that is trained at first use from data that packages ship."""

    only_passing: bool = Field(False, description="Documents that fail a rule of an earlier step are not scored (null), which saves time.")

    @model_validator(mode="before")
    @classmethod
    def _has_its_model(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and "model" in given:
            raise ValueError("model: this step has its own; for another, `- classifier: {model: ..., name: ...}`")
        return given


class QualityConfig(BuiltinConfig):
    """A quality score in [0, 1]: edited prose against mail (a built-in classifier); drops nothing unless told to."""


class ToxicityConfig(BuiltinConfig):
    """A score of foul language in [0, 1], the greatest of 25-word windows (a built-in classifier); drops nothing unless told to."""


class SpamConfig(BuiltinConfig):
    """A spam score in [0, 1], learned from mail (a built-in classifier); drops nothing unless told to."""


class BuiltinStep(ScoringStep):
    name: ClassVar[str]
    config: BuiltinConfig

    def __init__(self, config: BuiltinConfig):
        builtin = BUILTINS[self.name]
        self.window = config.window or builtin.window
        outputs = Outputs(
            self.name, builtin.labels, self.window is not None, own=self._own, keep_where=builtin.keep_where,
            threshold=builtin.nothing[1], comparison=builtin.nothing[0],
        )  # fmt: skip
        super().__init__(config, [outputs], [config], config.only_passing)

    def prepare(self, say: Callable[[str], None]) -> None:
        self._folder(say)

    def resolved(self) -> list[Resolved]:
        return [resolve(ModelOptions.model_validate({"model": self._folder(), "window": self.window}))]

    def _folder(self, say: Callable[[str], None] = lambda _: None) -> str:
        """Where the classifier lies, trained if need be."""
        from corpusmill.filters.classifier.defaults.builtin import builtin

        return str(builtin(self.name, say))

    def _own(self) -> dict[str, float]:
        return {head.label: head.threshold for head in read_classifier(self._folder()).heads}


class Quality(BuiltinStep):
    name = "quality"
    Config = QualityConfig


class Toxicity(BuiltinStep):
    name = "toxicity"
    Config = ToxicityConfig


class Spam(BuiltinStep):
    name = "spam"
    Config = SpamConfig
