"""Loading a stage's report: from Parquet, row group by row group, into DuckDB and the arrays beside it."""

import json
from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.report.explore.coding import Codes, Names, Verdicts
from corpusmill.pipeline.report.explore.table import FLAG, NUMBER, ORIGINS, TEXT, Column, StageTable
from corpusmill.pipeline.report.histogram import plan
from corpusmill.pipeline.report.read import RULES_KEY, RunReader
from corpusmill.pipeline.schemas import REPORT
from corpusmill.pipeline.shards import open_parquet

#: Rows that go to DuckDB at a time.
BATCH = 1 << 17
#: Values of which the edges of a histogram are made.
SAMPLE = 200_000
#: The columns of a report that are not values: they have a place of their own in all answers.
OWN = ("id", "url", "kept", "failed")
#: The host in a URL, without its port and the user's name.
HOST = r"^[A-Za-z][A-Za-z0-9+.\-]*://(?:[^/?#@]*@)?(?P<host>[^/?#:]+)"


def load_stage(
    reader: RunReader, connection: duckdb.DuckDBPyConnection, stage: str, advance: Callable[[int], None]
) -> tuple[StageTable, pa.ChunkedArray]:
    """The report of a stage, and the ids of its rows. `advance` is told how many rows have come.

    What is damaged is left out (`reader.warnings`).
    """
    rules = reader.rules(stage)
    table = StageTable(stage, reader.stages[stage].status, connection, rules, Verdicts([rule.rule for rule in rules]))
    schema = reader.schema(stage, "report") or REPORT
    table.shares = _shares(schema)
    table.columns = {field.name: _column(number, field) for number, field in enumerate(f for f in schema if f.name not in OWN)}
    kinds = {name: schema.field(name).type for name in table.columns}
    _create(table, kinds)
    parts = _Parts()
    for place, group in reader.groups(stage, "report"):
        if (fault := _fault(group)) is not None:
            reader.warn(f"{reader.storage.path(f'{stage}/{place.shard}')}: row group {place.group} is left out: {fault}.")
            continue
        table.groups.append((table.rows, place))
        parts.add(table, group)
        table.rows += group.num_rows
        if parts.waiting >= BATCH:
            parts.insert(table, kinds)
        advance(table.rows)
    parts.insert(table, kinds)
    table.verdict, table.characters = _joined(parts.verdicts, np.int32), _joined(parts.characters, np.int64)
    ids = pa.chunked_array(parts.ids, pa.string())
    table.origins = {origin: _joined(parts.origins[origin], np.int32) for origin in ORIGINS}
    for origin in ("language", "source"):
        if origin not in table.columns:
            table.names[origin], table.origins[origin] = _borrowed(reader, stage, origin, ids)
    for column in table.numbers():
        measure(table, column)
    return table, ids


def report_rows(reader: RunReader, stage: str) -> int:
    """Rows of a stage's report, as the footers of its shards say; those of damaged ones are not counted."""
    rows, folder = 0, reader.storage.child(stage)
    for shard in reader.stages[stage].outputs("report/"):
        try:
            with open_parquet(folder, shard) as file:
                rows += file.metadata.num_rows
        except (CorpusmillError, OSError, ValueError):
            continue  # loading says so
    return rows


class _Parts:
    """What has been read and is not yet joined: batches for DuckDB, and the arrays that stay beside it."""

    def __init__(self) -> None:
        self.verdicts: list[Codes] = []
        self.characters: list[Any] = []
        self.origins: dict[str, list[Codes]] = {origin: [] for origin in ORIGINS}
        self.ids: list[pa.Array] = []
        self.batch: list[pa.Table] = []
        self.waiting = self.inserted = 0

    def add(self, table: StageTable, group: pa.Table) -> None:
        self.verdicts.append(table.verdicts.encode(group["kept"], group["failed"]))
        self.characters.append(pc.fill_null(group["chars_in"], 0).cast(pa.int64()).to_numpy())
        hosts = pc.struct_field(pc.extract_regex(group["url"].cast(pa.string()), HOST), "host")
        self.origins["host"].append(table.names["host"].encode(hosts))
        for origin in ("language", "source"):
            if origin in table.columns:
                values = group[origin] if origin in group.column_names else pa.nulls(group.num_rows, pa.string())
                self.origins[origin].append(table.names[origin].encode(values))
        self.ids += group["id"].cast(pa.string()).chunks
        self.batch.append(group)
        self.waiting += group.num_rows

    def insert(self, table: StageTable, kinds: dict[str, pa.DataType]) -> None:
        """Gives what is waiting to DuckDB."""
        if not self.waiting:
            return
        groups = [_stored(group, table, kinds) for group in self.batch]
        numbers = pa.array(np.arange(self.inserted, self.inserted + self.waiting, dtype=np.int32))
        batch = pa.concat_tables(groups)
        with table.cursor() as cursor:
            cursor.register("batch", batch.add_column(0, "number", pa.chunked_array([numbers])))
            cursor.execute(f"INSERT INTO {table.table} SELECT * FROM batch")
            cursor.unregister("batch")
        self.inserted, self.waiting, self.batch = self.inserted + self.waiting, 0, []


