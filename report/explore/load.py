"""Loading a stage's report: threads read it, and in its order it goes into DuckDB and the arrays beside it."""

import copy
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.manifest import TRIAL
from corpusmill.pipeline.schemas import REPORT
from corpusmill.report.explore.table import FLAG, NUMBER, ORIGINS, TEXT, Coded, CodedVerdicts, Codes, Column, Names, StageTable, Verdicts
from corpusmill.report.host import hosts
from corpusmill.report.queries.values import plan
from corpusmill.report.read import RunReader, read_meanings

ROWS = 65_536
#: A batch and what is measured of it take about 80 MB.
THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class Stretch:
    """Rows of a batch that follow each other in a shard: `rows` of them, from row `first` of the shard on."""

    number: int  # of the shard, in the order of the stage's plan
    shard: str
    first: int
    rows: int


class Batch:
    """Some rows of a stage's report, from one or more shards. `reader` is the thread's own: its warnings are added up in order, too."""

    def __init__(self, reader: RunReader, stage: str, table: pa.Table, stretches: Sequence[Stretch]):
        self.reader, self.stage, self.table, self.stretches = reader, stage, table, stretches

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def place(self, row: int) -> Stretch:
        """Where a row of the batch lies: a stretch of one row."""
        for stretch in self.stretches:
            if row < stretch.rows:
                return Stretch(stretch.number, stretch.shard, stretch.first + row, 1)
            row -= stretch.rows
        raise IndexError(row)


class Measure(Protocol):
    """What one pass finds out."""

    @property
    def columns(self) -> Sequence[str]:
        """The columns of the report that it wants to see, where a shard has them."""

    def measure(self, batch: Batch) -> Any:
        """What a batch adds; called from several threads at once."""

    def add(self, measured: Any) -> None:
        """Adds it up; called in the order of the report."""


def scan(reader: RunReader, stage: str, measures: Sequence[Measure]) -> None:
    """Lets `measures` see every readable row of a stage's report. Damaged shards and row groups are left out with a warning."""
    columns = list(dict.fromkeys(column for measure in measures for column in measure.columns))

    def work(shards: list[tuple[int, str]]) -> tuple[list[list[Any]], list[str]]:
        own = copy.copy(reader)
        own.warnings = []
        return [[measure.measure(batch) for measure in measures] for batch in _batches(own, stage, shards, columns)], own.warnings

    for found, warnings in _in_order(work, _together(shards(reader, stage))):
        for sentence in warnings:
            reader.warn(sentence)
        for measured in found:
            for measure, each in zip(measures, measured, strict=True):
                measure.add(each)


