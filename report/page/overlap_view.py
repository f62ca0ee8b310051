"""The overlap of a stage's rules as the page shows it: combinations as rows of dots, and pairs as shares."""

from collections import Counter
from dataclasses import dataclass

from corpusmill.report.facts.decisions import Decisions, RuleCount
from corpusmill.report.facts.overlap import COMBINATIONS, LONGEST, PAIRED, Combination

#: Combinations that are shown, rules that have a column among them, and rules of the matrix of pairs.
ROWS, COLUMNS, IN_MATRIX = 20, 14, 14
#: Shades of a share.
SHADES = 9


@dataclass(frozen=True)
class Row:
    """A combination: a dot for each column, and its rules without a column."""

    combination: Combination
    dots: list[bool]
    others: list[str]


@dataclass(frozen=True)
class Cell:
    """Documents that failed both rules; None where they are the same. `heat` is 0 to `SHADES`."""

    documents: int | None
    heat: int


@dataclass(frozen=True)
class OverlapView:
    """`rest` documents are in other combinations. `matrix` has a row for each of `paired_rules`; nothing where there is only one."""

    columns: list[str]
    rows: list[Row]
    rest: int
    rest_kinds: str
    paired_rules: list[RuleCount]
    matrix: list[tuple[RuleCount, list[Cell]]]
    limit: int = COMBINATIONS
    longest: int = LONGEST
    paired: int = PAIRED

    @property
    def combinations(self) -> list[Combination]:
        return [row.combination for row in self.rows]

    @property
    def hidden(self) -> bool:
        """Whether a combination has rules without a column."""
        return any(row.others for row in self.rows)


def overlap_view(d: Decisions) -> OverlapView | None:
    """None where no document failed more than one rule."""
    most = d.overlap.most(ROWS)
    if all(rule.alone == rule.fired for rule in d.by_removal()):
        return None
    shown: Counter[str] = Counter()
    for combination in most:
        shown.update(dict.fromkeys(combination.rules, combination.documents))
    columns = [name for name, _ in sorted(shown.items(), key=lambda pair: (-pair[1], pair[0]))[:COLUMNS]]
    rows = [Row(c, [name in c.rules for name in columns], [name for name in c.rules if name not in columns]) for c in most]
    every = sum(documents for documents, _ in d.overlap.counts.values()) + d.overlap.others
    kinds = len(d.overlap.counts) - len(most)
    rules = [rule for rule in d.by_removal() if rule.name in d.overlap.paired][:IN_MATRIX]
    matrix = [(rule, [_cell(d, rule, other) for other in rules]) for rule in rules] if len(rules) > 1 else []
    rest = every - sum(combination.documents for combination in most)
    return OverlapView(columns, rows, rest, f"{'more than ' if d.overlap.others else ''}{kinds:,}", rules, matrix)


def _cell(d: Decisions, rule: RuleCount, other: RuleCount) -> Cell:
    if rule is other:
        return Cell(None, 0)
    both = d.overlap.both(rule.name, other.name)
    return Cell(both, round(SHADES * both / rule.fired))
