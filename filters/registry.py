"""The steps by name, and how a recipe's list of steps becomes objects. Step modules are imported only when a recipe names them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from corpusmill.filters.rules import StepRule
from corpusmill.filters.step import Step
from corpusmill.pipeline.config import resolve_options
from corpusmill.pipeline.stage import load_object

STEPS = {
    "language": "corpusmill.filters.language:Language",
    "gopher_quality": "corpusmill.filters.gopher_quality:GopherQuality",
    "gopher_repetition": "corpusmill.filters.gopher_repetition:GopherRepetition",
    "fineweb_quality": "corpusmill.filters.fineweb_quality:FinewebQuality",
    "c4": "corpusmill.filters.c4:C4",
    "dclm": "corpusmill.filters.dclm:Dclm",
    "dolma": "corpusmill.filters.dolma:Dolma",
    "redpajama": "corpusmill.filters.redpajama:RedPajama",
    "mc4_paragraphs": "corpusmill.filters.mc4_paragraphs:Mc4Paragraphs",
    "refinedweb_lines": "corpusmill.filters.refinedweb_lines:RefinedwebLines",
    "nemo": "corpusmill.filters.nemo:Nemo",
    "stop_words": "corpusmill.filters.stop_words:StopWords",
    "token_ratio": "corpusmill.filters.token_ratio:TokenRatio",
    "compression": "corpusmill.filters.compression:Compression",
    "encoding_damage": "corpusmill.filters.encoding_damage:EncodingDamage",
    "pii": "corpusmill.filters.pii.step:Pii",
    "bad_words": "corpusmill.filters.bad_words:BadWords",
    "classifier": "corpusmill.filters.classifier.step:ClassifierStep",
    "quality": "corpusmill.filters.classifier.named_steps:Quality",
    "toxicity": "corpusmill.filters.classifier.named_steps:Toxicity",
    "spam": "corpusmill.filters.classifier.named_steps:Spam",
    "transformer": "corpusmill.filters.transformer.step:Transformer",
    "datatrove": "corpusmill.filters.datatrove_step:DatatroveStep",
    "python": "corpusmill.filters.python_step:PythonStep",
}
#: Steps that are nothing without options: others' code and models.
OTHERS = ("classifier", "toxicity", "spam", "transformer", "datatrove", "python")


class NamedStep:
    """A step with its name in the recipe. The second step of a kind is called `c4_2`, and its columns and rules end in `_2`."""

    def __init__(self, kind: str, occurrence: int, step: Step):
        self.suffix = "" if occurrence == 1 else f"_{occurrence}"
        self.name = kind + (f":{step.label}" if step.label else "") + self.suffix
        self.step = step

    @property
    def columns(self) -> dict[str, pa.DataType]:
        return {name + self.suffix: kind for name, kind in self.step.columns.items()}

    @property
    def rules(self) -> list[StepRule]:
        return [
            StepRule(
                self.name,
                replace(rule, name=rule.name + self.suffix, column=rule.column + self.suffix),
                self.step.meanings.get(rule.column, ""),
            )
            for rule in self.step.rules
        ]


def resolve_step(item: Any, folder: str = ".") -> dict[str, dict[str, Any]]:
    """One item of a recipe's list, validated, with all defaults filled in: `{name: options}`.

    Paths in it are relative to `folder`.

    Raises ValueError, or a ValidationError whose places begin with the step's name.
    """
    if isinstance(item, str):
        item = {item: None}
    if not isinstance(item, Mapping) or len(item) != 1:
        raise ValueError("a step is one name with its options, for example `- language: {keep: [en]}`")
    ((name, options),) = item.items()
    if name not in STEPS:
        raise ValueError(f"no such step (expected one of {', '.join(STEPS)})")
    return {name: resolve_options(load_object(STEPS[name]).Config, options, name, context={"folder": folder})}


def build_steps(items: Sequence[Mapping[str, Any]]) -> list[NamedStep]:
    """Step objects for the resolved items of a configuration; nothing is loaded yet."""
    steps: list[NamedStep] = []
    seen: Counter[tuple[str, str]] = Counter()
    for item in items:
        ((name, options),) = item.items()
        kind = load_object(STEPS[name])
        step = kind(kind.Config.model_validate(options))
        seen[name, step.label] += 1
        steps.append(NamedStep(name, seen[name, step.label], step))
    return steps
