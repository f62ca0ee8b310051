"""Loading a stage's report: threads read it, and in its order it goes into DuckDB and the arrays beside it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.schemas import REPORT
from corpusmill.report.explore.coding import Coded, CodedVerdicts, Codes, Verdicts
from corpusmill.report.explore.scan import Batch, scan
from corpusmill.report.explore.table import FLAG, NUMBER, ORIGINS, TEXT, Column, StageTable
from corpusmill.report.host import hosts
from corpusmill.report.meanings import read_meanings
from corpusmill.report.queries.values import plan
from corpusmill.report.read import RunReader

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
        self.table.verdict, self.table.characters = _joined(self.verdicts, np.int32), _joined(self.characters, np.int64)
        self.table.origins = {origin: _joined(codes, np.int32) for origin, codes in self.origins.items()}

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


def _joined(parts: list[Any], kind: Any) -> Any:
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
