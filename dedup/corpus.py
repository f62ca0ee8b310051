"""The documents of the whole input by index: shards in the order of the plan, then rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.shards import open_parquet
from corpusmill.pipeline.storage import Storage

Index = npt.NDArray[np.int64]


def shard_key(path: str) -> str:
    """`part-00042` of `filter/data/part-00042.parquet`."""
    return PurePosixPath(path).stem


@dataclass(frozen=True)
class Corpus:
    """Document shards, the signature shards made from them row by row, and the index of each shard's first document."""

    run: Storage
    documents: Sequence[str]
    signatures: Sequence[str]
    starts: Index  # one longer than the shards: the last is the number of documents

    def address(self, index: Index) -> tuple[pa.Array, Index]:
        """`(shard key, row)` of each document."""
        shard = np.searchsorted(self.starts, index, side="right") - 1
        keys = pa.array([shard_key(path) for path in self.documents], pa.string())
        return keys.take(pa.array(shard)), index - self.starts[shard]

    def read_signatures(self, index: Index, columns: list[str]) -> pa.Table:
        """Columns of the signature rows of the documents `index` (ascending, at least one)."""
        return pa.concat_tables(self._read(self.signatures, index, columns))

    def read_texts(self, index: Index) -> Iterator[pa.Table]:
        """The texts of the documents `index` (ascending), a row group's at a time."""
        return self._read(self.documents, index, ["text"])

    def _read(self, shards: Sequence[str], index: Index, columns: list[str]) -> Iterator[pa.Table]:
        cuts = np.searchsorted(index, self.starts)
        for shard, path in enumerate(shards):
            rows = index[cuts[shard] : cuts[shard + 1]] - self.starts[shard]
            if len(rows):
                yield from read_rows(self.run, path, rows, columns)


def read_rows(run: Storage, path: str, rows: Index, columns: list[str]) -> Iterator[pa.Table]:
    """Some rows (ascending) of a shard; row groups that hold none of them are not read."""
    with open_parquet(run, path) as file:
        begin = 0
        for group in range(file.num_row_groups):
            end = begin + file.metadata.row_group(group).num_rows
            here = rows[np.searchsorted(rows, begin) : np.searchsorted(rows, end)] - begin
            if len(here):
                table = file.read_row_group(group, columns=columns, use_threads=False)
                yield table if len(here) == table.num_rows else table.take(pa.array(here))
            begin = end
