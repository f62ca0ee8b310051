"""Working files of which a later phase reads one batch of each: Arrow files with a record batch for every range of keys or group.

Local ones are mapped into memory, so reading a batch touches no byte of the others.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.ipc as ipc

from corpusmill.dedup.corpus import located
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage


def batches_bytes(schema: pa.Schema, tables: Sequence[pa.Table], compression: str | None = None) -> bytes:
    """An Arrow file with one record batch for each table, empty ones too."""
    sink = pa.BufferOutputStream()
    with ipc.new_file(sink, schema, options=ipc.IpcWriteOptions(compression=compression)) as writer:
        for table in tables:
            batches = table.combine_chunks().to_batches()
            writer.write_batch(batches[0] if batches else pa.RecordBatch.from_pylist([], schema=schema))
    return sink.getvalue().to_pybytes()


@contextmanager
def open_batches(run: Storage, path: str) -> Iterator[ipc.RecordBatchFileReader]:
    storage, name = located(run, path)
    try:
        source = pa.PythonFile(storage.open_read(name), mode="r") if storage.remote else pa.memory_map(storage.path(name))
    except OSError as error:
        raise InputError(f"{storage.path(name)}: can't be read ({error}).") from error
    with source:
        try:
            reader = ipc.open_file(source)
        except pa.ArrowInvalid as error:
            raise InputError(f"{storage.path(name)}: not a working file of dedup ({error}).") from error
        yield reader
