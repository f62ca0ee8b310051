"""Turns the options of a command (rules, a condition in SQL, order) into SQL over a run's tables."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

from corpusmill.filters.relation import FLOATS
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.names import instead_of
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.schemas import REPORT
from corpusmill.report.query.run import Run, identifier, quoted
from corpusmill.report.query.sql import sentence

#: Stages whose report has a row for each document, by how much they decide, most first.
REPORTED = ("filter", "dedup", "ingest", "tokens")
#: Stages whose report has a row for each example made of documents.
LATER = ("sft", "align")
BATCH = 4096


@dataclass(frozen=True)
class Choice:
    """Conditions on rows: they fail all of `rules` (and no other rule where `alone`), are kept or dropped, and meet `where` (SQL). None and
    empty values are no condition."""

    rules: tuple[str, ...] = ()
    alone: bool = False
    kept: bool | None = None
    where: str | None = None


@dataclass
class TableRows:
    """Rows of a table that meet some conditions. `scan` gives the SQL that reads the table; `columns` has its names and DuckDB's types."""

    connection: duckdb.DuckDBPyConnection
    scan: Callable[[], str]
    guarded: Callable[[Callable[[], Any]], Any]  # runs a read; leaves out damaged shards; an error is an InputError
    name: str  # the table's name in messages
    columns: dict[str, str] = field(default_factory=dict)
    conditions: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def add(self, condition: str, *values: Any) -> None:
        """Adds a condition; each `?` in it is one of `values`."""
        self.conditions.append(condition)
        self.values += values

    def without_conditions(self) -> "TableRows":
        """Returns all rows of the same table."""
        return TableRows(self.connection, self.scan, self.guarded, self.name, self.columns)

    @property
    def where(self) -> str:
        return f" WHERE {' AND '.join(f'({condition})' for condition in self.conditions)}" if self.conditions else ""

    def count(self) -> int:
        return int(self.select("count(*)")[0][0])

    def select(self, what: str, end: str = "") -> list[tuple[Any, ...]]:
        """Returns the rows of `SELECT what` that meet the conditions, as tuples."""
        found: list[tuple[Any, ...]] = self.guarded(
            lambda: self._run(f"SELECT {what} FROM {self.scan()}{self.where}{end}", self.values).fetchall()
        )
        return found

    def read(self, columns: Iterable[str], order: str, limit: int, offset: int = 0) -> Iterator[dict[str, Any]]:
        """Yields rows as Python values in an order (SQL). `limit` 0 means all rows; they are read in batches."""
        names = ", ".join(identifier(name) for name in columns)
        end = (f" LIMIT {int(limit)}" if limit else "") + (f" OFFSET {int(offset)}" if offset else "")

        def found() -> duckdb.DuckDBPyRelation:
            return self._run(f"SELECT {names} FROM {self.scan()}{self.where}{order}{end}", self.values)

        if limit:
            yield from self.guarded(lambda: found().to_arrow_table()).to_pylist()
            return
        try:
            for batch in self.guarded(lambda: found().to_arrow_reader(BATCH)):
                yield from batch.to_pylist()
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise InputError(f"{self.name}: a shard can't be read ({safe_line(str(error), 300)}).") from error

    def describe(self) -> "TableRows":
        """Reads the names and types of the columns."""
        described = self.guarded(lambda: self._run(f"DESCRIBE SELECT * FROM {self.scan()}", []).fetchall())
        self.columns = {name: kind for name, kind, *_ in described}
        return self

    def _run(self, sql: str, values: list[Any]) -> duckdb.DuckDBPyRelation:
        return self.connection.cursor().sql(sql, params=values or None)

    def column(self, name: str) -> str:
        """Returns a column in SQL. Raises InputError if the table lacks it."""
        if name not in self.columns:
            raise InputError(f"{self.name}: there is no column {shown(name)}{instead_of(name, self.columns)}.")
        return identifier(name)

    def missing(self, name: str) -> str:
        """Returns the condition that a value is null or NaN."""
        column = self.column(name)
        return f"({column} IS NULL OR isnan({column}))" if self.columns[name].startswith(FLOATS) else f"({column} IS NULL)"

    def order(self, column: str | None, descending: bool) -> str:
        """SQL: an order by a column, rows without a value last, ties by place in the files; without a column the order of the files. DuckDB
        keeps that order by itself unless it looks values up in another table."""
        if column is None:
            return " ORDER BY filename, file_row_number" if self.conditions else ""
        direction = " DESC" if descending else ""
        return f" ORDER BY {self.missing(column)}, {self.column(column)}{direction}, filename, file_row_number"


