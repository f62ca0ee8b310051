"""The steps by name, and how a recipe's list of steps becomes objects. Step modules are imported only when a recipe names them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from corpusmill.filters.rules import StepRule
from corpusmill.filters.step import Step
from corpusmill.pipeline.config import resolve_options
from corpusmill.pipeline.engine import load_object

STEPS = {
    "language": "corpusmill.filters.language:Language",
    "gopher_quality": "corpusmill.filters.gopher_quality:GopherQuality",
    "gopher_repetition": "corpusmill.filters.gopher_repetition:GopherRepetition",
    "fineweb_quality": "corpusmill.filters.fineweb_quality:FinewebQuality",
    "c4": "corpusmill.filters.c4:C4",
    "dclm": "corpusmill.filters.dclm:Dclm",
    "dolma": "corpusmill.filters.dolma:Dolma",
    "mc4_paragraphs": "corpusmill.filters.mc4_paragraphs:Mc4Paragraphs",
    "refinedweb_lines": "corpusmill.filters.refinedweb_lines:RefinedwebLines",
    "pii": "corpusmill.filters.pii.step:Pii",
    "bad_words": "corpusmill.filters.bad_words:BadWords",
    "quality": "corpusmill.filters.quality:Quality",
}


class NamedStep:
    """A step with its name in the recipe. The second step of a kind is called `c4_2`, and its columns and rules end in `_2`."""

    def __init__(self, kind: str, occurrence: int, step: Step):
        self.suffix = "" if occurrence == 1 else f"_{occurrence}"
        self.name = kind + self.suffix
        self.step = step

    @property
    def columns(self) -> dict[str, pa.DataType]:
        return {name + self.suffix: kind for name, kind in self.step.columns.items()}

    @property
    def rules(self) -> list[StepRule]:
        return [
            StepRule(self.name, replace(rule, name=rule.name + self.suffix, column=rule.column + self.suffix)) for rule in self.step.rules
        ]


def resolve_step(item: Any) -> dict[str, dict[str, Any]]:
    """One item of a recipe's list, validated, with all defaults filled in: `{name: options}`.

    Raises ValueError, or a ValidationError whose places begin with the step's name.
    """
    if isinstance(item, str):
        item = {item: None}
    if not isinstance(item, Mapping) or len(item) != 1:
        raise ValueError("a step is one name with its options, for example `- language: {keep: [en]}`")
    ((name, options),) = item.items()
    if name not in STEPS:
        raise ValueError(f"no such step (expected one of {', '.join(STEPS)})")
    return {name: resolve_options(load_object(STEPS[name]).Config, options, name)}


def build_steps(items: Sequence[Mapping[str, Any]]) -> list[NamedStep]:
    """Step objects for the resolved items of a configuration; nothing is loaded yet."""
    steps: list[NamedStep] = []
    seen: dict[str, int] = {}
    for item in items:
        ((name, options),) = item.items()
        seen[name] = seen.get(name, 0) + 1
        kind = load_object(STEPS[name])
        steps.append(NamedStep(name, seen[name], kind(kind.Config.model_validate(options))))
    return steps
