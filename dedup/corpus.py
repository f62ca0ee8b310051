"""Shards of documents. The index of a document is its number among the rows of all shards: first those of this run, in the order of the
plan, then those of earlier runs."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline import shards as pipeline_shards
from corpusmill.pipeline.manifest import FileRef, TaskRow
from corpusmill.pipeline.shards import open_parquet
from corpusmill.pipeline.storage import Storage, located

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MeasuredShard:
    """A shard of documents with the files of its measurements, which have the same rows."""

    name: str
    rows: int
    texts: FileRef | None  # a Parquet file with a column `text`; None where an index keeps no texts
    signatures: FileRef
    keys: dict[str, FileRef]  # by kind
    entry: str | None = None  # the entry of the index; None for a shard of this run


def shard_key(path: str) -> str:
    """Returns the name of a shard, such as `part-00042` for `filter/data/part-00042.parquet`."""
    return PurePosixPath(path).stem


def starts(shards: list[MeasuredShard]) -> Integers:
    """Returns the index of each shard's first document, then the number of all documents."""
    return np.concatenate([[0], np.cumsum([shard.rows for shard in shards])]).astype(np.int64)


@contextmanager
def open_batches(run: Storage, path: str) -> Iterator[pipeline_shards.Batches]:
    """Opens a working file (Arrow), from which a task reads some of the batches."""
    with pipeline_shards.open_batches(*located(run, path)) as reader:
        yield reader


def read_rows(run: Storage, path: str, rows: Integers, columns: list[str]) -> Iterator[pa.Table]:
    """Reads some rows (ascending) of a shard; yields a table for each row group that has any of them."""
    with open_parquet(*located(run, path)) as file:
        begin = 0
        for group in range(file.num_row_groups):
            end = begin + file.metadata.row_group(group).num_rows
            here = rows[np.searchsorted(rows, begin) : np.searchsorted(rows, end)] - begin
            if len(here):
                table = file.read_row_group(group, columns=columns, use_threads=False)
                yield table if len(here) == table.num_rows else table.take(pa.array(here))
            begin = end


def first_output(row: TaskRow) -> FileRef:
    """Returns the first (often the only) file that a task has written."""
    return row.ref("dedup", row.outputs[0].path)


def files(rows: Iterable[TaskRow], prefix: str) -> list[FileRef]:
    """Returns the files that tasks have written below the folder `prefix`."""
    outputs = [(row, output.path) for row in rows for output in row.outputs]
    return [row.ref("dedup", path) for row, path in outputs if path.startswith(prefix)]