def _column(number: int, field: pa.Field) -> Column:
    numeric = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
    return Column(field.name, f"c{number}", NUMBER if numeric else FLAG if pa.types.is_boolean(field.type) else TEXT)


def _create(table: StageTable, kinds: dict[str, pa.DataType]) -> None:
    """An empty table of the report's types; what is no number and no flag is text."""
    schema = pa.schema(
        [("number", pa.int32()), ("id", pa.string()), ("url", pa.string())]
        + [(column.sql, _kind(column, kinds[name])) for name, column in table.columns.items()]
    )
    with table.cursor() as cursor:
        cursor.register("empty", schema.empty_table())
        cursor.execute(f"CREATE OR REPLACE TABLE {table.table} AS SELECT * FROM empty")
        cursor.unregister("empty")


def _kind(column: Column, kind: pa.DataType) -> pa.DataType:
    if column.kind == TEXT:
        return pa.string()
    return pa.float32() if pa.types.is_float16(kind) else kind


def _stored(group: pa.Table, table: StageTable, kinds: dict[str, pa.DataType]) -> pa.Table:
    """A row group as DuckDB has it: NaN is null, and what is no number, flag or text is JSON."""
    columns = {"id": group["id"].cast(pa.string()), "url": group["url"].cast(pa.string())}
    for name, column in table.columns.items():
        kind = _kind(column, kinds[name])
        values = group[name] if name in group.column_names else pa.chunked_array([pa.nulls(group.num_rows, kind)])
        if pa.types.is_floating(values.type):
            values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
        if column.kind == TEXT and not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            values = pa.chunked_array([[None if v is None else json.dumps(v, default=str, ensure_ascii=False) for v in values.to_pylist()]])
        columns[column.sql] = values.cast(kind)
    return pa.table(columns)


def _fault(group: pa.Table) -> str | None:
    """What is wrong with a row group that could be read, or None."""
    missing = [name for name in REPORT.names if name not in group.column_names]
    if missing:
        return f"it has no column {missing[0]!r}"
    try:
        group.validate(full=True)
    except pa.ArrowInvalid as error:
        return str(error).splitlines()[0]
    return None


def _shares(schema: pa.Schema) -> dict[str, tuple[float, str]]:
    """The rules whose thresholds were found, since they keep a share of the corpus: how much, and of what."""
    try:
        rules = json.loads((schema.metadata or {}).get(RULES_KEY, b"[]"))
        return {str(rule["rule"]): (float(rule["kept"]["share"]), str(rule["kept"]["of"])) for rule in rules if rule.get("kept")}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # reader.rules() has said so


def _joined(parts: list[Any], kind: Any) -> Any:
    return np.concatenate(parts) if parts else np.zeros(0, kind)


def _borrowed(reader: RunReader, stage: str, column: str, ids: pa.ChunkedArray) -> tuple[Names, Codes]:
    """A property of documents out of the report of another stage that has it, by their ids; None where there is none."""
    names = Names()
    nothing = names.number(None)
    for other in reader.present():
        schema = reader.schema(other, "report") if other != stage else None
        if schema is None or column not in schema.names:
            continue
        parts = [t for t in reader.tables(other, "report", ["id", column]) if t.num_columns == 2]
        if not parts:
            continue
        both = pa.concat_tables(parts)
        codes = names.encode(both[column])
        at = pc.fill_null(pc.index_in(ids, both["id"].combine_chunks().cast(pa.string())), -1).to_numpy()
        return names, np.where(at >= 0, codes[at], nothing).astype(np.int32)
    return names, np.full(len(ids), nothing, np.int32)


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
    column.empty = plan(column.name, sample, marks)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
