"""Verdicts under other thresholds, from the columns that were measured: what `corpusmill retune` would decide.

Only the rules that are moved are decided again; of all others the recorded verdicts hold (filters/rules.py has the semantics: a value
that is NaN or null never fails). A rule that keeps a share of what passes the others is found anew when one of those moves.
"""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.report.explore.asked import Unfit, shown
from corpusmill.pipeline.report.explore.coding import Bools
from corpusmill.pipeline.report.explore.table import NUMBER, StageTable
from corpusmill.pipeline.report.read import Rule

OFF = "off"
#: Stages whose thresholds can be changed without measuring again.
RETUNED = ("filter",)
COMPARISONS: dict[str, Any] = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq}

Moves = Mapping[str, float | str]


@dataclass
class Retried:
    """Verdicts under other thresholds. `failing` (moved rules, rows); `others` (rows): how many rules that did not move fail."""

    moved: list[str]
    failing: npt.NDArray[np.bool_]
    others: npt.NDArray[np.int32]
    kept: Bools


def has_slider(table: StageTable, rule: Rule) -> bool:
    column = table.columns.get(rule.column)
    number = isinstance(rule.threshold, int | float) and not isinstance(rule.threshold, bool)
    return table.name in RETUNED and number and rule.comparison in COMPARISONS and column is not None and column.kind == NUMBER


def retry(table: StageTable, moves: Moves) -> Retried:
    """Decides again. Raises Unfit for a rule that there is not, or that has no such threshold."""
    rules = _checked(table, moves)
    number_of = {name: number for number, name in enumerate(table.verdicts.rules)}
    moved = {number_of[name] for name in moves}
    others = np.array([len(set(verdict.failed) - moved) for verdict in table.verdicts.all], np.int32)[table.verdict]
    failing = np.zeros((len(moves), table.rows), bool)
    for place, (name, threshold) in enumerate(moves.items()):
        if threshold != OFF:
            failing[place] = fails(table, rules[name], float(threshold))
    return Retried(list(moves), failing, others, (others == 0) & ~failing.any(axis=0))


def fails(table: StageTable, rule: Rule, threshold: float) -> Bools:
    """bool (rows): which values fail. NaN compares as false with everything."""
    values = table.array(rule.column)
    failing: Bools = COMPARISONS[rule.comparison](values, threshold)
    return failing


def _checked(table: StageTable, moves: Moves) -> dict[str, Rule]:
    if table.name not in RETUNED:
        raise Unfit(f"The thresholds of {table.name} can't be changed without running it again.")
    rules = {rule.rule: rule for rule in table.rules}
    for name, threshold in moves.items():
        if name not in rules:
            raise Unfit(f"The stage {table.name} has no rule {shown(name)}.")
        if threshold != OFF and not has_slider(table, rules[name]):
            raise Unfit(f"The rule {shown(name)} compares with no number, so it can only be switched off.")
    return rules


def told(table: StageTable, tried: Retried) -> dict[str, Any]:
    """What the page shows of other thresholds."""
    before, after = table.kept, tried.kept
    fired, alone = _fired(table, tried)
    return {
        "before": {"kept": int(before.sum()), "characters": int(table.characters[before].sum())},
        "after": {"kept": int(after.sum()), "characters": int(table.characters[after].sum())},
        "gained": int((after & ~before).sum()),
        "lost": int((before & ~after).sum()),
        "rules": [{"rule": rule, "fired": f, "alone": a} for rule, f, a in zip(table.verdicts.rules, fired, alone, strict=True)],
    }


def _fired(table: StageTable, tried: Retried) -> tuple[list[int], list[int]]:
    """By rule: documents that would fail it, and those that would fail no other."""
    fails_moved = tried.failing.sum(axis=0, dtype=np.int32)
    verdicts = len(table.verdicts.all)
    fired, _ = table.verdicts.fired(np.bincount(table.verdict, minlength=verdicts).tolist())
    single = np.bincount(table.verdict[(tried.others == 1) & (fails_moved == 0)], minlength=verdicts).tolist()
    alone = [0] * len(table.verdicts.rules)
    moved = {table.verdicts.rule(name) for name in tried.moved}
    for verdict, count in zip(table.verdicts.all, single, strict=True):
        if count:
            (rule,) = set(verdict.failed) - moved
            alone[rule] += count
    for failing, name in zip(tried.failing, tried.moved, strict=True):
        rule = table.verdicts.rule(name)
        assert rule is not None
        fired[rule] = int(failing.sum())
        alone[rule] = int((failing & (tried.others == 0) & (fails_moved == 1)).sum())
    return fired, alone
