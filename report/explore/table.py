"""One stage's report in memory: its columns in DuckDB, its verdicts and origins as arrays of small numbers.

DuckDB's columns are named c0, c1, ..., so no name from a run is ever part of a query; values are parameters.
"""

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

from corpusmill.pipeline.config import parse_json
from corpusmill.report.queries.values import Bins
from corpusmill.report.read import ReportRule

Codes = npt.NDArray[np.int32]
Counts = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Value = TypeVar("Value")


class LruCache(Generic[Value]):
    """A cache of the last values by key, up to a limit on their sizes; the least recently used value goes first. Safe for threads.

    `drop` is called with each value that goes.
    """

    def __init__(self, limit: int, size: Callable[[Value], int] = lambda _: 1, drop: Callable[[Value], None] = lambda _: None):
        self._limit, self._size, self._drop = limit, size, drop
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
                self._drop(self._known.popitem(last=False)[1])
        return made

    def forget(self, key: str) -> None:
        """Lets a value go, where it is known."""
        with self._lock:
            if key in self._known:
                self._drop(self._known.pop(key))

    def clear(self) -> None:
        """Lets all values go."""
        for key in list(self._known):
            self.forget(key)


def numbered(column: pa.ChunkedArray, number: Callable[[Any], int]) -> Codes:
    """Returns the number of each row's value (n), as `number` gives it for each distinct value."""
    coded = column.combine_chunks().cast(pa.string()).dictionary_encode(null_encoding="encode")
    indices: Codes = coded.indices.to_numpy()
    return np.array(list(map(number, coded.dictionary.to_pylist())), np.int32)[indices] if len(indices) else indices


class Names:
    """Numbers strings in the order of their first use. Null and the empty string are both None."""

    def __init__(self) -> None:
        self.values: list[str | None] = []
        self.numbers: dict[str | None, int] = {}

    def number(self, value: str | None) -> int:
        value = value or None
        if value not in self.numbers:
            self.numbers[value] = len(self.values)
            self.values.append(value)
        return self.numbers[value]

    def encode(self, column: pa.ChunkedArray) -> Codes:
        """Returns the number of each row's name."""
        return numbered(column, self.number)


@dataclass(frozen=True)
class Verdict:
    """A decision: kept or not, and the failed rules (numbers of rules, in the report's order)."""

    kept: bool
    failed: tuple[int, ...]


@dataclass
class Verdicts:
    """All distinct verdicts of a stage. There are usually few, so each question is answered once for each verdict instead of each row.

    `rules`: names, first the stage's rules in their order, then others that occur only in the report.
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
        """Returns a rule's number; None for an unknown one."""
        return self._rule_numbers.get(name)

    def encode(self, column: pa.ChunkedArray) -> Codes:
        """Returns the number of each row's verdict. A value of the column is `k` or `d`, then the failed rules as a JSON list."""

        def number(key: str) -> int:
            verdict = Verdict(key[0] == "k", tuple(self._rule_number(name or "") for name in parse_json(key[1:])))
            if verdict not in self._numbers:
                self._numbers[verdict] = len(self.all)
                self.all.append(verdict)
            return self._numbers[verdict]

        return numbered(column, number)

    def _rule_number(self, name: str) -> int:
        if name not in self._rule_numbers:
            self._rule_numbers[name] = len(self.rules)
            self.rules.append(name)
        return self._rule_numbers[name]

    # ---- once all are known -------------------------------------------------------------------------

    def kept(self) -> Bools:
        """bool, one for each verdict: whether it keeps the document."""
        return np.array([verdict.kept for verdict in self.all], bool)

    def where(self, decision: str | None = None, rules: Sequence[int] = (), alone: bool = False) -> Bools:
        """bool, one for each verdict: whether it has the decision `kept` or `dropped` (None: any) and all of `rules` failed. `alone`: no
        other rule failed (without `rules`: exactly one failed)."""
        wanted = set(rules)

        def fits(verdict: Verdict) -> bool:
            failed = set(verdict.failed)
            right = decision is None or verdict.kept == (decision == "kept")
            return right and wanted <= failed and (not alone or (failed == wanted if wanted else len(failed) == 1))

        return np.array([fits(verdict) for verdict in self.all], bool)

    def fired(self, counts: Iterable[int]) -> tuple[list[int], list[int]]:
        """Counts by rule the documents that failed it, and those that failed no other. `counts`: documents of each verdict."""
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
#: Bytes of a stage's columns kept as arrays, so that a slider does not read them again, and of the orders of its rows: at most each.
KEPT_BYTES = 256_000_000
#: Seconds that a query may take.
LIMIT = 10.0
#: Properties by which documents can be filtered, besides numbers.
ORIGINS = ("language", "page_type", "source", "host")


