"""Rows from Python as inputs of a run, and as texts to measure."""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.names import path_of
from corpusmill.pipeline.shards import ParquetBuffer, publish
from corpusmill.pipeline.storage import Storage

#: The folder of a run for these files, and the rows of `datasets` that are read at a time.
FOLDER, BATCH = "inputs", 4096


def inputs_of(given: Any) -> list[Any]:
    """Returns the inputs one by one: paths as text, and rows as they are given. Raises InputError for anything else."""
    if isinstance(given, str | bytes | os.PathLike | Mapping) or _is_table(given) or not isinstance(given, Iterable):
        given = [given]
    items = list(given)
    if items and all(isinstance(item, Mapping) for item in items):
        return [items]
    return [item if _is_table(item) else path_of(item, "inputs") for item in items]


def _is_table(given: Any) -> bool:
    return hasattr(given, "__arrow_c_stream__") or hasattr(given, "with_format")


def write_rows(given: Any, run: Storage) -> str:
    """Writes rows to a Parquet file of the run, which is named by its content, and returns its path. Rows that are there stay as they are.

    `given`: a list of dicts, a table with Arrow's C stream (pandas, polars, Arrow, DuckDB), or a data set of `datasets`. Raises InputError.
    """
    tables = _tables(given)
    sha256, buffer = hashlib.sha256(), None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.parquet")
        with path.open("wb") as file:
            for table in tables:
                buffer = buffer or ParquetBuffer(table.schema)
                buffer.add(table.cast(buffer.schema))
                _write(file, sha256, buffer.taken())
            if buffer is None or not buffer.rows:
                raise InputError("inputs: the table has no rows.")
            _write(file, sha256, buffer.close())
        name = f"{FOLDER}/rows-{sha256.hexdigest()[:16]}.parquet"
        if not run.exists(name):  # else its time, and so its identity, stays
            publish(run, name, path)
    return run.path(name)


def _write(file: Any, sha256: Any, parts: Iterable[bytes]) -> None:
    for part in parts:
        sha256.update(part)
        file.write(part)


def _tables(given: Any) -> Iterator[pa.Table]:
    """Yields the rows as tables without metadata and without the index of pandas."""
    if hasattr(given, "__arrow_c_stream__"):
        found: Iterable[Any] = (pa.Table.from_batches([batch]) for batch in pa.RecordBatchReader.from_stream(given))
    elif hasattr(given, "with_format"):  # a data set of `datasets`
        found = given.with_format("arrow").iter(batch_size=BATCH)
    else:
        found = [pa.table({name: _column(name, given) for name in dict.fromkeys(key for row in given for key in row)})]
    for table in found:
        yield table.drop_columns([name for name in table.column_names if name.startswith("__index_level_")]).replace_schema_metadata(None)


def _column(name: str, rows: list[Mapping[str, Any]]) -> pa.Array:
    try:
        return pa.array([row.get(name) for row in rows])
    except (pa.ArrowException, OverflowError) as error:
        raise InputError(f"inputs: the values of {name!r} are not of one type ({str(error).splitlines()[0].rstrip('.')}).") from error
