"""The second phase: groups of exact copies, and LSH buckets in which near copies may be.

Every document has an index over the whole input (shards in the order of the plan, then rows). Keys are split by
hash range, so that a task holds one range of some columns and never a text.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.dedup.signatures import band_column, fixed_binary
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.stage import Output, Piece, Worker

#: Keys that one task sorts: 8 bytes each, and as much again for the order.
TASK_KEYS = 8_000_000

EXACT = pa.schema(
    [
        pa.field("document", pa.int64(), nullable=False),
        pa.field("first", pa.int64(), nullable=False),  # the copy with the lowest index, which stands for all in the buckets
    ]
)
BUCKETS = pa.schema(
    [
        pa.field("bucket", pa.int64(), nullable=False),  # numbered within the file
        pa.field("document", pa.int64(), nullable=False),
    ]
)

Index = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Part:
    """One range of the keys of some columns."""

    columns: tuple[str, ...]
    part: int
    parts: int


def plan_parts(documents: int, bands: int, exact: bool) -> list[Part]:
    """What the tasks of the phase do: depends on the number of documents alone, never on that of the workers."""
    parts = max(1, -(-documents // TASK_KEYS))
    together = max(1, TASK_KEYS // max(documents, 1))
    names = [band_column(band) for band in range(bands)]
    groups = [tuple(names[i : i + together]) for i in range(0, bands, together)]
    groups = [("exact",), *groups] if exact else groups
    return [Part(columns, part, parts) for columns in groups for part in range(parts)]


def candidate_pieces(parts: list[Part], signatures: list[FileRef], collapse: bool) -> list[Piece]:
    """`collapse`: whether exact copies are one document in the buckets (they are when exact groups are made, too)."""
    return [
        Piece(
            f"candidates/{'exact' if part.columns == ('exact',) else 'buckets'}-{number:05d}",
            tuple(signatures),
            {"columns": list(part.columns), "part": part.part, "parts": part.parts, "collapse": collapse},
        )
        for number, part in enumerate(parts)
    ]


def exact_groups(hashes: Keys, documents: Index) -> tuple[Index, Index]:
    """`(document, first)` for each document that has an equal hash (n x 2) in another one, in order of `document`.

    `documents` ascends; `first` is the lowest document of its group.
    """
    if not len(documents):
        return documents, documents
    order = np.lexsort((documents, hashes[:, 1], hashes[:, 0]))
    ordered = hashes[order]
    begins = np.flatnonzero(np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)])
    sizes = np.diff(np.r_[begins, len(order)])
    firsts = np.repeat(documents[order[begins]], sizes)
    copied = np.repeat(sizes > 1, sizes)
    found = documents[order][copied]
    back = np.argsort(found, kind="stable")
    return found[back], firsts[copied][back]


def buckets(keys: Keys, hashes: Keys, documents: Index) -> tuple[Index, Index]:
    """`(bucket, document)` of every key that two documents with different exact hashes have; both ascend.

    Of exact copies only the first is in a bucket: a million copies of one page are one document here.
    """
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    same = ordered[1:] == ordered[:-1]
    shared = np.r_[same, False] | np.r_[False, same] if len(order) else np.zeros(0, bool)
    order = order[shared]
    order = order[np.lexsort((documents[order], hashes[order, 1], hashes[order, 0], keys[order]))]
    if not len(order):
        return documents[:0], documents[:0]
    new_key = np.r_[True, keys[order[1:]] != keys[order[:-1]]]
    new_text = new_key | np.r_[True, (hashes[order[1:]] != hashes[order[:-1]]).any(axis=1)]
    order, new_key = order[new_text], new_key[new_text]
    number = np.cumsum(new_key) - 1
    sizes = np.bincount(number)
    wanted = sizes[number] > 1
    renumbered = np.cumsum(sizes > 1) - 1
    bucket, document = renumbered[number[wanted]], documents[order[wanted]]
    back = np.lexsort((document, bucket))
    return bucket[back], document[back]


def in_part(keys: Keys, part: int, parts: int) -> npt.NDArray[np.bool_]:
    """Which keys lie in one of `parts` equal ranges of the 64-bit numbers."""
    return ((keys >> np.uint64(32)) * np.uint64(parts)) >> np.uint64(32) == np.uint64(part)


class CandidateWorker(Worker):
    """One range of keys of all signature shards to one table of groups or buckets."""

    def process(self, piece: Piece) -> Output:
        part, parts = piece.params["part"], piece.params["parts"]
        shards = [input_.path for input_ in piece.inputs]
        if piece.params["columns"] == ["exact"]:
            hashes, documents, size = self._hashes(shards, part, parts)
            document, first = exact_groups(hashes, documents)
            table = pa.table([document, first], schema=EXACT)
        else:
            tables, size, before = [], 0, 0
            for column in piece.params["columns"]:
                keys, hashes, documents, read = self._band(shards, column, part, parts, piece.params["collapse"])
                bucket, document = buckets(keys, hashes, documents)
                tables.append(pa.table([bucket + before, document], schema=BUCKETS))
                before += int(bucket[-1]) + 1 if len(bucket) else 0
                size += read
            table = pa.concat_tables(tables)
        return Output({f"{piece.key}.parquet": table}, counts={"keys": size, "shared": table.num_rows})

    def _hashes(self, shards: list[str], part: int, parts: int) -> tuple[Keys, Index, int]:
        """`(hashes, documents, keys read)` of one range: n x 2, and n."""
        hashes, documents, start = [np.zeros((0, 2), np.uint64)], [np.zeros(0, np.int64)], 0
        for shard in shards:
            found = fixed_binary(read_table(self.run, shard, ["exact"])["exact"], np.dtype(np.uint64))
            rows = np.flatnonzero(in_part(found[:, 0], part, parts))
            hashes.append(found[rows])
            documents.append(rows + start)
            start += len(found)
        return np.concatenate(hashes), np.concatenate(documents), start

    def _band(self, shards: list[str], column: str, part: int, parts: int, collapse: bool) -> tuple[Keys, Keys, Index, int]:
        """`(keys, hashes, documents, keys read)` of one range of a band: n, n x 2, and n."""
        keys, hashes, documents, start = [np.zeros(0, np.uint64)], [np.zeros((0, 2), np.uint64)], [np.zeros(0, np.int64)], 0
        for shard in shards:
            table = read_table(self.run, shard, ["near", "exact", column])
            key = table[column].to_numpy()
            rows = np.flatnonzero(table["near"].to_numpy() & in_part(key, part, parts))
            keys.append(key[rows])
            documents.append(rows + start)
            if collapse:
                hashes.append(fixed_binary(table["exact"], np.dtype(np.uint64))[rows])
            else:  # nothing is a copy of anything
                hashes.append(np.repeat((rows + start).astype(np.uint64)[:, None], 2, axis=1))
            start += table.num_rows
        return np.concatenate(keys), np.concatenate(hashes), np.concatenate(documents), start
