"""Working files of which a later task reads some batches: Arrow files with several record batches.

Local ones are mapped into memory, so reading a batch touches no byte of the others.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.ipc as ipc

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.shards import Pieces
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.store_requests import StoreError


def batches_buffer(schema: pa.Schema, tables: Sequence[pa.Table], compression: str | None = None) -> pa.Buffer:
    """An Arrow file with one record batch for each table, empty ones too."""
    sink = pa.BufferOutputStream()
    with ipc.new_file(sink, schema, options=ipc.IpcWriteOptions(compression=compression)) as writer:
        for table in tables:
            writer.write_batch(_one_batch(table))
    return sink.getvalue()


def batches_stream(schema: pa.Schema, tables: Iterable[pa.Table], compression: str | None = None) -> Iterator[Any]:
    """The same file, piece by piece, while the tables come: one of them is in memory."""
    sink = Pieces()
    with ipc.new_file(sink, schema, options=ipc.IpcWriteOptions(compression=compression)) as writer:
        for table in tables:
            writer.write_batch(_one_batch(table))
            yield from sink.taken()
    yield from sink.taken()


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


@contextmanager
def open_batches(storage: Storage, path: str) -> Iterator[ipc.RecordBatchFileReader]:
    try:
        source = pa.PythonFile(storage.open_read(path), mode="r") if storage.remote else pa.memory_map(storage.path(path))
    except StoreError:
        raise
    except OSError as error:
        raise InputError(f"{storage.path(path)}: can't be read ({error}).") from error
    with source:
        try:
            reader = ipc.open_file(source)
        except StoreError:
            raise
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{storage.path(path)}: not a working file of this run ({error}).") from error
        yield reader
