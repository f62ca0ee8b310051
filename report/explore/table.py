"""One stage's report in memory: its columns in DuckDB, its verdicts and origins as small numbers beside them.

Columns are called c0, c1, ... in DuckDB, so no name that a run gives is ever part of a query; values are parameters.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.report.queries.values import Bins
from corpusmill.report.read import ReportRule

Codes = npt.NDArray[np.int32]
Counts = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """The last values by key, as many as a limit allows by their sizes; the least recently used goes first. For several threads."""

    def __init__(self, limit: int, size: Callable[[Value], int] = lambda _: 1):
        self._limit, self._size = limit, size
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Value] = OrderedDict()

    def get(self, key: str, make: Callable[[], Value]) -> Value:
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        made = make()
        with self._lock:
            made = self._known.setdefault(key, made)
            while len(self._known) > 1 and sum(map(self._size, self._known.values())) > self._limit:
                self._known.popitem(last=False)
        return made


class Coded:
    """A column's different values, and which of them (n) each row has: what a thread can find out before the numbers are given."""

    def __init__(self, column: pa.ChunkedArray | pa.Array):
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        coded = column.cast(pa.string()).dictionary_encode(null_encoding="encode")
        self.values: list[str | None] = coded.dictionary.to_pylist()
        self.indices: Codes = coded.indices.to_numpy()

    def numbered(self, number: Callable[[Any], int]) -> Codes:
        """The rows (n), each with the number that its value is given."""
        return np.array([number(value) for value in self.values], np.int32)[self.indices] if self.values else self.indices


class Names:
    """Numbers strings in the order in which they come; null and the empty string are both None."""

    def __init__(self) -> None:
        self.values: list[str | None] = []
        self.numbers: dict[str | None, int] = {}

    def number(self, value: str | None) -> int:
        value = value or None
        if value not in self.numbers:
            self.numbers[value] = len(self.values)
            self.values.append(value)
        return self.numbers[value]

    def encode(self, coded: Coded) -> Codes:
        """The number of each row's name."""
        return coded.numbered(self.number)


@dataclass(frozen=True)
class Verdict:
    """What was decided: kept or not, and which rules failed (numbers of rules, in the report's order)."""

    kept: bool
    failed: tuple[int, ...]


@dataclass
class Verdicts:
    """All different verdicts of a stage: as a rule few, at most one a document, so all that is asked of them is asked once for each.

    `rules` are names: those of the stage in their order, then those that only stand in the report.
    """

    rules: list[str]
    all: list[Verdict] = field(default_factory=list)
    _numbers: dict[Verdict, int] = field(default_factory=dict)
    _rule_numbers: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rule_numbers = {}
        for number, rule in enumerate(self.rules):
            self._rule_numbers.setdefault(rule, number)

    def rule(self, name: str) -> int | None:
        """A rule's number."""
        return self._rule_numbers.get(name)

    def encode(self, coded: Coded) -> Codes:
        """The number of each row's verdict; a value of `coded` is `k` or `d`, then the failed rules as a JSON list."""

        def number(key: str) -> int:
            verdict = Verdict(key[0] == "k", tuple(self._rule_number(name or "") for name in json.loads(key[1:])))
            if verdict not in self._numbers:
                self._numbers[verdict] = len(self.all)
                self.all.append(verdict)
            return self._numbers[verdict]

        return coded.numbered(number)

    def _rule_number(self, name: str) -> int:
        if name not in self._rule_numbers:
            self._rule_numbers[name] = len(self.rules)
            self.rules.append(name)
        return self._rule_numbers[name]

    # ---- once all are known -------------------------------------------------------------------------

    def kept(self) -> Bools:
        """bool, one a verdict."""
        return np.array([verdict.kept for verdict in self.all], bool)

    def where(self, decision: str | None = None, rules: Sequence[int] = (), alone: bool = False) -> Bools:
        """bool, one a verdict: those of a decision in which all of `rules` failed; with `alone` no other (of no rules: exactly one)."""
        wanted = set(rules)

        def fits(verdict: Verdict) -> bool:
            failed = set(verdict.failed)
            right = decision is None or verdict.kept == (decision == "kept")
            return right and wanted <= failed and (not alone or (failed == wanted if wanted else len(failed) == 1))

        return np.array([fits(verdict) for verdict in self.all], bool)

    def fired(self, counts: Iterable[int]) -> tuple[list[int], list[int]]:
        """By rule: documents that failed it, and those that failed no other. `counts`: documents, one a verdict."""
        fired, alone = [0] * len(self.rules), [0] * len(self.rules)
        for verdict, count in zip(self.all, counts, strict=True):
            different = set(verdict.failed)
            for rule in different:
                fired[rule] += count
            if len(different) == 1:
                alone[verdict.failed[0]] += count
        return fired, alone


