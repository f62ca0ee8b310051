"""`corpusmill report RUN --check`: runs the query beside each table and chart of the page and compares its rows with those of the page."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.safe import safe_line
from corpusmill.report.shown.shown import Shown

if TYPE_CHECKING:
    from corpusmill.report.query.run import Run

#: How far a float of a query may be from the page's, of its size: sums in another order differ in their last digits.
CLOSE = 1e-9
#: Values as small as this are nought: what is left of a difference of equal sums.
NOUGHT = 1e-12

#: Differences of one query that are named.
MOST = 20

_DAMAGE = re.compile(r".+: (row group \d+ can't be read|a shard is left out: .*)")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Checked:
    """What came of one query: sentences about each value that differs; `failed` where it could not be run, `damaged` where a file that
    can't be read, or only in part, explains that."""

    shown: Shown
    differences: tuple[str, ...] = ()
    failed: str = ""
    damaged: str = ""

    @property
    def good(self) -> bool:
        return not self.differences and not self.failed and not self.damaged


def check_report(folder: str) -> Iterator[Checked]:
    """Makes the page of a run, without writing it, and checks all its queries. Raises InputError where `folder` is no run."""
    from corpusmill.report.facts.summary import read_summary
    from corpusmill.report.page.html import render_body
    from corpusmill.report.query.run import open_run

    summary = read_summary(folder)
    _, page = render_body(summary)
    with open_run(folder) as run:
        yield from check(run, list(page.queries.values()), damage(run, summary.reader.warnings))


def damage(run: "Run", warnings: Sequence[str]) -> dict[str, str]:
    """By table what is damaged in its stage, as a sentence: of such a stage the page may count rows that queries leave out, or miss rows
    that they have."""
    said: dict[str, str] = {}
    for warning in warnings:
        for stage in run.reader.stages:
            folder = run.reader.storage.path(f"{stage}/")
            if warning.startswith((f"{stage}: a shard is left out", folder)) and (found := _DAMAGE.match(warning)):
                said.setdefault(stage, found[0])
    return {table.name: said[table.stage] for table in run.tables.values() if table.stage in said}


def check(run: "Run", every: Sequence[Shown], damaged: Mapping[str, str] | None = None) -> Iterator[Checked]:
    """Runs each query and compares. `damaged`: what `damage` gives."""
    for shown in every:
        checked = _checked(run, shown)
        words = set(_WORD.findall(shown.sql))
        reasons = [why for table, why in (damaged or {}).items() if table in words]
        yield checked if checked.good or not reasons else Checked(shown, damaged=safe_line(reasons[0], 300))


def _checked(run: "Run", shown: Shown) -> Checked:
    try:
        found = run.sql(shown.sql)
        return Checked(shown, tuple(differences(shown, found.columns, found.fetchall())))
    except InputError as error:
        return Checked(shown, failed=safe_line(str(error), 400))


def differences(shown: Shown, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    """A sentence about each place in which the query's rows are not the page's."""
    if tuple(columns) != shown.columns:
        yield f"the page has the columns {', '.join(shown.columns)}, the query gives {', '.join(columns)}"
        return
    for number, (ours, theirs) in enumerate(zip_longest(shown.rows, rows), 1):
        if ours is None or theirs is None:
            yield f"the page has {len(shown.rows):,} rows, the query gives {len(rows):,}"
            return
        for name, our, their in zip(columns, ours, theirs, strict=True):
            if not same(our, their):
                place = f"row {number:,} ({safe_line(str(ours[0]), 60)}), {name}"
                yield f"{place}: the page has {safe_line(repr(our), 80)}, the query gives {safe_line(repr(their), 80)}"


def same(our: Any, their: Any) -> bool:
    """Exactly equal; a float as close as sums in another order are. NaN is NaN, and true is not 1."""
    if isinstance(their, Decimal):
        their = float(their)
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (our, their))
    if not numbers:
        return type(our) is type(their) and bool(our == their)
    if isinstance(our, int) and isinstance(their, int):
        return our == their
    if math.isnan(our) or math.isnan(their):
        return math.isnan(our) and math.isnan(their)
    return math.isclose(our, their, rel_tol=CLOSE, abs_tol=NOUGHT)


def sentences(checked: Checked) -> list[str]:
    """What a terminal says of one query: one line where all is equal."""
    shown = checked.shown
    what = f"{shown.name}: {shown.title}"
    if checked.damaged:
        return [f"{what}: not compared, as the stage is damaged: {checked.damaged}"]
    if checked.failed:
        return [f"{what}: the query fails: {checked.failed}"]
    if checked.differences:
        return [f"{what}: {len(checked.differences):,} differences", *(f"  {sentence}" for sentence in checked.differences[:MOST])]
    return [f"{what}: {shown.numbers:,} numbers"]


def verdict(every: Sequence[Checked]) -> str:
    """What came of all queries, in a sentence."""
    bad = sum(not checked.good for checked in every)
    if bad:
        return (
            f"{bad:,} of the page's tables and charts {'is not what its query gives' if bad == 1 else 'are not what their queries give'}."
        )
    numbers = sum(checked.shown.numbers for checked in every)
    if not numbers:
        return "The page shows no number that a query could give: there is nothing to check."
    return f"{numbers:,} numbers in {len(every):,} tables and charts are what their queries give."
