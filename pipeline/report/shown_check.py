"""`corpusmill report RUN --check`: runs the query beside each table and chart of the page and compares its rows with those of the page."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.report.safe import safe_line
from corpusmill.pipeline.report.shown import Shown

if TYPE_CHECKING:
    from corpusmill.pipeline.report.query.run import Run

#: How far a float of a query may be from the page's, of its size: sums in another order differ in their last digits.
CLOSE = 1e-9
#: Values as small as this are nought: what is left of a difference of equal sums.
NOUGHT = 1e-12

#: Differences of one query that are named.
MOST = 20


@dataclass(frozen=True)
class Checked:
    """What came of one query: sentences about each value that differs; `failed` where it could not be run."""

    shown: Shown
    differences: tuple[str, ...] = ()
    failed: str = ""

    @property
    def good(self) -> bool:
        return not self.differences and not self.failed


def check_report(folder: str) -> Iterator[Checked]:
    """Makes the page of a run, without writing it, and checks all its queries. Raises InputError where `folder` is no run."""
    from corpusmill.pipeline.report.html import render_body
    from corpusmill.pipeline.report.query.run import open_run
    from corpusmill.pipeline.report.summary import read_summary

    _, page = render_body(read_summary(folder))
    return check(open_run(folder), list(page.queries.values()))


def check(run: "Run", every: Sequence[Shown]) -> Iterator[Checked]:
    """Runs each query and compares."""
    for shown in every:
        try:
            found = run.sql(shown.sql)
            yield Checked(shown, tuple(differences(shown, found.columns, found.fetchall())))
        except InputError as error:
            yield Checked(shown, failed=safe_line(str(error), 400))


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
    return f"{numbers:,} numbers in {len(every):,} tables and charts are what their queries give."
