"""Decides under other thresholds from the measured columns, as `corpusmill retune` would.

Only rules with another threshold (moved rules) are decided again. For the others the recorded verdicts are used. A value that is NaN or
null never fails (filters/rules.py). Some rules keep a share of the documents that pass the other rules. When one of the other rules moves,
such a rule gets a new threshold, found as in filters/kept_share.py.
"""

import math
import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any

import numpy as np
import yaml

from corpusmill.filters.fork import next_name
from corpusmill.filters.relation import OFF, Report
from corpusmill.filters.rules import COMPARISONS, check_range
from corpusmill.pipeline.recipe import STAGES, stage_command
from corpusmill.report.answers.why_change import scored_late
from corpusmill.report.explore.parameters import BadRequest, shown
from corpusmill.report.explore.table import NUMBER, Bools, StageTable, Verdicts
from corpusmill.report.read import ReportRule, RunReader
from corpusmill.report.stale import mend_command

#: Stages whose thresholds can change without measuring again.
RETUNED = ("filter",)

Moves = Mapping[str, float | str]


@dataclass(frozen=True)
class LoadedReport(Report):
    """A report as the explorer holds it: with the number of each row's verdict, in place of `kept` and `failed`."""

    verdicts: Verdicts

    def others(self, moved: Collection[str]) -> str:
        rules = {self.verdicts.rule(name) for name in moved}
        without = [number for number, verdict in enumerate(self.verdicts.all) if rules.issuperset(verdict.failed)]
        return f"verdict NOT IN ({', '.join(map(str, [-1, *without]))})"


@dataclass
class Retried:
    """Verdicts under other thresholds, as SQL (`Report.decided`). `moved`: the rules with another threshold, by name. `found`: those of
    them that keep a share."""

    table: StageTable
    decided: str
    moved: dict[str, float | str]
    found: dict[str, float | None]

    @property
    def kept(self) -> Bools:
        """bool (rows): whether the document is kept."""
        return self.table.mask("kept_now", source=self.decided)


def has_slider(table: StageTable, rule: ReportRule) -> bool:
    """Whether the page may try other thresholds for a rule."""
    column = table.columns.get(rule.column)
    number = isinstance(rule.threshold, int | float) and not isinstance(rule.threshold, bool)
    return table.name in RETUNED and number and rule.comparison in COMPARISONS and column is not None and column.kind == NUMBER


def retry(table: StageTable, moves: Moves) -> Retried:
    """Decides all rows again. Raises BadRequest for an unknown rule, or a bad threshold."""
    rules = _checked(table, moves)
    tried = _decided(table, rules, moves)
    sharing = {name: rule.share for name, rule in rules.items() if rule.share}
    shares = {name: share for name, (share, of) in sharing.items() if of == "passing" and name not in moves}
    if not moves or not shares:
        return tried
    base = _decided(table, rules, {**dict.fromkeys(sharing, OFF), **moves})
    found = {name: _share_threshold(rules[name], share, base) for name, share in shares.items()}
    again = _decided(table, rules, {**moves, **{name: OFF if value is None else value for name, value in found.items()}})
    again.found = found
    return again


def _decided(table: StageTable, rules: Mapping[str, ReportRule], moves: Moves) -> Retried:
    held = {name: column.sql for name, column in table.columns.items()}
    report = LoadedReport(table.table, table.kinds, table.verdicts)
    known = [(name, held.get(rule.column, ""), rule.comparison) for name, rule in rules.items()]
    return Retried(table, report.decided(known, moves), dict(moves), {})


def _share_threshold(rule: ReportRule, share: float, counting: Retried) -> float | None:
    """Returns the threshold that keeps a share of the documents with a value that `counting` keeps; None if there are none."""
    column = counting.table.columns[rule.column].sql
    values = counting.table.ask(f"SELECT {column}::DOUBLE AS v FROM {counting.decided} WHERE kept_now AND {column} IS NOT NULL")["v"]
    if not len(values):
        return None
    kept = ceil(Fraction(str(share)) * len(values))
    rank = len(values) - kept if rule.comparison.startswith("<") else kept - 1
    return float(np.partition(values, rank)[rank])


def _checked(table: StageTable, moves: Moves) -> dict[str, ReportRule]:
    if table.name not in RETUNED:
        raise BadRequest(f"The thresholds of {table.name} can't be changed without running it again.")
    rules = {rule.rule: rule for rule in table.rules}
    for name, threshold in moves.items():
        if name not in rules:
            raise BadRequest(f"The stage {table.name} has no rule {shown(name)}.")
        if threshold != OFF and not has_slider(table, rules[name]):
            raise BadRequest(f"The rule {shown(name)} compares with no number, so it can only be switched off.")
        if not isinstance(threshold, str):
            try:
                check_range(name, rules[name].column, rules[name].kind, threshold)
            except ValueError as error:
                raise BadRequest(f"{error}.") from None
    return rules


