"""Which command decides again with other thresholds: `retune` without measuring, or the filter stage itself where it has to."""

import re
from collections.abc import Collection, Sequence

from corpusmill.report.read import Rule, RunReader

RETUNE, MEASURE = "retune", "filter"


def decides_again(reader: RunReader, rules: Sequence[Rule], moved: Collection[str]) -> str:
    """The command for other thresholds of `moved` among the filter stage's `rules`."""
    late = reader.stages["filter"].status != "complete" or scored_late(reader, rules, moved) is not None
    return MEASURE if late else RETUNE


def scored_late(reader: RunReader, rules: Sequence[Rule], moved: Collection[str]) -> str | None:
    """The first step that has scored only what passed the rules before it, of which one is moved (`only_passing`)."""
    steps = reader.settings("filter").get("steps")
    items = [item for step in steps if isinstance(step, dict) for item in step.items()] if isinstance(steps, list) else []
    changed = {rule.step for rule in rules if rule.rule in moved}
    before, seen = False, dict[str, int]()
    for kind, options in items:
        if before and isinstance(options, dict) and options.get("only_passing"):
            return str(kind)
        seen[kind] = seen.get(kind, 0) + 1
        suffix = f"_{seen[kind]}" if seen[kind] > 1 else ""
        before = before or any(re.fullmatch(rf"{re.escape(kind)}(:.*)?{suffix}", step) for step in changed)
    return None
