"""The overlap of a stage's rules as the page shows it: combinations as rows of dots, and pairs as shares."""

from collections import Counter
from dataclasses import dataclass

from corpusmill.report.queries.ask import Query
from corpusmill.report.queries.rules import Combination, Overlap, RuleCount

#: Rules that have a column among the combinations.
COLUMNS = 14
#: Shades of a share.
SHADES = 9


@dataclass(frozen=True)
class OverlapRow:
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
    rows: list[OverlapRow]
    rest: int
    rest_kinds: str
    query: Query
    paired_rules: list[RuleCount]
    matrix: list[tuple[RuleCount, list[Cell]]]
    pairs_query: Query | None

    @property
    def hidden(self) -> bool:
        """Whether a combination has rules without a column."""
        return any(row.others for row in self.rows)


def overlap_view(found: Overlap) -> OverlapView:
    shown: Counter[str] = Counter()
    for combination in found.combinations:
        shown.update(dict.fromkeys(combination.rules, combination.documents))
    columns = [name for name, _ in sorted(shown.items(), key=lambda pair: (-pair[1], pair[0]))[:COLUMNS]]
    rows = [
        OverlapRow(each, [name in each.rules for name in columns], [name for name in each.rules if name not in columns])
        for each in found.combinations
    ]
    matrix = [(rule, [_cell(found, rule, other) for other in found.paired]) for rule in found.paired]
    kinds = f"{found.kinds - len(rows):,}"
    return OverlapView(columns, rows, found.rest, kinds, found.query, found.paired, matrix, found.pairs_query)


def _cell(found: Overlap, rule: RuleCount, other: RuleCount) -> Cell:
    if rule is other:
        return Cell(None, 0)
    both = found.both.get((rule.name, other.name), 0)
    return Cell(both, round(SHADES * both / rule.fired))
