"""Writes and reads the files of tasks: Parquet shards, and Arrow working files of which a later task reads some batches."""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
from xxhash import xxh3_64

from corpusmill.pipeline.errors import Damaged
from corpusmill.pipeline.storage import Storage, open_regular
from corpusmill.pipeline.stores import StoreError

#: The most rows of a row group, and the bytes of text and metadata after which a row group ends: small enough to read a shard in parts,
#: large enough to compress well.
ROW_GROUP_ROWS = 4096
ROW_GROUP_BYTES = 32 << 20
#: Bytes of a row group that workers measure at a time: their intermediate data are several times as large as the text.
PART_BYTES = 4 << 20
#: The key of a batch's hash in its metadata.
CHECKSUM = b"xxh3"

#: The content of a file to publish: a table (written as Parquet), bytes, a view of bytes (of a flat array, without a copy), a local file
#: to copy, or an iterator of bytes, which is consumed while the file is written.
Content: TypeAlias = pa.Table | bytes | memoryview | pa.Buffer | Path | Iterator[Any]


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One published file: its path relative to the stage's folder, its size, its sha256 and its XXH3-64 (hex)."""

    path: str
    bytes: int
    sha256: str
    xxh3: str = ""


class ParquetBuffer:
    """A Parquet file in memory that grows row group by row group: it holds the compressed bytes and one uncompressed row group.

    All shards are written with this class: equal rows give equal bytes, however they are divided into tables.
    """

    def __init__(self, schema: pa.Schema):
        self.schema = schema
        self.rows = 0
        self._sink = MemoryFile()  # one growing buffer would be copied repeatedly, and take up to twice the memory
        self._writer = pq.ParquetWriter(
            self._sink, schema, compression="zstd", compression_level=3, use_dictionary=_repeating(schema), store_schema=True,
            write_page_checksum=True,
        )  # fmt: skip
        self._waiting: list[pa.Table] = []  # rows of the row group that is not full yet
        self._waiting_rows = self._waiting_bytes = 0

    def add(self, table: pa.Table) -> None:
        """Appends rows, which must have the schema of the file."""
        ends = np.cumsum(content_bytes(table))
        begin = 0
        while begin < table.num_rows:
            before = ends[begin - 1] if begin else 0
            full = int(np.searchsorted(ends, before + ROW_GROUP_BYTES - self._waiting_bytes)) + 1
            end = min(table.num_rows, full, begin + ROW_GROUP_ROWS - self._waiting_rows)
            self._waiting.append(table.slice(begin, end - begin))
            self._waiting_rows += end - begin
            self._waiting_bytes += int(ends[end - 1] - before)
            if self._waiting_rows == ROW_GROUP_ROWS or self._waiting_bytes >= ROW_GROUP_BYTES:
                self._write()
            begin = end
        self.rows += table.num_rows

    def taken(self) -> list[bytes]:
        """Returns the bytes that are ready, which then take no more memory here."""
        return self._sink.taken()

    def close(self) -> Iterator[bytes]:
        """Finishes the file and returns an iterator over its bytes, but for those that were taken."""
        if self._waiting or not self.rows:
            self._write()
        self._writer.close()
        return iter(self._sink.taken())

    def _write(self) -> None:
        group = pa.concat_tables([self.schema.empty_table(), *self._waiting]).combine_chunks()
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0  # frees them before the write: `group` is a copy
        self._writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
        del group
        pa.default_memory_pool().release_unused()