def effects(tried: Retried) -> dict[str, Any]:
    """Returns what the page shows for other thresholds."""
    verdicts = tried.table.verdicts
    moved = [number for name in tried.moved if (number := verdicts.rule(name)) is not None]
    counts = {name: dict.fromkeys(("kept", "characters"), 0) for name in ("before", "after")}
    gained = lost = 0
    fired, alone = [0] * len(verdicts.rules), [0] * len(verdicts.rules)
    fails = "".join(f"fails_{place}, " for place in range(len(moved)))
    groups = f"SELECT verdict, kept_now, {fails}count(*), sum(characters)::BIGINT FROM {tried.decided} GROUP BY ALL"
    counted = (column.tolist() for column in tried.table.ask(groups).values())
    for number, kept, *failing, documents, characters in zip(*counted, strict=True):
        verdict = verdicts.all[number]
        for when, keeps in (("before", verdict.kept), ("after", kept)):
            counts[when]["kept"] += documents * keeps
            counts[when]["characters"] += characters * keeps
        gained += documents * (kept and not verdict.kept)
        lost += documents * (verdict.kept and not kept)
        failed = set(verdict.failed).difference(moved) | {rule for rule, fails_it in zip(moved, failing, strict=True) if fails_it}
        for rule in failed:
            fired[rule] += documents
            alone[rule] += documents * (len(failed) == 1)
    rules = [{"rule": rule, "fired": f, "alone": a} for rule, f, a in zip(verdicts.rules, fired, alone, strict=True)]
    return {**counts, "gained": gained, "lost": lost, "rules": rules, "found": tried.found}


def recipe_lines(moves: Moves) -> str:
    """Returns the lines of a recipe that set these thresholds; empty without any."""
    lines = [f"    {_yaml(name)}: {written(value)}" for name, value in moves.items()]
    return "\n".join(["filter:", "  thresholds:", *lines]) + "\n" if lines else ""


def command(reader: RunReader, folder: str, table: StageTable, moves: Moves) -> tuple[str, str | None]:
    """Returns the command that applies the thresholds (empty where nothing changes), and a note where values must be measured again for
    it."""
    if not moves:
        return "", None
    note, sets = _note(reader, table, moves), settings(moves)
    return stage_command(folder, "filter", None, "--redo", *sets) if note else shlex.join(["corpusmill", "retune", folder, *sets]), note


def fork_command(folder: str, moves: Moves) -> dict[str, str]:
    """Returns the command that makes a new run under the next free `name`, and its parts around another name, which needs no quotes."""
    new, command, sets = next_name(folder), shlex.join(["corpusmill", "fork", folder]), shlex.join(settings(moves))
    beside, name = new[: new.rfind("/") + 1], new[new.rfind("/") + 1 :]
    before = f"{command} {shlex.quote(beside) if beside else ''}"
    return {"command": f"{command} {sets}", "name": name, "before": before, "after": f" {sets}"}


def settings(moves: Moves) -> list[str]:
    """Returns the thresholds as arguments of a command."""
    return [part for name, value in moves.items() for part in ("--set", f"filter.thresholds.{name}={written(value)}")]


def next_command(reader: RunReader, folder: str) -> tuple[list[str], str]:
    """Returns the stages after the filter stage that have run already, and the command that redoes them."""
    order = list(STAGES)
    stale = [name for name in order[order.index("filter") + 1 :] if reader.stages[name].status != "missing"]
    return stale, mend_command(folder, stale)


def _note(reader: RunReader, table: StageTable, moves: Moves) -> str | None:
    if table.status != "complete":
        return "The filter stage is not finished, so it has to run with these thresholds."
    scored = scored_late(reader, table.rules, moves)
    if scored is None:
        return None
    return f"{scored} has scored only documents that passed the rules before it, so documents that come back have no score yet."


def written(value: float | str) -> str:
    """Returns a threshold as a recipe writes it: whole numbers without a point, `off` unchanged."""
    if isinstance(value, str):
        return value
    if value == math.floor(value) and abs(value) < 2**53:
        return str(int(value))
    mantissa, e, exponent = repr(value).partition("e")
    return mantissa + (".0" if e and "." not in mantissa else "") + e + exponent  # YAML does not read 1e-05 as a number


def _yaml(name: str) -> str:
    """Returns a key for YAML, quoted unless it is a plain word."""
    if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) and yaml.safe_load(name) == name:
        return name
    return str(yaml.safe_dump(name, default_style='"', width=10**6)).strip()
