"""Gathered files of neighbouring shards as one, with a batch a group.

Of a shard a group has a few documents where there are many of both, and a batch of its own for each of these would cost more than to copy
them. So shards that are merged write a batch for some groups, of which all of them together have no more than fits memory.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc

from corpusmill.dedup.batches import open_batches
from corpusmill.dedup.corpus import Index
from corpusmill.dedup.merge import MergeWorker, neighbours
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Piece
from corpusmill.pipeline.storage import Storage

#: 64-bit words of the documents (`GROUP_WORDS`) that are parted at once.
BLOCK_WORDS = 4_000_000
#: The column that says of which group a document is, in files that are still to be merged.
GROUP = "group_number"


def group_blocks(run: Storage, groups: str, shards: tuple[int, int], count: int) -> Index:
    """Where each block of the `count` groups begins, and the end, by what the shards from one number to another have of the groups.
    `groups`: the file of groups."""
    words = np.zeros(count, np.int64)
    with open_batches(run, groups) as reader:
        for shard in range(*shards):
            members = reader.get_batch(shard)
            words += np.bincount(members["group"].to_numpy(), members["words"].to_numpy(), count).astype(np.int64)
    block = (np.cumsum(words) - words) // BLOCK_WORDS
    return np.concatenate([[0], np.flatnonzero(np.diff(block)) + 1, [count]])


def merged_shards(count: int) -> list[tuple[int, int]]:
    """Of `count` shards those that are merged: the first, and the one behind the last."""
    return [(block[0], block[-1] + 1) for block in neighbours(range(count))]


def merge_gathered(run: StageRun, files: Sequence[FileRef], groups: FileRef, count: int) -> list[FileRef]:
    """The merged files. `groups`: the file of the `count` groups."""
    pieces = [
        Piece(f"merged/gathered-{number:05d}", (groups, *block), {"shards": shards, "groups": count})
        for number, (block, shards) in enumerate(zip(neighbours(files), merged_shards(len(files)), strict=True))
    ]
    done = run.map("merged documents", GatheredMergeWorker, pieces, config=Config())
    return [row.ref("dedup", row.outputs[0].path) for row in done]


class GatheredMergeWorker(MergeWorker[pa.Table]):
    """The file of groups and gathered files to one with a batch for each of `groups`; the files' columns may differ."""

    others = 1
    compression = "lz4"

    def blocks(self, piece: Piece, reader: ipc.RecordBatchFileReader) -> Iterator[pa.Table]:
        for number in range(reader.num_record_batches):
            yield pa.Table.from_batches([reader.get_batch(number)])

    def merged(self, piece: Piece, schema: pa.Schema, blocks: Iterable[Sequence[pa.Table]]) -> Iterator[pa.Table]:
        bounds = group_blocks(self.run, piece.inputs[0].path, piece.params["shards"], piece.params["groups"])
        empty = schema.empty_table()
        for (first, end), found in zip(pairwise(bounds.tolist()), blocks, strict=True):
            table = pa.concat_tables([empty, *found], promote_options="permissive").cast(schema)
            group = table[GROUP].to_numpy()
            order = np.argsort(group, kind="stable")
            table = table.drop_columns([GROUP]).take(pa.array(order)).combine_chunks()
            cuts = np.searchsorted(group[order], np.arange(first, end + 1))
            for a, b in pairwise(cuts.tolist()):
                yield table.slice(a, b - a)
