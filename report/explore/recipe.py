"""What to write into a recipe, or to type, for the thresholds that were tried."""

import math
import re
import shlex

import yaml

from corpusmill.pipeline.recipe import STAGES
from corpusmill.report.decide_again import scored_late
from corpusmill.report.explore.table import StageTable
from corpusmill.report.explore.thresholds import Moves
from corpusmill.report.read import RunReader
from corpusmill.report.stale import mend_command


def recipe_lines(moves: Moves) -> str:
    """The lines of a recipe that set these thresholds; empty where there are none."""
    lines = [f"    {_yaml(name)}: {written(value)}" for name, value in moves.items()]
    return "\n".join(["filter:", "  thresholds:", *lines]) + "\n" if lines else ""


def command(reader: RunReader, folder: str, table: StageTable, moves: Moves) -> tuple[str, str | None]:
    """The command that decides again (empty where nothing changes), and a sentence where values have to be measured for it, too."""
    if not moves:
        return "", None
    sets = [part for name, value in moves.items() for part in ("--set", f"filter.thresholds.{name}={written(value)}")]
    note = _note(reader, table, moves)
    return shlex.join(["corpusmill", *(["filter", "--redo"] if note else ["retune"]), folder, *sets]), note


def next_command(reader: RunReader, folder: str) -> tuple[list[str], str]:
    """The later stages that have worked on what the filter stage keeps now, and the command that does them again."""
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
    """A threshold as a recipe has it: whole numbers without a point, `off` as it is."""
    if isinstance(value, str):
        return value
    if value == math.floor(value) and abs(value) < 2**53:
        return str(int(value))
    mantissa, e, exponent = repr(value).partition("e")
    return mantissa + (".0" if e and "." not in mantissa else "") + e + exponent  # to YAML, 1e-05 is no number


def _yaml(name: str) -> str:
    """A key of YAML: as it is where that is a plain word, else in quotes."""
    if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) and yaml.safe_load(name) == name:
        return name
    return str(yaml.safe_dump(name, default_style='"', width=10**6)).strip()
