"""The numbers that a table or chart of the page shows, with the DuckDB query over the run's tables that gives them again.

A section hands over what *our* code has counted; the query is printed beside it, and `corpusmill report RUN --check` (check.py)
runs each of them and compares.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import dedent
from typing import Any

import numpy as np

from corpusmill.report.query.sql import Value

_NAME = re.compile(r"[a-z][a-z0-9-]*")


@dataclass(frozen=True)
class Shown:
    """`rows` hold a value for each of `columns`, in the order that the query's ORDER BY gives. `name` is unique on a page."""

    name: str
    title: str
    sql: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]

    @property
    def id(self) -> str:
        """The id of the query on the page."""
        return f"query-{self.name}"

    @property
    def numbers(self) -> int:
        """How many of its values are numbers."""
        return sum(isinstance(value, int | float) and not isinstance(value, bool) for row in self.rows for value in row)


def shown(name: str, title: str, sql: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Shown:
    """Of values that may be numpy's, and SQL with any indentation. Raises ValueError where rows and columns do not fit, or by its name."""
    made = tuple(tuple(value.item() if isinstance(value, np.generic) else value for value in row) for row in rows)
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r}: a query's name is of lower-case letters, digits and dashes")
    if any(len(row) != len(columns) for row in made):
        raise ValueError(f"{name}: a row has not the {len(columns)} values of its columns")
    return Shown(name, title, dedent(sql).strip(), tuple(columns), made)


def ratio(part: float, whole: float) -> float | None:
    """A share; None of nothing, as `part / nullif(whole, 0)` in SQL."""
    return part / whole if whole else None


def slug(text: str) -> str:
    """What of a name can stand in the name of a query; two texts may give the same, so add a number where that matters."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
