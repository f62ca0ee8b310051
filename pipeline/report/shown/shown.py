"""The numbers that a table or chart of the page shows, with the DuckDB query over the run's tables that gives them again.

A section hands over what *our* code has counted; the query is printed beside it, and `corpusmill report RUN --check` (shown_check.py)
runs each of them and compares.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from textwrap import dedent
from typing import Any

import numpy as np

Value = str | int | float | bool | None

_NAME = re.compile(r"[a-z][a-z0-9-]*")
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")


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


def column(name: str) -> str:
    """A column's or table's name in SQL, in quotes only where they are needed."""
    if _PLAIN.fullmatch(name) and name not in _reserved():
        return name
    return '"' + name.replace('"', '""') + '"'


def aliases(names: Iterable[str]) -> list[str]:
    """Names for columns that stand for what has any name at all: the name itself where it is a plain one."""
    return [name if _PLAIN.fullmatch(name) and name not in _reserved() else f"column_{place}" for place, name in enumerate(names, 1)]


def literal(value: Value) -> str:
    """A value in SQL. Characters that a page must not show as they are become `chr(N)`, so that what is printed is what runs."""
    if value is None:
        return "NULL"
    if isinstance(value, bool | int):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value) if np.isfinite(value) else f"'{value}'::DOUBLE"
    parts = re.split(r"([^\x20-\x7e\u00a1-\u00ac\u00ae-\u05ff])", value)
    pieces = [f"chr({ord(part)})" if place % 2 else "'" + part.replace("'", "''") + "'" for place, part in enumerate(parts) if part]
    return " || ".join(pieces) or "''"


def field(name: str) -> str:
    """A field of a JSON object, to stand behind `->` or `->>`: one that is empty or begins with `$` or `/` would be a path there."""
    return literal("/" + name.replace("~", "~0").replace("/", "~1") if name[:1] in ("$", "/", "") else name)


@cache
def _reserved() -> frozenset[str]:
    """The words that DuckDB allows as no name without quotes."""
    import duckdb

    rows = duckdb.connect(":memory:").execute("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'")
    return frozenset(word for (word,) in rows.fetchall())
