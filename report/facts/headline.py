"""What a newcomer needs first: the rule that removed most, and what to change."""

from dataclasses import dataclass

from corpusmill.report.facts.decisions import Decisions, RuleCount
from corpusmill.report.facts.near_view import NearMisses
from corpusmill.report.facts.thresholds import Change, Changes, recipe_line

#: Of what a rule alone removes, about so much would come back with the threshold that is proposed.
GIVES_BACK = 0.5


@dataclass(frozen=True)
class Headline:
    """`most` failed most documents of the stage, `deciding` is the threshold that removed most of those that failed nothing else.
    `line` changes the recipe so that `more` documents are kept; None where none can be changed. `off`: how many more are kept without the
    rule, by the line `off_line`; None where `line` says that already."""

    decisions: Decisions
    most: RuleCount
    deciding: RuleCount | None
    line: str | None
    more: int
    off: int | None
    off_line: str | None
    near: NearMisses | None


def headline(decisions: dict[str, Decisions], near: list[NearMisses]) -> Headline | None:
    """About the filter stage, or the last stage that removed anything; `near` are the near misses of the filter stage."""
    stages = [d for d in (decisions.get("filter"), *reversed(list(decisions.values()))) if d is not None and d.by_removal()]
    if not stages:
        return None
    d = stages[0]
    removing = d.by_removal()
    alone = sorted((rule for rule in removing if rule.alone), key=lambda rule: (rule.name not in d.numeric, -rule.alone, rule.name))
    deciding = alone[0] if alone else None  # one whose threshold is a number, where there is one
    line, more = (None, 0) if deciding is None or d.stage != "filter" else _loosened(d, deciding)
    found = next((each for each in near if d.stage == "filter" and each.rule is (deciding or removing[0])), None)
    off_line = recipe_line(deciding.name, None) if deciding is not None and line is not None else None
    off = deciding.alone if deciding is not None and off_line not in (None, line) else None
    return Headline(d, removing[0], deciding, line, more, off, off_line, found)


def _loosened(d: Decisions, rule: RuleCount) -> tuple[str | None, int]:
    """The recipe's line that gives back about half of what a rule alone removes, and how many documents; or that switches it off. None
    where that moves or ends a share, of which one pass can't count what is kept."""
    known = d.rule(rule.name)
    if known is None or known.share or d.moves(rule.name):
        return None, 0
    changes = d.changes.get(rule.name)
    best = _nearest(changes, GIVES_BACK * rule.alone) if changes is not None else None
    return (recipe_line(rule.name, best.threshold), best.more) if best else (recipe_line(rule.name, None), rule.alone)


def _nearest(changes: Changes, wanted: float) -> Change | None:
    """The threshold that keeps about so many documents more; None where none keeps any."""
    every = [changes.change(place) for place in range(len(changes.thresholds))]
    return min((change for change in every if change.more > 0), key=lambda change: (abs(change.more - wanted), change.more), default=None)
