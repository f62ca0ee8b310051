"""Reading and writing the Parquet shards of a run."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.store.ask import StoreError

#: Rows in a row group: small enough to read a shard piece by piece, large enough to compress well.
ROW_GROUP_ROWS = 4096

#: What a file is made of: a table (Parquet), bytes or a view of some (of a flat array, without a copy), a local file, or bytes that come
#: piece by piece and are made when it is written.
Content: TypeAlias = pa.Table | bytes | memoryview | pa.Buffer | Path | Iterator[Any]


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One published file: its path relative to the stage's folder, its size and its sha256 (hex)."""

    path: str
    bytes: int
    sha256: str


def write_parquet(table: pa.Table, sink: Any) -> None:
    """The one way in which this project writes Parquet: equal tables give equal bytes."""
    with parquet_writer(table.schema, sink) as writer:
        writer.write_table(table.combine_chunks(), row_group_size=ROW_GROUP_ROWS)


def in_parquet(table: pa.Table) -> pa.Buffer:
    """The bytes of the file that `write_parquet` writes."""
    whole = pa.BufferOutputStream()
    write_parquet(table, whole)
    return whole.getvalue()


def parquet_writer(schema: pa.Schema, sink: Any) -> pq.ParquetWriter:
    """To be given row groups of `ROW_GROUP_ROWS`."""
    return pq.ParquetWriter(sink, schema, compression="zstd", compression_level=3, use_dictionary=_repeating(schema), store_schema=True)


def _repeating(schema: pa.Schema) -> list[str]:
    """Columns for which a dictionary of their values is tried. Numbers are smaller, and written twice as fast, without."""
    return [field.name for field in schema if field.type in (pa.string(), pa.large_string()) and field.name not in ("id", "url")] + [
        f"{field.name}.list.element" for field in schema if pa.types.is_list(field.type)
    ]


def publish(storage: Storage, relative: str, content: Content) -> OutputFile:
    """Writes one file atomically: a table as Parquet, bytes as they are, a local path by copying it."""
    sha256, size = hashlib.sha256(), 0
    with storage.write_atomic(relative) as file:
        for chunk in _chunks(content):
            sha256.update(chunk)
            size += memoryview(chunk).nbytes
            file.write(chunk)
    return OutputFile(relative, size, sha256.hexdigest())


def _chunks(content: Content) -> Iterator[Any]:
    """The bytes to write. A table's come at once: called back for each page, Python would hold up other threads."""
    if isinstance(content, pa.Table):
        yield in_parquet(content)
    elif isinstance(content, Path):
        with open(content, "rb") as source:
            while chunk := source.read(1 << 22):
                yield chunk
    elif isinstance(content, Iterator):
        yield from content
    else:
        yield content


def open_parquet(storage: Storage, relative: str) -> pq.ParquetFile:
    """A shard for reading by row groups; one sentence where it is no Parquet file."""
    try:
        if storage.remote:
            return pq.ParquetFile(storage.open_read(relative), pre_buffer=True)  # columns that lie together come together
        return pq.ParquetFile(storage.path(relative), memory_map=True)
    except StoreError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{storage.path(relative)}: no such file.") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{storage.path(relative)}: not a readable Parquet file ({error}).") from error


def read_table(storage: Storage, relative: str, columns: list[str] | None = None) -> pa.Table:
    """A whole shard, or some of its columns."""
    with open_parquet(storage, relative) as file:
        return _whole(storage, relative, file.read, columns)


def iter_tables(storage: Storage, relative: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """A shard, one row group after the other."""
    with open_parquet(storage, relative) as file:
        for group in range(file.num_row_groups):
            yield _whole(storage, relative, partial(file.read_row_group, group), columns)


def _whole(storage: Storage, relative: str, read: Callable[..., pa.Table], columns: list[str] | None) -> pa.Table:
    """What is read; one sentence where a file whose end is whole can't be read all the same."""
    try:
        return read(columns=columns, use_threads=False)
    except StoreError:
        raise
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{storage.path(relative)}: not a readable Parquet file ({error}).") from error
