"""The section `filter` of a recipe: steps, thresholds, presets."""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from corpusmill.filters.presets import expand
from corpusmill.filters.registry import NamedStep, build_steps, resolve_step
from corpusmill.filters.rules import StepRule, with_thresholds
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.schemas import REPORT


def _resolve(item: Any, info: ValidationInfo) -> dict[str, dict[str, Any]]:
    return resolve_step(item, (info.context or {}).get("folder", "."))


def _without_folder(key: str, value: Any) -> Any:
    """A step's option without the folder of the recipe, in which `model` and `function` were looked for."""
    return value.rpartition("/")[2] if key in ("model", "function") and isinstance(value, str) and value.startswith("/") else value


def _placeless(item: Any) -> Any:
    """A step and its options, as above; what is no step (in a run that is damaged) as it is."""
    if not isinstance(item, dict):
        return item
    return {
        name: {key: _without_folder(key, value) for key, value in options.items()} if isinstance(options, dict) else options
        for name, options in item.items()
    }


StepItem = Annotated[dict[str, dict[str, Any]], BeforeValidator(_resolve)]


class FilterConfig(Config):
    """Which values are measured, in which order, and which of them decide."""

    preset: str | None = Field(
        None, description="Steps, word rule and thresholds of a published pipeline (filters/presets.py); the keys below go before its own."
    )
    language: str | None = Field(None, description="Of the preset fineweb-2: whose thresholds, as fra_Latn, fra or fr.")
    word_rule: Literal["words", "whitespace", "characters", "spacy"] = Field(
        "words",
        description="`words`: a run of letters, digits and underscores, or one symbol; `whitespace`: what stands between spaces; "
        "`characters`: as `words`, and each character of a script without spaces (Han, kana, Thai, Lao, Khmer, Myanmar, Tibetan); "
        "`spacy`: the tokens of spaCy's English tokenizer, as datatrove has them.",
    )
    steps: list[StepItem] = Field(
        [{"language": {}}, {"gopher_repetition": {}}, {"gopher_quality": {}}, {"quality": {}}],
        validate_default=True,
        description="The steps in order, each a name with its options: `- language: {keep: [en]}`.",
    )
    thresholds: dict[str, int | float | None] = Field(
        {}, description="Other thresholds than the steps' own, by the name of the rule; null or off switches a rule off, on restores it."
    )

    @classmethod
    def without_places(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Where a model or a function of the user's lies plays no part, its content does (`FilterStage.tasks`): another machine has it
        elsewhere, and so has the next job of a cluster."""
        steps = values.get("steps")
        return {**values, "steps": [_placeless(item) for item in steps]} if isinstance(steps, list) else values

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, section: Any) -> Any:
        if not isinstance(section, Mapping):
            return section
        thresholds = section.get("thresholds")
        if isinstance(thresholds, Mapping):  # YAML reads on and off as true and false
            switched = {name: None if value is False else value for name, value in thresholds.items() if value is not True}
            section = {**section, "thresholds": switched}
        return expand(section)

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        steps = build_steps(self.steps)
        for names, what in (
            ([name for step in steps for name in step.columns] + REPORT.names, "column"),
            ([rule.rule.name for step in steps for rule in step.rules], "rule"),
        ):
            twice = [name for name, count in Counter(names).items() if count > 1]
            if twice:
                raise ValueError(f"steps: two {what}s have the name {twice[0]}")
        with_thresholds(_step_rules(steps), self.thresholds)
        return self


def _step_rules(steps: list[NamedStep]) -> list[StepRule]:
    return [rule for step in steps for rule in step.rules]


def rule_table(config: FilterConfig) -> list[StepRule]:
    """Every rule that decides under a configuration, with its step and threshold, in the order of the report."""
    return with_thresholds(_step_rules(build_steps(config.steps)), config.thresholds)
