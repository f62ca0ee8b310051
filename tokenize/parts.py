"""Encoded parts: the tokens of one shard of documents, already in the order in which they will be shuffled.

Beside each part lies a table with a row a document, sorted by `order`: whoever wants a range of the global order finds it
as one stretch of every part.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.shards import open_parquet
from corpusmill.pipeline.special_tokens import EOT_ID
from corpusmill.pipeline.storage import Storage
from corpusmill.tokenize.chance import hashes
from corpusmill.tokenize.encode import Encoder

#: `first` counts tokens within the part; documents without text have no tokens; `group` decides the split.
PART = pa.schema(
    [
        pa.field("order", pa.uint64(), nullable=False),
        pa.field("group", pa.uint64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("source", pa.string()),
        pa.field("offset", pa.int64()),
        pa.field("length", pa.int64()),
        pa.field("data_file", pa.string(), nullable=False),
        pa.field("data_row", pa.int64(), nullable=False),
        pa.field("chars", pa.int64(), nullable=False),
        pa.field("utf8_bytes", pa.int64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("first", pa.int64(), nullable=False),
    ]
)
#: The global order. Documents with one id come one after the other, by their place in the crawl.
ORDER = [(name, "ascending") for name in ("order", "id", "source", "offset", "data_file", "data_row")]
SPACE = 1 << 64


@dataclass(frozen=True)
class Ordering:
    """How documents are ordered and split: by hashes with `seed`, or (where `shuffle` is off) as they come.

    `number` of `pieces` is the place of a shard of documents among all of them.
    """

    seed: int
    shuffle: bool
    number: int
    pieces: int

    def orders(self, ids: list[str]) -> npt.NDArray[np.uint64]:
        if self.shuffle:
            return hashes(ids, 2 * self.seed)
        share = SPACE // self.pieces
        step = share // max(len(ids), 1)
        return np.array([self.number * share + row * step for row in range(len(ids))], np.uint64)

    def groups(self, ids: list[str], clusters: list[str | None]) -> npt.NDArray[np.uint64]:
        """A hash of the cluster of duplicates, or of the id where a document is in none."""
        return hashes((cluster or name for name, cluster in zip(ids, clusters)), 2 * self.seed + 1)


def encode_part(encoder: Encoder, tables: Iterator[pa.Table], path: str, ordering: Ordering) -> tuple[npt.NDArray[np.integer], pa.Table]:
    """The tokens of one shard of documents and its table (schema PART), both in the global order."""
    ids: list[str] = []
    clusters: list[str | None] = []
    pieces, counts, kept_columns = [], [], []
    for table in tables:
        texts = table["text"]
        sizes = pc.binary_length(texts).to_numpy()
        tokens, numbers = encoder.encode_column(texts, EOT_ID)
        pieces.append(tokens)
        counts.append(numbers)
        ids += table["id"].to_pylist()
        clusters += _clusters(table)
        described = table.select(["id", "url", "source", "offset", "length"])
        described = described.append_column("chars", pc.utf8_length(texts).cast(pa.int64()))
        kept_columns.append(described.append_column("utf8_bytes", pa.array(sizes, pa.int64())))
    if not ids:
        return np.zeros(0, encoder.dtype), PART.empty_table()
    described = pa.concat_tables(kept_columns)
    described = described.append_column("order", pa.array(ordering.orders(ids)))
    described = described.append_column("group", pa.array(ordering.groups(ids, clusters)))
    described = described.append_column("data_file", pa.array([path] * len(ids)))
    described = described.append_column("data_row", pa.array(np.arange(len(ids))))
    return _in_order(np.concatenate(pieces), np.concatenate(counts), described)


def _clusters(table: pa.Table) -> list[str | None]:
    if "kept_id" not in table.column_names:
        return [None] * table.num_rows
    return table["kept_id"].cast(pa.string()).to_pylist()


def _in_order(
    tokens: npt.NDArray[np.integer], counts: npt.NDArray[np.int64], described: pa.Table
) -> tuple[npt.NDArray[np.integer], pa.Table]:
    """Sorts documents and their tokens; documents without text lose the END_OF_TEXT that they were given."""
    firsts = np.cumsum(counts) - counts
    counts = np.where(described["utf8_bytes"].to_numpy() > 0, counts, 0)
    order = pc.sort_indices(described, sort_keys=ORDER).to_numpy()
    slices = [tokens[first : first + count] for first, count in zip(firsts[order].tolist(), counts[order].tolist())]
    counts = counts[order]
    table = described.take(pa.array(order)).append_column("tokens", pa.array(counts))
    table = table.append_column("first", pa.array(np.cumsum(counts) - counts))
    return np.concatenate(slices), table.select(PART.names).cast(PART)


def rows_between(storage: Storage, path: str, low: int, high: int) -> pa.Table:
    """The rows of a part's table with low <= order < high; row groups outside are not read."""
    found = [PART.empty_table()]
    with open_parquet(storage, path) as file:
        for group in range(file.num_row_groups):
            limits = file.metadata.row_group(group).column(0).statistics  # none where there are no rows
            if limits is not None and limits.max >= low and limits.min < high:
                table = file.read_row_group(group, use_threads=False)
                order = table["order"].to_numpy()
                begin, end = np.searchsorted(order, np.array([low, min(high, SPACE - 1)], np.uint64))
                end = len(order) if high >= SPACE else int(end)
                found.append(table.slice(int(begin), int(end) - int(begin)))
    return pa.concat_tables(found)
