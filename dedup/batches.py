"""Working files of which a later phase reads one batch of each (`pipeline/shards.py`): a batch for every range of keys or group."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.ipc as ipc

from corpusmill.dedup.corpus import located
from corpusmill.pipeline import shards
from corpusmill.pipeline.storage import Storage


def batches_bytes(schema: pa.Schema, tables: Sequence[pa.Table], compression: str | None = None) -> bytes:
    """An Arrow file with one record batch for each table, empty ones too."""
    return shards.batches_buffer(schema, tables, compression).to_pybytes()


@contextmanager
def open_batches(run: Storage, path: str) -> Iterator[ipc.RecordBatchFileReader]:
    with shards.open_batches(*located(run, path)) as reader:
        yield reader