def shown(name: str) -> str:
    """Returns a user's name in quotes, without control characters."""
    return f"'{safe_line(str(name), 80)}'"


def report_rows(run: Run, stage: str | None, rules: Iterable[str] = ()) -> tuple[str, TableRows]:
    """Returns a stage and the rows of its report: `stage`, else the stage that has the rules, else the one that decides most."""
    root = run.reader.storage.root
    present = [name for name in [*REPORTED, *LATER] if f"{name}_report" in run.tables]
    run.reader.require_report(stage, present)
    first = next(iter(rules), None)
    candidates = [stage] if stage is not None else present
    chosen = next((name for name in candidates if first is not None and first in _declared(run, name)), None)
    if chosen is None and first is not None and stage is None:
        chosen = next((name for name in candidates if first in fired_rules(run, name)), None)
    chosen = chosen or candidates[0]
    return chosen, table_rows(run, f"{chosen}_report", f"{root}: {chosen}", REPORT.names)


def table_rows(run: Run, table: str, name: str, needed: Iterable[str] = ()) -> TableRows:
    """Returns the rows of one of a run's tables. Raises InputError if it can't be read or lacks one of the columns `needed`."""

    def scan() -> str:
        if table not in run.tables:
            raise InputError(f"{name}: none of its shards can be read.")
        return run.scan(table)

    rows = TableRows(run.connection, scan, lambda action: run.guarded(action, lambda: table), name).describe()
    lacking = [column for column in needed if column not in rows.columns]
    if lacking:
        raise InputError(f"{name}: its report is of another version (no column {shown(lacking[0])}).")
    return rows


def file_rows(path: str, connection: duckdb.DuckDBPyConnection) -> TableRows:
    """Returns the rows of one Parquet file."""

    def guarded(action: Callable[[], Any]) -> Any:
        try:
            return action()
        except duckdb.Error as error:
            raise InputError(f"{path}: can't be read ({safe_line(str(error), 300)}).") from error

    return TableRows(connection, lambda: f"read_parquet([{quoted(path)}])", guarded, path).describe()


def _declared(run: Run, stage: str) -> set[str]:
    return {rule.rule for rule in run.rules(stage)}


def fired_rules(run: Run, stage: str) -> set[str]:
    """Returns the rules that at least one document of the stage has failed."""
    rows = table_rows(run, f"{stage}_report", stage, REPORT.names)
    return {str(name) for (name,) in rows.select("DISTINCT unnest(failed)")}


def asked_meanings(run: Run, stage: str, choice: Choice) -> dict[str, str]:
    """Returns the meanings of the chosen rules: the reason for which each drops a document, in words."""
    meanings = run.meanings(stage) if choice.rules else {}
    return {name: meanings[name] for name in choice.rules if name in meanings}


def check_rules(run: Run, stage: str, rules: Iterable[str]) -> None:
    """Raises InputError for a rule that the stage neither declares nor has applied."""
    known = _declared(run, stage)
    if all(rule in known for rule in rules):
        return
    known |= fired_rules(run, stage)
    for rule in rules:
        if rule not in known:
            raise InputError(f"{stage}: there is no rule {shown(rule)}{instead_of(rule, known)}.")


def choose(rows: TableRows, choice: Choice) -> None:
    """Adds the conditions of `choice`. Raises InputError if `where` is more than one condition; one that DuckDB refuses fails when rows are
    read."""
    if choice.kept is not None:
        rows.add("kept = ?", choice.kept)
    for rule in choice.rules:
        rows.add("list_contains(failed, ?)", rule)
    if choice.alone:
        rows.add("len(failed) = ?", max(1, len(set(choice.rules))))
    if choice.where is not None:
        try:
            statements = rows.connection.extract_statements(f"SELECT 1 WHERE ({choice.where})")
        except duckdb.Error as error:
            raise InputError(f"--where: {sentence(error)}") from error
        if len(statements) != 1:
            raise InputError("--where: expected one condition in SQL, for example \"language = 'de' AND language_score < 0.9\".")
        rows.add(choice.where)
