"""Decides under other thresholds from the measured columns, as `corpusmill retune` would.

Only rules with another threshold (moved rules) are decided again, by `filters/rules.py` on arrays in memory: as SQL (`filters/relation.py`)
that takes two to three times as long, and a slider asks with each step. For the others the recorded verdicts are used. Some rules keep a
share of the documents that pass the other rules. When one of the other rules moves, such a rule gets a new threshold, found as in
filters/kept_share.py.
"""

import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from corpusmill.filters.fork import next_name
from corpusmill.filters.relation import OFF
from corpusmill.filters.rules import COMPARISONS, check_range, fails
from corpusmill.pipeline.recipe import STAGES, stage_command
from corpusmill.report.answers.why_change import scored_late
from corpusmill.report.explore.parameters import BadRequest, shown
from corpusmill.report.explore.table import NUMBER, Bools, StageTable
from corpusmill.report.read import ReportRule, RunReader
from corpusmill.report.stale import mend_command

#: Stages whose thresholds can change without measuring again.
RETUNED = ("filter",)

Moves = Mapping[str, float | str]


@dataclass
class Retried:
    """Verdicts under other thresholds. `moved`: the rules with another threshold, by name. `found`: those of them that keep a share.

    `failing` (moved rules, rows): the rows that fail each rule. `others` (rows): the number of failed rules that did not move.
    """

    moved: dict[str, float | str]
    found: dict[str, float | None]
    failing: npt.NDArray[np.bool_]
    others: npt.NDArray[np.int32]

    @property
    def kept(self) -> Bools:
        """bool (rows): whether the document is kept."""
        return (self.others == 0) & ~self.failing.any(axis=0)


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
    base = _decided(table, rules, {**dict.fromkeys(sharing, OFF), **moves}).kept
    found = {name: _share_threshold(table, rules[name], share, base) for name, share in shares.items()}
    again = _decided(table, rules, {**moves, **{name: OFF if value is None else value for name, value in found.items()}})
    again.found = found
    return again


def _decided(table: StageTable, rules: Mapping[str, ReportRule], moves: Moves) -> Retried:
    moved = {table.verdicts.rule(name) for name in moves}
    others = np.array([len(set(verdict.failed) - moved) for verdict in table.verdicts.all], np.int32)
    failing = np.zeros((len(moves), table.rows), bool)
    for place, (name, threshold) in enumerate(moves.items()):
        if not isinstance(threshold, str):
            failing[place] = fails(rules[name].comparison, table.array(rules[name].column), threshold)
    return Retried(dict(moves), {}, failing, others[table.verdict])


def _share_threshold(table: StageTable, rule: ReportRule, share: float, counting: Bools) -> float | None:
    """Returns the threshold that keeps a share of the counted documents with a value; None if there are none."""
    values = table.array(rule.column)[counting].astype(np.float64)
    values = values[~np.isnan(values)]
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


def effects(table: StageTable, tried: Retried) -> dict[str, Any]:
    """Returns what the page shows for other thresholds."""
    before, after = table.kept, tried.kept
    fired, alone = _fired(table, tried)
    return {
        "before": {"kept": int(before.sum()), "characters": int(table.characters[before].sum())},
        "after": {"kept": int(after.sum()), "characters": int(table.characters[after].sum())},
        "gained": int((after & ~before).sum()),
        "lost": int((before & ~after).sum()),
        "rules": [{"rule": rule, "fired": f, "alone": a} for rule, f, a in zip(table.verdicts.rules, fired, alone, strict=True)],
        "found": tried.found,
    }


def _fired(table: StageTable, tried: Retried) -> tuple[list[int], list[int]]:
    """Counts by rule the documents that would fail it, and those that would fail no other."""
    fails_moved = tried.failing.sum(axis=0, dtype=np.int32)
    only_one = table.verdict[(tried.others == 1) & (fails_moved == 0)]
    fired, alone = list(table.fired[0]), [0] * len(table.verdicts.rules)
    moved = [number for name in tried.moved if (number := table.verdicts.rule(name)) is not None]
    for verdict, count in zip(table.verdicts.all, np.bincount(only_one, minlength=len(table.verdicts.all)).tolist(), strict=True):
        if count:
            (rule,) = set(verdict.failed) - set(moved)
            alone[rule] += count
    for failing, rule in zip(tried.failing, moved, strict=True):
        fired[rule] = int(failing.sum())
        alone[rule] = int((failing & (tried.others == 0) & (fails_moved == 1)).sum())
    return fired, alone


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
