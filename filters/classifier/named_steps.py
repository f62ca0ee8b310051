"""The steps `quality`, `toxicity` and `spam`.

`quality` has a model that is trained at first use from data that registry packages ship. It ranks pages, so it decides by a kept share or
by a threshold that the recipe gives; without one it drops nothing. No package ships text that people have judged for toxicity, nor spam of
the web, and classifiers made without either fired on most clean pages (docs/classifiers.md): `toxicity` and `spam` take a model.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field, model_validator

from corpusmill.filters.classifier.defaults import NO_MODEL
from corpusmill.filters.classifier.options import ClassifierConfig, DecisionOptions, ModelOptions
from corpusmill.filters.classifier.outputs import Outputs
from corpusmill.filters.classifier.resolve import Resolved, resolve
from corpusmill.filters.classifier.step import ScoringStep, outputs_of
from corpusmill.filters.step import short_form


class QualityConfig(DecisionOptions):
    """A quality score in [0, 1]: edited prose against mail (a built-in classifier); drops nothing unless told to."""

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

    def __init__(self, config: QualityConfig):
        # Without `own`: the model's threshold parts its training texts, encyclopedia from mail, and says nothing of pages.
        outputs = Outputs("quality", ("quality",), config.window is not None, keep_where="high", threshold=0.0, comparison="<")
        super().__init__(config, [outputs], [config], config.only_passing)

    def prepare(self, say: Callable[[str], None]) -> None:
        from corpusmill.filters.classifier.defaults.builtin import builtin  # numba: a recipe is read without it

        builtin("quality", say)

    def resolved(self) -> list[Resolved]:
        from corpusmill.filters.classifier.defaults.builtin import builtin

        return [resolve(ModelOptions.model_validate({"model": str(builtin("quality")), "window": self.config.window}))]


class _NamedConfig(ClassifierConfig):
    """The options of `classifier`, with the step's name for its columns; high scores are bad."""

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
    """A toxicity score in [0, 1] by a classifier of yours; drops nothing unless told to."""

    kind = "toxicity"


class SpamConfig(_NamedConfig):
    """A spam score in [0, 1] by a classifier of yours; drops nothing unless told to."""

    kind = "spam"


class _NamedStep(ScoringStep):
    """As `classifier`, with a rule that no score fails where the recipe gives none: it says that low scores are good."""

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