def _in_order(work: Any, pieces: Iterable[Any]) -> Iterator[Any]:
    """The results of `work` on each piece, in their order; a few pieces are worked on at once."""
    waiting: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        for piece in pieces:
            waiting.append(pool.submit(work, piece))
            if len(waiting) > THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def shards(reader: RunReader, stage: str) -> list[tuple[int, str, int]]:
    """(number, path, rows by the manifest) of the report's shards."""
    found = []
    for task in reader.stages[stage].tasks:
        paths = [output.path for output in task.outputs if output.path.removeprefix(TRIAL).startswith("report/")]
        found += [(path, task.rows_in // len(paths)) for path in paths if path.endswith(".parquet")]
    return [(number, path, rows) for number, (path, rows) in enumerate(found)]


def _together(every: Sequence[tuple[int, str, int]]) -> Iterator[list[tuple[int, str]]]:
    """Shards that are measured together: small ones until they have `ROWS` rows."""
    piece: list[tuple[int, str]] = []
    total = 0
    for number, path, rows in every:
        if piece and total + rows > ROWS:
            yield piece
            piece, total = [], 0
        piece.append((number, path))
        total += rows
    if piece:
        yield piece


def _batches(reader: RunReader, stage: str, shards: Sequence[tuple[int, str]], columns: Sequence[str]) -> Iterator[Batch]:
    """The rows of some shards, at most about `ROWS` at a time."""
    tables: list[pa.Table] = []
    stretches: list[Stretch] = []
    rows = 0
    for number, shard in shards:
        for first, table in reader.shard_groups(stage, shard, columns):
            if tables and rows + table.num_rows > ROWS:
                yield Batch(reader, stage, _joined(tables), stretches)
                tables, stretches, rows = [], [], 0
            tables.append(table)
            stretches.append(Stretch(number, shard, first, table.num_rows))
            rows += table.num_rows
    if tables:
        yield Batch(reader, stage, _joined(tables), stretches)


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    """One table; shards of other versions may lack columns or have them of another type."""
    try:
        whole = pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # the same name for text here and numbers there: the first shard's type counts
        first = tables[0].schema
        fitting = [[f.name for f in table.schema if f.name in first.names and f.type == first.field(f.name).type] for table in tables]
        whole = pa.concat_tables([table.select(names) for table, names in zip(tables, fitting, strict=True)], promote_options="default")
    return whole.combine_chunks()


#: What is borrowed: hosts come from URLs, which every report has.
BORROWED = ("language", "source")


class Origins:
    """Remembers what has been read while the reports are loaded: ids and names by stage and column."""

    def __init__(self, reader: RunReader):
        self.reader = reader
        self._known: dict[tuple[str, str], tuple[pa.Array, Codes, Names]] = {}

    def complete(self, table: StageTable) -> None:
        """Gives a table the origins that it lacks; None where no report has them, or none for this document."""
        ids = table.ids().combine_chunks()
        for column in BORROWED:
            if column in table.origins:
                self._known[table.name, column] = ids, table.origins[column], table.names[column]
                continue
            found = self._of_another(table.name, column)
            if found is None:
                table.origins[column] = np.full(table.rows, table.names[column].number(None), np.int32)
                continue
            known, codes, table.names[column] = found
            codes = np.append(codes, table.names[column].number(None)).astype(np.int32)  # the last is for those that are not there
            table.origins[column] = codes[pc.fill_null(pc.index_in(ids, known), -1).to_numpy()]

    def _of_another(self, stage: str, column: str) -> tuple[pa.Array, Codes, Names] | None:
        for other in self.reader.present():
            if (other, column) in self._known:
                return self._known[other, column]
            schema = self.reader.schema(other, "report") if other != stage else None
            if schema is not None and column in schema.names:
                reading = _Reading(column)
                scan(self.reader, other, [reading])
                self._known[other, column] = reading.whole()
                return self._known[other, column]
        return None


class _Reading:
    """The measure (scan.py) that reads the ids of a report and one column of names."""

    def __init__(self, column: str):
        self.column = column
        self.columns: Sequence[str] = ("id", column)
        self.names = Names()
        self.ids: list[pa.Array] = []
        self.codes: list[Codes] = []

    def measure(self, batch: Batch) -> tuple[pa.Array, Coded] | None:
        if set(self.columns) - set(batch.table.column_names):
            return None
        return batch.table["id"].combine_chunks().cast(pa.string()), Coded(batch.table[self.column])

    def add(self, measured: tuple[pa.Array, Coded] | None) -> None:
        if measured is not None:
            self.ids.append(measured[0])
            self.codes.append(self.names.encode(measured[1]))

    def whole(self) -> tuple[pa.Array, Codes, Names]:
        ids = pa.concat_arrays(self.ids) if self.ids else pa.array([], pa.string())
        return ids, np.concatenate(self.codes) if self.codes else np.zeros(0, np.int32), self.names


#: Values of which the edges of a histogram are made.
SAMPLE = 200_000
#: The columns of a report that are not values: they have a place of their own in all answers.
OWN = ("id", "url", "kept", "failed")


def load_stage(reader: RunReader, connection: duckdb.DuckDBPyConnection, stage: str, advance: Callable[[int], None]) -> StageTable:
    """The report of a stage, but for the origins that other reports know. What is damaged is left out (`reader.warnings`).

    `advance` is told how many rows have come, and may raise to end it.
    """
    rules = reader.rules(stage)
    table = StageTable(stage, reader.stages[stage].status, connection, rules, Verdicts([rule.rule for rule in rules]))
    schema = reader.schema(stage, "report") or REPORT
    table.shares, table.meanings = {rule.rule: rule.share for rule in table.rules if rule.share}, read_meanings(reader, stage)
    table.columns = {field.name: _column(number, field) for number, field in enumerate(f for f in schema if f.name not in OWN)}
    with table.cursor(timed=False) as cursor:
        loading = _Loading(table, schema, cursor, advance)
        scan(reader, stage, [loading])
        loading.finish()
    for column in table.numbers():
        measure(table, column)
    return table


@dataclass(frozen=True)
class _Part:
    """Some rows of the report, as far as a thread can make them ready."""

    stored: pa.Table
    verdicts: CodedVerdicts
    origins: dict[str, Coded]
    characters: npt.NDArray[np.int64]


class _Loading:
    """The measure that loads a report (scan.py)."""

    def __init__(self, table: StageTable, schema: pa.Schema, cursor: duckdb.DuckDBPyConnection, advance: Callable[[int], None]):
        self.table, self.cursor, self.advance = table, cursor, advance
        self.columns = schema.names
        self.kinds = {name: _kind(column, schema.field(name).type) for name, column in table.columns.items()}
        self.verdicts: list[Codes] = []
        self.characters: list[npt.NDArray[np.int64]] = []
        self.origins: dict[str, list[Codes]] = {origin: [] for origin in ORIGINS if origin == "host" or origin in table.columns}
        empty = pa.schema([("number", pa.int32()), ("id", pa.string()), ("url", pa.string())]).empty_table()
        for name, column in table.columns.items():
            empty = empty.append_column(column.sql, pa.nulls(0, self.kinds[name]))
        cursor.execute("BEGIN")  # one transaction: DuckDB copies rows that are committed before a row group is full
        cursor.register("empty", empty)
        cursor.execute(f"CREATE OR REPLACE TABLE {table.table} AS SELECT * FROM empty")

    def measure(self, batch: Batch) -> _Part | None:
        rows = _decided(batch)
        return self._part(rows) if rows is not None else None

    def add(self, measured: _Part | None) -> None:
        if measured is None:
            return
        table, rows = self.table, measured.stored.num_rows
        self.verdicts.append(table.verdicts.encode(measured.verdicts))
        self.characters.append(measured.characters)
        for origin, coded in measured.origins.items():
            self.origins[origin].append(table.names[origin].encode(coded))
        numbers = pa.array(np.arange(table.rows, table.rows + rows, dtype=np.int32))
        self.cursor.register("part", measured.stored.add_column(0, "number", numbers))
        self.cursor.execute(f"INSERT INTO {table.table} SELECT * FROM part")
        table.rows += rows
        self.advance(table.rows)

    def finish(self) -> None:
        """Commits, and joins what lies beside DuckDB."""
        self.cursor.execute("COMMIT")
        self.table.verdict, self.table.characters = _concatenated(self.verdicts, np.int32), _concatenated(self.characters, np.int64)
        self.table.origins = {origin: _concatenated(codes, np.int32) for origin, codes in self.origins.items()}

    def _part(self, rows: pa.Table) -> _Part:
        origins = {"host": Coded(hosts(rows["url"]))}
        for origin in self.origins:
            if origin != "host":
                origins[origin] = Coded(rows[origin] if origin in rows.column_names else pa.nulls(rows.num_rows, pa.string()))
        characters = pc.fill_null(rows["chars_in"], 0).cast(pa.int64()).to_numpy()
        return _Part(self._stored(rows), CodedVerdicts(rows["kept"], rows["failed"]), origins, characters)

    def _stored(self, rows: pa.Table) -> pa.Table:
        """The rows as DuckDB has them: NaN is null, and what is no number, flag or text is JSON."""
        columns = {"id": rows["id"].cast(pa.string()), "url": rows["url"].cast(pa.string())}
        for name, column in self.table.columns.items():
            kind = self.kinds[name]
            values = rows[name] if name in rows.column_names else pa.chunked_array([pa.nulls(rows.num_rows, kind)])
            if pa.types.is_floating(values.type):
                values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
            if column.kind == TEXT and not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
                values = pa.chunked_array([[None if v is None else json.dumps(v, default=str) for v in values.to_pylist()]], pa.string())
            columns[column.sql] = values.cast(kind)
        return pa.table(columns)


def _column(number: int, field: pa.Field) -> Column:
    numeric = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
    return Column(field.name, f"c{number}", NUMBER if numeric else FLAG if pa.types.is_boolean(field.type) else TEXT)


def _kind(column: Column, kind: pa.DataType) -> pa.DataType:
    if column.kind == TEXT:
        return pa.string()
    return pa.float32() if pa.types.is_float16(kind) else kind


def _decided(batch: Batch) -> pa.Table | None:
    """The rows of a batch that say what was decided about which document; None where there are none."""
    rows, first = batch.table, batch.stretches[0] if batch.stretches else None
    missing = [name for name in REPORT.names if name not in rows.column_names]
    if missing or first is None:
        if first is not None:
            where = batch.reader.storage.path(f"{batch.stage}/{first.shard}")
            batch.reader.warn(f"{where}: its rows are left out, as they have no column {missing[0]!r}.")
        return None
    sound = pc.and_(pc.and_(rows["id"].is_valid(), rows["kept"].is_valid()), rows["failed"].is_valid())
    lost = rows.num_rows - (pc.sum(sound).as_py() or 0)
    if lost:
        batch.reader.warn(f"{batch.stage}: {lost:,} rows of its report have no id or decision (another version?) and are left out.")
        rows = rows.filter(sound)
    return rows.combine_chunks() if rows.num_rows else None


def _concatenated(parts: list[Any], kind: Any) -> Any:
    return np.concatenate(parts) if parts else np.zeros(0, kind)


def measure(table: StageTable, column: Column) -> None:
    """The range of a column of numbers, and the edges of its histogram."""
    values = table.array(column.name)
    finite = values[np.isfinite(values)]
    column.missing = int(np.isnan(values).sum()) if values.dtype.kind == "f" else 0
    marks = [float(t) for rule in table.rules if rule.column == column.name and (t := rule.threshold) is not None and _is_number(t)]
    sample = finite[:: max(1, len(finite) // SAMPLE)].astype(np.float64)
    if len(finite):
        column.low, column.high = float(finite.min()), float(finite.max())
        column.whole = finite.dtype.kind in "iu" or bool(np.all(finite == np.round(finite)))
    column.bins = plan(sample, marks)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
