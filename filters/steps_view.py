"""The steps of the filter stage on the terminal: what there is, and one step's options, columns and rules."""

import inspect

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from corpusmill.filters.meanings import meaning
from corpusmill.filters.presets import BY_LANGUAGE, PRESETS
from corpusmill.filters.registry import OTHERS, STEPS, build_steps, resolve_step
from corpusmill.filters.rules import Rule
from corpusmill.filters.step import Step
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.stage import load_object


def show_steps(console: Console) -> None:
    """Every step with its sentence, and the presets of the whole stage."""
    table = Table("step", "what it is", "presets", box=None, pad_edge=False)
    for name in STEPS:
        step = load_object(STEPS[name])
        table.add_row(name, Text(_sentence(step)), ", ".join(step.PRESETS))
    console.print(table)
    console.print(f"Presets of the whole stage (filter: {{preset: NAME}}): {', '.join([*PRESETS, BY_LANGUAGE])}.", markup=False)


def show_step(name: str, console: Console) -> None:
    """One step's options with their defaults, the columns that it adds to the report, and its rules by preset. Raises InputError."""
    if name not in STEPS:
        raise InputError(f"{name}: no such step (expected one of {', '.join(STEPS)}).")
    step: type[Step] = load_object(STEPS[name])
    console.print(f"{name}: {_sentence(step)}", markup=False)
    options = Table("option", "default", "meaning", box=None, pad_edge=False, title="Options", title_justify="left")
    for key, field in step.Config.model_fields.items():
        default = "needed" if field.is_required() else str(field.get_default(call_default_factory=True))
        options.add_row(key, Text(default), Text(field.description or ""))
    console.print(options)
    if name in OTHERS:
        console.print("Columns and rules are those of the code or model that the recipe names; docs/filters.md says which.")
        return
    (named,) = build_steps([resolve_step(name)])
    columns = Table("column", "type", box=None, pad_edge=False, title="Columns", title_justify="left")
    for column, kind in named.columns.items():
        columns.add_row(column, str(kind))
    console.print(columns)
    for preset, rules in (step.PRESETS or {"": named.step.rules}).items():
        if rules:
            console.print(_rules(named.step, rules, preset))


def _rules(step: Step, rules: tuple[Rule, ...], preset: str) -> Table:
    title = f"Rules, preset {preset}" if preset else "Rules"
    table = Table(
        Column("rule", no_wrap=True),
        Column("fails where", overflow="fold"),
        "in words",
        box=None,
        pad_edge=False,
        title=title,
        title_justify="left",
    )
    for rule in rules:
        table.add_row(rule.name, Text(f"{rule.column} {rule.comparison} {rule.threshold}"), Text(_in_words(step, rule)))
    return table


def _in_words(step: Step, rule: Rule) -> str:
    return meaning(step.meanings.get(rule.column, ""), rule.comparison, rule.threshold)


def _sentence(step: type[Step]) -> str:
    """The first line of the configuration's docstring."""
    return (inspect.getdoc(step.Config) or "").splitlines()[0]