@dataclass
class Column:
    """A column of the report. `low` and `high`: its smallest and largest finite values, None without any."""

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
    """A loaded report. Rows are counted from 0 in the order of its shards. `cache`: bytes kept of arrays, and of orders."""

    name: str
    status: str
    connection: duckdb.DuckDBPyConnection
    rules: list[ReportRule]
    verdicts: Verdicts
    cache: int = KEPT_BYTES
    meanings: dict[str, str] = field(default_factory=dict)  # by rule: the reason for which it drops a document, in words
    columns: dict[str, Column] = field(default_factory=dict)
    rows: int = 0
    names: dict[str, Names] = field(default_factory=lambda: {origin: Names() for origin in ORIGINS})
    verdict: Codes = field(default_factory=lambda: np.zeros(0, np.int32))
    origins: dict[str, Codes] = field(default_factory=dict)
    characters: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    looked_up: dict[str, int] = field(default_factory=dict)  # the row of each labelled document, by id; -1 without one

    def __post_init__(self) -> None:
        self._arrays = LruCache[Floats](self.cache, lambda array: int(array.nbytes))

    @property
    def table(self) -> str:
        """The table's name in DuckDB (`name` is one of the pipeline's own stages)."""
        return f"report_{self.name}"

    @cached_property
    def kept(self) -> Bools:
        """bool (rows): whether the stage keeps the document."""
        return self.verdicts.kept()[self.verdict] if self.rows else np.zeros(0, bool)

    @cached_property
    def fired(self) -> tuple[list[int], list[int]]:
        """Counts by rule the documents that failed it, and those that failed no other."""
        return self.verdicts.fired(np.bincount(self.verdict, minlength=len(self.verdicts.all)).tolist())

    @cached_property
    def random_order(self) -> Rows:
        """All rows in an order drawn by their ids alone, so that it is the same for everybody who asks."""
        with self.cursor(timed=False) as cursor:
            found = cursor.execute(f"SELECT number FROM {self.table} ORDER BY md5(id), number").fetchnumpy()["number"]
        return np.asarray(found, np.int32)

    def numbers(self) -> list[Column]:
        return [column for column in self.columns.values() if column.kind == NUMBER]

    # ---- DuckDB -------------------------------------------------------------------------------------

    @contextmanager
    def cursor(self, timed: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yields a cursor for this thread. A `timed` one is interrupted after `LIMIT` seconds."""
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
        """Returns all values (rows) of a column of numbers, NaN if missing; in the column's own type where no value is missing."""
        return self._arrays.get(column, lambda: self._fetched(self.columns[column].sql))

    def _fetched(self, column: str) -> Floats:
        with self.cursor() as cursor:
            values: Any = cursor.execute(f"SELECT {column} AS v FROM {self.table}").fetchnumpy()["v"]
        if isinstance(values, np.ma.MaskedArray):  # with nulls
            kind = values.dtype if values.dtype.kind == "f" else np.float64
            values = np.ma.filled(values.astype(kind), np.nan)
        return np.asarray(values)

    def first_of(self, given: Iterable[tuple[pa.Array, pa.Array]]) -> Codes:
        """Returns for each row the first of the numbers that are given for its id, -1 for a row without one.

        `given`: batches of ids (strings) and their numbers (int32). DuckDB matches them, on the disk where memory is short.
        """
        found: Codes = np.full(self.rows, -1, np.int32)
        with self.cursor(timed=False) as cursor:
            cursor.execute("CREATE OR REPLACE TEMP TABLE given (place BIGINT, id VARCHAR, number INTEGER)")
            place = 0
            for ids, numbers in given:
                places = np.arange(place, place + len(ids))
                cursor.register("part", pa.table({"place": places, "id": ids, "number": numbers}))
                cursor.execute("INSERT INTO given FROM part")
                place += len(ids)
            query = (
                f"SELECT r.number, arg_min(g.number, g.place) AS found FROM {self.table} r JOIN given g ON r.id = g.id GROUP BY r.number"
            )
            for batch in cursor.sql(query).to_arrow_reader():
                found[batch["number"].to_numpy()] = batch["found"].to_numpy()
        return found

    def rows_of(self, rows: Sequence[int]) -> list[Row]:
        """Returns rows in the requested order."""
        columns = list(self.columns.values())
        chosen = ", ".join(["number", "id", "url", *(column.sql for column in columns)])
        query = f"SELECT {chosen} FROM {self.table} WHERE number IN (SELECT unnest($1::INTEGER[]))"
        with self.cursor() as cursor:
            found = {row[0]: row for row in cursor.execute(query, [list(rows)]).fetchall()} if rows else {}
        names = [column.name for column in columns]
        return [Row(number, found[number][1], found[number][2], dict(zip(names, found[number][3:], strict=True))) for number in rows]

    def values_of(self, rows: npt.NDArray[np.int64], columns: Iterable[str]) -> dict[str, npt.NDArray[np.float64]]:
        """Returns the values of some rows, which ascend, in columns of numbers; NaN if missing."""
        names = list(dict.fromkeys(columns))
        chosen = ", ".join(["number", *(f"{self.columns[name].sql} AS v{place}" for place, name in enumerate(names))])
        query = f"SELECT {chosen} FROM {self.table} WHERE number IN (SELECT unnest($1::INTEGER[])) ORDER BY number"
        with self.cursor() as cursor:
            found = cursor.execute(query, [rows.tolist()]).fetchnumpy()
        return {name: np.ma.filled(found[f"v{place}"].astype(np.float64), np.nan) for place, name in enumerate(names)}

    def numbers_of(self, ids: Sequence[str]) -> dict[str, int]:
        """Returns the first row of each of these documents that the report has."""
        query = f"SELECT id, min(number) FROM {self.table} WHERE id IN (SELECT unnest($1::VARCHAR[])) GROUP BY id"
        with self.cursor() as cursor:
            found: list[tuple[str, int]] = cursor.execute(query, [list(ids)]).fetchall() if ids else []
        return dict(sorted(found, key=lambda row: row[1]))

    def rows_with(self, sql: str, value: str) -> list[int]:
        """Returns the rows in which a column (its name in DuckDB) equals a text."""
        with self.cursor() as cursor:
            found = cursor.execute(f"SELECT number FROM {self.table} WHERE {sql} = $1 ORDER BY number", [value]).fetchall()
        return [number for (number,) in found]