class MemoryFile(io.RawIOBase):
    """A sink for Arrow's writers. `taken` returns the bytes that were written since its last call."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def write(self, content: Any) -> int:
        self._parts.append(bytes(content))
        self._written += len(self._parts[-1])
        return len(self._parts[-1])

    def taken(self) -> list[bytes]:
        parts, self._parts = self._parts, []
        return parts


def content_bytes(table: pa.Table) -> npt.NDArray[np.int64]:
    """Returns the UTF-8 bytes of `text` and `metadata` in each row, the columns that may be long; 0 for tables without them."""
    total = np.zeros(table.num_rows, np.int64)
    for name in {"text", "metadata"}.intersection(table.column_names):
        if table[name].type in (pa.string(), pa.large_string()):
            total += pc.fill_null(pc.binary_length(table[name]), 0).to_numpy()
    return total


def in_parquet(table: pa.Table) -> bytes:
    """Returns a table as the bytes of a Parquet file."""
    file = ParquetBuffer(table.schema)
    file.add(table)
    return b"".join(file.close())


def _repeating(schema: pa.Schema) -> list[str]:
    """Returns the columns that are written with a dictionary of their values. Numbers are smaller without, and written twice as fast."""
    return [field.name for field in schema if field.type in (pa.string(), pa.large_string()) and field.name not in ("id", "url")] + [
        f"{field.name}.list.element" for field in schema if pa.types.is_list(field.type)
    ]


def publish(storage: Storage, relative: str, content: Content) -> OutputFile:
    """Writes one file atomically and returns its size and hashes."""
    sha256, xxh3, size = hashlib.sha256(), xxh3_64(), 0
    with storage.write_atomic(relative) as file:
        for chunk in _chunks(content):
            sha256.update(chunk)
            xxh3.update(chunk)
            size += memoryview(chunk).nbytes
            file.write(chunk)
    return OutputFile(relative, size, sha256.hexdigest(), xxh3.hexdigest())


def _chunks(content: Content) -> Iterator[Any]:
    """Yields the bytes to write. A table is encoded as a whole: if Arrow called Python for each page, it would hold up other threads."""
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


def open_parquet(storage: Storage, relative: str, mapped: bool = True) -> pq.ParquetFile:
    """Opens a shard for reading by row groups, whose pages are compared with their checksums. Raises Damaged if it is missing or no Parquet
    file. The parts of a `mapped` file that are read count as memory of the process until the file is closed."""
    path = storage.path(relative)
    try:
        if storage.remote:  # fetches neighbouring columns with one request
            return pq.ParquetFile(storage.open_read(relative), pre_buffer=True, page_checksum_verification=True)
        open_regular(path).close()
        return pq.ParquetFile(path, memory_map=mapped, page_checksum_verification=True)
    except StoreError:
        raise
    except FileNotFoundError as error:
        raise Damaged(f"{path}: no such file.", path) from error
    except (pa.ArrowInvalid, OSError) as error:
        raise Damaged(f"{path}: not a readable Parquet file ({error}).", path) from error


def read_table(storage: Storage, relative: str, columns: list[str] | None = None) -> pa.Table:
    """Returns a whole shard, or some of its columns. Raises Damaged."""
    with open_parquet(storage, relative) as file:
        return _whole(storage, relative, file.read, columns)


def iter_tables(
    storage: Storage, relative: str, columns: list[str] | None = None, parts: int = 1, part_bytes: int = 0
) -> Iterator[pa.Table]:
    """Yields a shard row group by row group. Each row group comes in about `parts` parts or, with `part_bytes` (0: no limit), in about
    `parts` parts for each `part_bytes` uncompressed bytes."""
    with open_parquet(storage, relative, mapped=False) as file:
        for group in range(file.num_row_groups):
            about = file.metadata.row_group(group)
            count = parts * max(1, -(-about.total_byte_size // part_bytes)) if part_bytes else parts
            if count == 1:
                yield _whole(storage, relative, partial(file.read_row_group, group), columns)
                continue
            rows = max(1, -(-about.num_rows // count))
            for batch in file.iter_batches(rows, [group], columns, use_threads=False):
                yield pa.Table.from_batches([batch])


def _whole(storage: Storage, relative: str, read: Callable[..., pa.Table], columns: list[str] | None) -> pa.Table:
    """Calls `read` and returns its table. Raises Damaged if a page can't be read, though the footer could."""
    try:
        return read(columns=columns, use_threads=False)
    except StoreError:
        raise
    except (pa.ArrowInvalid, OSError) as error:
        path = storage.path(relative)
        raise Damaged(f"{path}: not a readable Parquet file ({error}).", path) from error


