"""`recipe`: a recipe, a preset or the recipe of a run as YAML with every option, to be saved and edited."""

import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

import yaml

from corpusmill.dedup.config import PRESETS as DEDUP_PRESETS
from corpusmill.filters.own import RunsCode, looking
from corpusmill.filters.presets import BY_LANGUAGE, PRESETS
from corpusmill.filters.step import STEPS
from corpusmill.filters.views import sentence
from corpusmill.filters.worker import FilterConfig, rule_table
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.names import instead_of
from corpusmill.pipeline.recipe import SHIPPED, apply_override, read_recipe, recipe_path, validate_recipe
from corpusmill.pipeline.run import RUN_FILE, stored_recipe
from corpusmill.pipeline.safe import safe_line, safe_text
from corpusmill.pipeline.stage import load_object
from corpusmill.pipeline.storage import Storage
from corpusmill.report.read import RunReader, read_meanings

#: The presets that stand for a whole section, by stage.
STAGE_PRESETS = {"filter": (*PRESETS, BY_LANGUAGE), "dedup": tuple(DEDUP_PRESETS)}


def names() -> str:
    """Returns the names that `expanded` takes, a line for each kind."""
    presets = [f"Presets of {stage}: {', '.join(of)}" for stage, of in STAGE_PRESETS.items()]
    return (
        "\n".join(
            [
                f"Recipes: {', '.join(sorted(path.stem for path in SHIPPED.glob('*.yaml')))}",
                *presets,
                "corpusmill recipe NAME prints one in full.",
            ]
        )
        + "\n"
    )


def expanded(given: str, stage: str | None = None, overrides: Sequence[str] = (), trust: bool = False) -> str:
    """Returns a recipe with every option of its stages, or of one `stage`, as the text of a recipe file that decides the same.

    `given`: a run's folder, a recipe file, or the name of a recipe that ships or of a preset. `overrides` (`key=value`) are applied before
    a recipe is checked. The recipe of a run is neither changed nor checked, since that could load code that it names. Raises InputError,
    also for a recipe with a step that is code and has thresholds, unless `trust`.
    """
    rules: list[tuple[str, Any, str]] = []  # a rule's name, its threshold, and what it means where it fails a document
    if Storage(given).exists(RUN_FILE):
        if overrides:
            raise InputError(f"recipe: {given} is a run, whose recipe is shown as it is; --set is for recipes and presets.")
        sections, reader = stored_recipe(given)[0], RunReader(given)
        if reader.stages["filter"].status == "complete":
            meanings = read_meanings(reader, "filter")
            rules = [(rule.rule, rule.threshold, meanings.get(rule.rule, "")) for rule in reader.rules("filter")]
    else:
        with looking(not trust):
            configs = _configs(given, overrides)
            sections = {name: config.model_dump(mode="json") for name, config in configs.items()}
            with suppress(RunsCode):  # a step that is code has no comments
                config = configs.get("filter")
                found = rule_table(config) if isinstance(config, FilterConfig) else []
                rules = [(rule.rule.name, rule.rule.threshold, rule.meaning) for rule in found]
    if stage is not None and stage not in sections:
        raise InputError(f"{stage}: {given} has no such stage{instead_of(stage, sections)}.")
    texts = [
        _filter(section, rules) if name == "filter" and isinstance(section, dict) else _yaml({name: section}, flow=None) + "\n"
        for name, section in sections.items()
        if stage in (None, name)
    ]
    head = f"# {safe_line(given)}, with every option. `corpusmill steps STEP` explains those of a step.\n"
    if stage is not None and stage != "ingest":
        head += "# One section of a recipe, which begins with `ingest: {}`.\n"
    return "\n".join([head, *texts])


def _configs(given: str, overrides: Sequence[str]) -> dict[str, Config]:
    """Returns the checked sections of a recipe. That of a preset has the stages with such a preset, after ingest."""
    sections = {stage: {"preset": given} for stage, names in STAGE_PRESETS.items() if given in names}
    if not sections or os.path.exists(given) or (SHIPPED / f"{given}.yaml").exists():
        return read_recipe(recipe_path(given, chain(*STAGE_PRESETS.values())), overrides)
    raw = {"ingest": {}, **sections}
    for override in overrides:
        apply_override(raw, override)
    return validate_recipe(raw, given)


def _filter(section: Mapping[str, Any], rules: Sequence[tuple[str, Any, str]]) -> str:
    """Returns the section `filter`. Comments say what each step is, and name the rules with thresholds of the steps."""
    lines = ["filter:"]
    for key, value in section.items():
        if key == "steps" and isinstance(value, list):
            lines += ["  steps:", *(line for step in value for line in _step(step))]
        elif key == "thresholds" and isinstance(value, dict):
            lines += ["  thresholds:  # the rules, and when each fails a document; a line without its # sets a number, off, or on"]
            lines += _thresholds(value, rules)
        elif value is not None:
            lines.append(f"  {key}: {_yaml(value)}")
    return "\n".join(lines) + "\n"


def _step(step: Any) -> Iterator[str]:
    name = next(iter(step), None) if isinstance(step, dict) else None
    if name in STEPS:
        yield f"    # {sentence(load_object(STEPS[name]))}"
    text = f"{name}: {_yaml(step[name])}" if name in STEPS else _yaml(step)
    yield textwrap.indent(f"- {text}", " " * 8)[4:]


def _thresholds(given: Mapping[str, Any], rules: Sequence[tuple[str, Any, str]]) -> Iterator[str]:
    off = [(name, "off", "") for name, limit in given.items() if limit in (None, "off")]
    for name, limit, meaning in [*rules, *off]:
        shown = _yaml(limit) if isinstance(limit, int | float) and limit == limit else "off" if limit == "off" else "on"
        line = f"    {'' if name in given else '# '}{_yaml(name)}: {shown}"
        yield f"{line:<44}  # {safe_line(meaning)}" if meaning else line


def _yaml(value: Any, flow: bool | None = True) -> str:
    """Returns a value as YAML, without characters that reorder or hide text."""
    text, plain = (yaml.safe_dump(value, default_flow_style=flow, sort_keys=False, allow_unicode=each, width=100) for each in (True, False))
    return str(text if safe_text(text) == text else plain).removesuffix("...\n").rstrip()
