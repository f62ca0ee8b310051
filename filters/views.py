"""Shows sweeps (as a table with bars, as CSV), retunes and steps."""

import csv
import inspect
import io
from dataclasses import asdict, fields
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from corpusmill.filters.presets import BY_LANGUAGE, PRESETS
from corpusmill.filters.rules import Rule, meaning
from corpusmill.filters.step import OTHERS, STEPS, Step, build_steps, resolve_step
from corpusmill.filters.whatif import Kept, Retuned, Sweep
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.names import instead_of
from corpusmill.pipeline.stage import load_object

BAR = 12


def show_sweep(result: Sweep, console: Console) -> None:
    """Prints a sweep as a table.

    The bar is the share of documents that all rules together keep; its dots add what this rule alone would keep.
    """
    console.print(
        f"{result.rule}: a document fails where {result.column} {result.comparison} threshold; "
        f"{result.documents:,} documents, {result.characters:,} characters"
        + (f"; {result.missing:,} without a value always pass" if result.missing else "")
        + ("." if result.now is not None else "; the rule is off now."),
        markup=False,
    )
    table = Table(box=None, pad_edge=False)
    for title in ("threshold", "alone", "%", "characters", "together", "%", "characters"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("█ all · alone", no_wrap=True)
    for row in result.rows:
        mark = "now ▸ " if row.threshold == result.now else ""
        table.add_row(
            f"{mark}{row.threshold:.12g}",
            f"{row.alone_documents:,}", _percent(row.alone_documents, result.documents), f"{row.alone_characters:,}",
            f"{row.together_documents:,}", _percent(row.together_documents, result.documents), f"{row.together_characters:,}",
            _bar(row, result.documents),
        )  # fmt: skip
    console.print(table)
    if result.documents and not any(row.together_documents for row in result.rows):
        console.print("None of these thresholds keeps a document.")


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else "-"


def _bar(row: Kept, documents: int) -> str:
    together, alone = (round(BAR * count / documents) if documents else 0 for count in (row.together_documents, row.alone_documents))
    return "█" * together + "·" * (alone - together)


def as_csv(result: Sweep) -> str:
    """Returns a sweep as CSV: a header, then a line for each threshold."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Kept)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in result.rows)
    return text.getvalue()


# ---- Retune


def show_retuned(result: Retuned, console: Console) -> None:
    """Prints the rules that changed, and how many documents are kept."""
    if not result.changed:
        console.print("No threshold is another one than before; nothing changed.")
        return
    table = Table("rule", "threshold", "documents that fail", box=None, pad_edge=False)
    for name, (old, new) in result.changed.items():
        before, now = result.failed.get(name, (0, 0))
        table.add_row(name, f"{_threshold(old)} → {_threshold(new)}", f"{before:,} → {now:,}")
    console.print(table)
    console.print(
        f"{result.documents:,} documents: {result.kept_before:,} went on before, {result.kept:,} do now "
        f"({result.came_back:,} came back, {result.gone:,} no longer go on); data shards to write anew: {result.data_shards:,}."
    )
    if result.to_measure:
        console.print(f"{result.to_measure:,} shards have to be measured again because their files differ from the manifest.")


def _threshold(value: Any) -> str:
    return "off" if value is None else str(list(value) if isinstance(value, tuple) else value)


# ---- Steps


def show_steps(console: Console) -> None:
    """Prints every step with one sentence about it, and the presets of the whole stage."""
    table = Table("step", "what it is", "presets", box=None, pad_edge=False)
    for name in STEPS:
        step = load_object(STEPS[name])
        table.add_row(name, Text(sentence(step)), ", ".join(step.PRESETS))
    console.print(table)
    console.print(f"Presets of the whole stage (filter: {{preset: NAME}}): {', '.join([*PRESETS, BY_LANGUAGE])}.", markup=False)


def show_step(name: str, console: Console) -> None:
    """Prints a step's options with their defaults, its columns in the report, and its rules by preset. Raises InputError."""
    if name not in STEPS:
        raise InputError(f"{name}: no such step{instead_of(name, STEPS)}.")
    step: type[Step] = load_object(STEPS[name])
    console.print(f"{name}: {sentence(step)}", markup=False)
    options = Table("option", "default", "meaning", box=None, pad_edge=False, title="Options", title_justify="left")
    for key, field in step.Config.model_fields.items():
        default = "needed" if field.is_required() else str(field.get_default(call_default_factory=True))
        options.add_row(key, Text(default), Text(field.description or ""))
    console.print(options)
    if name in OTHERS:
        console.print("Columns and rules are those of the code or model that the recipe names; docs/stages/filter.md says which.")
        return
    (named,) = build_steps([resolve_step(name)])
    columns = Table("column", "type", box=None, pad_edge=False, title="Columns", title_justify="left")
    for column, kind in named.columns.items():
        columns.add_row(column, str(kind))
    console.print(columns)
    for preset, rules in (step.PRESETS or {"": named.step.rules}).items():
        if rules:
            console.print(_rule_table(named.step, rules, preset))


def _rule_table(step: Step, rules: tuple[Rule, ...], preset: str) -> Table:
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


def sentence(step: type[Step]) -> str:
    """Returns what a step is: the first line of its configuration's docstring."""
    return (inspect.getdoc(step.Config) or "").splitlines()[0]
