"""Loads a stage's report. DuckDB reads its shards in order, and copies them in batches to the explorer's own database, which can't open
files, and to numpy arrays."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from corpusmill.filters.relation import FLOATS, INTEGERS
from corpusmill.pipeline.errors import InputError
from corpusmill.report import host
from corpusmill.report.explore.table import FLAG, KEPT_BYTES, NUMBER, ORIGINS, TEXT, Codes, Column, StageTable, Verdicts
from corpusmill.report.queries.ask import columns
from corpusmill.report.queries.values import plan
from corpusmill.report.query.run import Run
from corpusmill.report.query.sql import identifier
from corpusmill.report.read import DATA_STAGES

#: Rows read at a time, and values sampled for the edges of a histogram.
ROWS, SAMPLE = 65_536, 200_000
#: The columns of a report that are not values: every answer has fields for them.
ROW_FIELDS = ("id", "url", "kept", "failed")
#: Columns that a report may lack and another report may have.
BORROWED = ("language", "page_type", "source")
_DECIDED = "id IS NOT NULL AND kept IS NOT NULL AND failed IS NOT NULL"


def load_stage(
    run: Run, connection: duckdb.DuckDBPyConnection, stage: str, advance: Callable[[int], None], cache: int = KEPT_BYTES
) -> StageTable:
    """Loads the report of a stage. Damaged shards are left out (`run.warnings`). `cache`: as in StageTable.

    `advance` gets the number of rows after each batch, and may raise to stop the loading. Raises InputError if no shard can be read.
    """
    reader, name = run.reader, f"{stage}_report"
    run.leave_out_unreadable(name)
    if name not in run.tables:
        raise InputError("none of its shards can be read")
    scan = replace(run.tables[name], mixed=True).scan(reader.storage)  # shards of other versions may lack columns
    kinds = {column: kind for column, kind, *_ in run.connection.execute(f"DESCRIBE SELECT * FROM {scan}").fetchall()}
    lost = run.connection.execute(f"SELECT count(*) FROM {scan} WHERE NOT ({_DECIDED})").fetchall()[0][0]
    if lost:
        reader.warn(f"{stage}: {lost:,} rows of its report have no id or decision (another version?) and are left out.")
    rules = reader.rules(stage)
    table = StageTable(stage, reader.stages[stage].status, connection, rules, Verdicts([rule.rule for rule in rules]), cache)
    table.meanings = run.meanings(stage)
    table.columns = {
        column: Column(column, f"c{number}", _kind(kinds[column])) for number, column in enumerate(c for c in kinds if c not in ROW_FIELDS)
    }
    _read(run, table, f"SELECT {_selected(table, kinds)} FROM {scan} WHERE {_DECIDED}", advance)
    _borrow(run, table)
    for column in table.numbers():
        _measure(table, column)
    return table


def _kind(kind: str) -> str:
    return NUMBER if kind in FLOATS + INTEGERS else FLAG if kind == "BOOLEAN" else TEXT


def _selected(table: StageTable, kinds: dict[str, str]) -> str:
    """SQL: a row for the explorer: NaN becomes null; values that are not numbers, booleans or texts become JSON; then the columns for the
    arrays."""
    stored = ["id::VARCHAR AS id", "url::VARCHAR AS url"]
    for name, column in table.columns.items():
        value, kind = identifier(name), kinds[name]
        if kind in FLOATS:
            value = f"if(isnan({value}), NULL, {value})"
        elif column.kind == TEXT and kind != "VARCHAR":
            value = f"if({value} IS NULL, NULL, to_json({value})::VARCHAR)"
        stored.append(f"{value} AS {column.sql}")
    origins = [f"{host.SQL} AS origin_host"]
    origins += [f"{name}::VARCHAR AS origin_{name}" if name in kinds else f"NULL::VARCHAR AS origin_{name}" for name in BORROWED]
    verdict = "if(kept, 'k', 'd') || to_json(failed)::VARCHAR AS verdict"
    return ", ".join([*stored, verdict, "coalesce(chars_in, 0)::BIGINT AS characters", *origins])


def _read(run: Run, table: StageTable, query: str, advance: Callable[[int], None]) -> None:
    batches = run.connection.sql(query).to_arrow_reader(ROWS)
    parts: dict[str, list[Any]] = {name: [] for name in ("verdict", "characters", *ORIGINS)}
    stored = ["id", "url", *(column.sql for column in table.columns.values())]
    with table.cursor(timed=False) as cursor:
        cursor.execute("BEGIN")  # one transaction, since DuckDB copies rows that are committed before a row group is full
        cursor.register("part", _numbered(batches.schema.empty_table().select(stored), 0))
        cursor.execute(f"CREATE OR REPLACE TABLE {table.table} AS FROM part")
        for batch in batches:
            rows = pa.Table.from_batches([batch])
            cursor.register("part", _numbered(rows.select(stored), table.rows))
            cursor.execute(f"INSERT INTO {table.table} FROM part")
            parts["verdict"].append(table.verdicts.encode(rows["verdict"]))
            parts["characters"].append(rows["characters"].to_numpy())
            for origin in ORIGINS:
                parts[origin].append(table.names[origin].encode(rows[f"origin_{origin}"]))
            table.rows += rows.num_rows
            advance(table.rows)
        cursor.execute("COMMIT")
    whole = {name: np.concatenate(arrays) if arrays else np.zeros(0, np.int32) for name, arrays in parts.items()}
    table.verdict, table.characters = whole.pop("verdict"), whole.pop("characters").astype(np.int64)
    table.origins = whole


def _numbered(rows: pa.Table, first: int) -> pa.Table:
    return rows.add_column(0, "number", pa.array(np.arange(first, first + rows.num_rows, dtype=np.int32)))


def _borrow(run: Run, table: StageTable) -> None:
    """Adds languages, page types and crawl files from another stage's report, by the documents' ids."""
    for column in (column for column in BORROWED if column not in table.columns):
        other = next((name for name in DATA_STAGES if {"id", column} <= columns(run, f"{name}_report").keys()), None)
        if other is not None:
            table.origins[column] = _borrowed(run, table, other, column)


def _borrowed(run: Run, table: StageTable, other: str, column: str) -> Codes:
    names, none = table.names[column], table.names[column].number(None)
    known = run.sql(f"SELECT id::VARCHAR AS id, {column}::VARCHAR AS value FROM {other}_report").to_arrow_reader(ROWS)
    batches = (pa.Table.from_batches([batch]) for batch in known)
    found = table.first_of((batch["id"].combine_chunks(), pa.array(names.encode(batch["value"]))) for batch in batches)
    return np.where(found < 0, none, found).astype(np.int32)


def _measure(table: StageTable, column: Column) -> None:
    """Finds the range of a column of numbers, and the edges of its histogram."""
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
