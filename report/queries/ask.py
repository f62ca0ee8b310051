"""A query and its result. The page prints both: the query beside a number computed that number."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from textwrap import dedent
from typing import Any

from corpusmill.pipeline.schemas import REPORT
from corpusmill.report.query.run import Run
from corpusmill.report.query.sql import column, literal
from corpusmill.report.query.tables import view_name

_NAME = re.compile(r"[a-z][a-z0-9-]*")
#: DuckDB's types of numbers and booleans.
NUMERIC = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT", "FLOAT",
           "DOUBLE", "DECIMAL", "BOOLEAN")  # fmt: skip


@dataclass(frozen=True)
class Query:
    """A SELECT over a run's tables, and its rows as dictionaries. A query of a JSON file has no rows, since Python reads the file
    itself."""

    name: str
    title: str
    sql: str
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The id of the query's element on the page."""
        return f"query-{self.name}"

    @property
    def first(self) -> dict[str, Any]:
        return self.rows[0]


def ask(run: Run, name: str, title: str, sql: str) -> Query:
    """Runs a query; its SQL may be indented. Raises ValueError if `name` can't be part of an id on the page."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r}: a query's name is of lower-case letters, digits and dashes")
    text = dedent(sql).strip()
    return Query(name, title, text, [{column: plain(value) for column, value in row.items()} for row in run.records(text)])


def plain(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value


def json_query(title: str, *paths: str) -> Query:
    """Returns the query that shows JSON files of the run. Python has read the numbers from these files itself."""
    return Query(slug(paths[0].rpartition(".")[0]), title, "\nUNION ALL ".join(f"FROM {view_name(path)}" for path in paths))


def has_report(run: Run, stage: str) -> bool:
    """Whether the stage has a report with the columns that the queries need."""
    return f"{stage}_report" in run.tables and run.reader.is_report(stage) and set(REPORT.names) <= set(columns(run, f"{stage}_report"))


def columns(run: Run, table: str) -> dict[str, str]:
    """Returns the columns of a table with DuckDB's types; empty where the run lacks the table."""
    if table not in run.tables:
        return {}
    found = run.table(table)
    return {name: str(kind) for name, kind in zip(found.columns, found.types, strict=True)}


def number_of(name: str, kinds: dict[str, str]) -> str:
    """SQL: a column as DOUBLE; NULL where the column is missing or not numeric, or the value is NaN. `kinds`: the result of `columns`."""
    kind = kinds.get(name, "")
    if kind.endswith("]") or not kind.startswith((*NUMERIC, "VARCHAR")):
        return "NULL::DOUBLE"
    cast = f"TRY_CAST({column(name)} AS DOUBLE)" if kind == "VARCHAR" else f"{column(name)}::DOUBLE"
    return f"nullif({cast}, 'nan')" if kind in ("VARCHAR", "FLOAT", "DOUBLE") else cast


def listed(values: Collection[Any] | Sequence[Any]) -> str:
    """SQL: a list of values."""
    return "[" + ", ".join(literal(value) for value in values) + "]"


def slug(text: str) -> str:
    """Returns a name in lower case with dashes, for the name of a query. Two names may give the same result."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