Floats = npt.NDArray[Any]
Rows = npt.NDArray[np.int32]
NUMBER, FLAG, TEXT = "number", "flag", "text"
#: Bytes of columns that are kept as arrays, so that a slider does not fetch them anew.
KEPT_BYTES = 256_000_000
#: Seconds that a query may take.
LIMIT = 10.0
#: What documents can be filtered by beside numbers.
ORIGINS = ("language", "source", "host")


@dataclass
class Column:
    """A column of the report. `low` and `high` are its least and greatest finite value, None where it has none."""

    name: str
    sql: str
    kind: str
    low: float | None = None
    high: float | None = None
    missing: int = 0
    whole: bool = False
    bins: Bins | None = None  # of its histogram


@dataclass(frozen=True)
class Row:
    """A row of the report: its number, and the values of its columns by name."""

    number: int
    id: str
    url: str | None
    values: dict[str, Any]


@dataclass
class StageTable:
    """A loaded report. Rows are counted from 0 in the order of its shards."""

    name: str
    status: str
    connection: duckdb.DuckDBPyConnection
    rules: list[ReportRule]
    verdicts: Verdicts
    meanings: dict[str, str] = field(default_factory=dict)  # by rule: what a document fails it for, in words
    columns: dict[str, Column] = field(default_factory=dict)
    rows: int = 0
    names: dict[str, Names] = field(default_factory=lambda: {origin: Names() for origin in ORIGINS})
    verdict: Codes = field(default_factory=lambda: np.zeros(0, np.int32))
    origins: dict[str, Codes] = field(default_factory=dict)
    characters: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        self._arrays = Remembered[Floats](KEPT_BYTES, lambda array: int(array.nbytes))

    @property
    def table(self) -> str:
        """The table's name in DuckDB (`name` is one of the pipeline's own stages)."""
        return f"report_{self.name}"

    @cached_property
    def kept(self) -> Bools:
        """bool (rows)."""
        return self.verdicts.kept()[self.verdict] if self.rows else np.zeros(0, bool)

    @cached_property
    def fired(self) -> tuple[list[int], list[int]]:
        """By rule: documents that failed it, and those that failed no other."""
        return self.verdicts.fired(np.bincount(self.verdict, minlength=len(self.verdicts.all)).tolist())

    def numbers(self) -> list[Column]:
        return [column for column in self.columns.values() if column.kind == NUMBER]

    # ---- DuckDB -------------------------------------------------------------------------------------

    @contextmanager
    def cursor(self, timed: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor of this thread's own; where it is `timed`, it is interrupted after `LIMIT` seconds."""
        cursor = self.connection.cursor()
        timer = threading.Timer(LIMIT, cursor.interrupt)
        timer.daemon = True
        if timed:
            timer.start()
        try:
            yield cursor
        finally:
            timer.cancel()
            cursor.close()

    def array(self, column: str) -> Floats:
        """All values (rows) of a column of numbers, NaN where there is none; of the type that the report has, where it has them all."""
        return self._arrays.get(column, lambda: self._fetched(self.columns[column].sql))

    def _fetched(self, column: str) -> Floats:
        with self.cursor() as cursor:
            values: Any = cursor.execute(f"SELECT {column} AS v FROM {self.table}").fetchnumpy()["v"]
        if isinstance(values, np.ma.MaskedArray):  # with nulls
            kind = values.dtype if values.dtype.kind == "f" else np.float64
            values = np.ma.filled(values.astype(kind), np.nan)
        return np.asarray(values)

    def ids(self) -> pa.ChunkedArray:
        """The ids of all rows."""
        with self.cursor() as cursor:
            return cursor.sql(f"SELECT id FROM {self.table}").to_arrow_table()["id"]

    def rows_of(self, rows: Sequence[int]) -> list[Row]:
        """Rows in the order that is asked for."""
        columns = list(self.columns.values())
        chosen = ", ".join(["number", "id", "url", *(column.sql for column in columns)])
        query = f"SELECT {chosen} FROM {self.table} WHERE number IN (SELECT unnest($1::INTEGER[]))"
        with self.cursor() as cursor:
            found = {row[0]: row for row in cursor.execute(query, [list(rows)]).fetchall()} if rows else {}
        names = [column.name for column in columns]
        return [Row(number, found[number][1], found[number][2], dict(zip(names, found[number][3:], strict=True))) for number in rows]

    def numbers_of(self, ids: Sequence[str]) -> dict[str, int]:
        """The first row of each of some documents that are there."""
        query = f"SELECT id, min(number) FROM {self.table} WHERE id IN (SELECT unnest($1::VARCHAR[])) GROUP BY id"
        with self.cursor() as cursor:
            found: list[tuple[str, int]] = cursor.execute(query, [list(ids)]).fetchall() if ids else []
        return dict(sorted(found, key=lambda row: row[1]))

    def rows_with(self, sql: str, value: str) -> list[int]:
        """The rows in which a column (by its name in DuckDB) has a text."""
        with self.cursor() as cursor:
            found = cursor.execute(f"SELECT number FROM {self.table} WHERE {sql} = $1 ORDER BY number", [value]).fetchall()
        return [number for (number,) in found]