# Working files of which a later task reads some batches: Arrow files with several record batches. Each batch has a hash (XXH3-64) of its
# schema, number and buffers, so a task that reads some batches of very many files checks what it reads, and no more.
#
# Local files are mapped into memory, so reading one batch does not read the others.


def batches_buffer(schema: pa.Schema, tables: Sequence[pa.Table], compression: str | None = None) -> pa.Buffer:
    """Returns an Arrow file with one record batch for each table, also for an empty one."""
    sink = pa.BufferOutputStream()
    with ipc.new_file(sink, schema, options=ipc.IpcWriteOptions(compression=compression)) as writer:
        for number, table in enumerate(tables):
            _write_batch(writer, number, table)
    return sink.getvalue()


def batches_stream(schema: pa.Schema, tables: Iterable[pa.Table], compression: str | None = None) -> Iterator[Any]:
    """Yields the bytes of the file of `batches_buffer` while the tables come, so that only one table is in memory."""
    sink = MemoryFile()
    with ipc.new_file(sink, schema, options=ipc.IpcWriteOptions(compression=compression)) as writer:
        for number, table in enumerate(tables):
            _write_batch(writer, number, table)
            yield from sink.taken()
    yield from sink.taken()


def _write_batch(writer: ipc.RecordBatchFileWriter, number: int, table: pa.Table) -> None:
    batches = table.combine_chunks().to_batches()
    batch = batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
    batch = ipc.read_record_batch(batch.serialize(), batch.schema)  # with the buffers that a reader will get
    writer.write_batch(batch, custom_metadata={CHECKSUM: _checksum(batch, number)})


def _checksum(batch: pa.RecordBatch, number: int) -> bytes:
    found = xxh3_64(batch.schema.remove_metadata().serialize())
    found.update(f"{number} {batch.num_rows}".encode())
    for buffer in (buffer for column in batch.columns for buffer in column.buffers() if buffer is not None):
        found.update(buffer)
    return found.hexdigest().encode()


class Batches:
    """The batches of an open working file."""

    def __init__(self, path: str, reader: ipc.RecordBatchFileReader):
        self.path, self.schema, self.num_record_batches, self._reader = path, reader.schema, reader.num_record_batches, reader

    def get_batch(self, number: int) -> pa.RecordBatch:
        """Returns one batch. Raises Damaged if it is not the one that was written."""
        try:
            batch, metadata = self._reader.get_batch_with_custom_metadata(number)
            whole = metadata is not None and metadata.get(CHECKSUM) == _checksum(batch, number)
        except (pa.ArrowException, OSError, ValueError) as error:
            if isinstance(error, StoreError):
                raise
            whole = False
        if not whole:
            raise Damaged(f"{self.path}: batch {number} is not the one that was written (its checksum differs).", self.path)
        return batch


@contextmanager
def open_batches(storage: Storage, path: str) -> Iterator[Batches]:
    try:
        opened = storage.open_read(path)
        if not storage.remote:
            opened.close()
        source = pa.PythonFile(opened, mode="r") if storage.remote else pa.memory_map(storage.path(path))
    except StoreError:
        raise
    except OSError as error:
        raise Damaged(f"{storage.path(path)}: can't be read ({error}).", storage.path(path)) from error
    with source:
        try:
            reader = ipc.open_file(source)
        except StoreError:
            raise
        except (pa.ArrowInvalid, OSError) as error:
            raise Damaged(f"{storage.path(path)}: not a working file of this run ({error}).", storage.path(path)) from error
        yield Batches(storage.path(path), reader)
