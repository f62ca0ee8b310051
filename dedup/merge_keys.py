"""Files of keys of neighbouring shards as one, with a batch for each task that reads them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc

from corpusmill.dedup.keys import KEYS, KeyRows, key_ranges, parted
from corpusmill.dedup.merge import MergeWorker, neighbours, worth_merging
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Piece

#: Bytes of keys that are parted at once.
BLOCK_BYTES = 32 << 20


@dataclass(frozen=True)
class KeyFiles:
    """Files of keys in the order of the plan, the index of the first document of each, and how many tasks read a range of all of them."""

    files: list[FileRef]
    starts: list[int]
    ranges: int


def merge_keys(run: StageRun, by_kind: dict[str, KeyFiles]) -> dict[str, KeyFiles]:
    """The same with fewer files, of the kinds of which that is worth it."""
    pieces = {kind: _pieces(kind, keys) for kind, keys in by_kind.items() if worth_merging(len(keys.files), keys.ranges)}
    done = iter(run.map("merged keys", KeyMergeWorker, [piece for group in pieces.values() for piece in group], config=Config()))
    merged = dict(by_kind)
    for kind, group in pieces.items():
        files = [row.ref("dedup", row.outputs[0].path) for row in (next(done) for _ in group)]
        merged[kind] = KeyFiles(files, [block[0] for block in neighbours(by_kind[kind].starts)], by_kind[kind].ranges)
    return merged


def _pieces(kind: str, keys: KeyFiles) -> list[Piece]:
    blocks = zip(neighbours(keys.files), neighbours(keys.starts), strict=True)
    return [
        Piece(f"merged/{kind}-{number:05d}", tuple(files), {"ranges": keys.ranges, "starts": [start - starts[0] for start in starts]})
        for number, (files, starts) in enumerate(blocks)
    ]


class KeyMergeWorker(MergeWorker[KeyRows]):
    """Files of keys, of whatever ranges, to one of `ranges`. Rows are counted on through all files: `starts` says from where in each."""

    def blocks(self, piece: Piece, reader: ipc.RecordBatchFileReader) -> Iterator[KeyRows]:
        return key_ranges(reader, self._count(piece))

    def merged(self, piece: Piece, schema: pa.Schema, blocks: Iterable[Sequence[KeyRows]]) -> Iterator[pa.Table]:
        starts, each = piece.params["starts"], piece.params["ranges"] // self._count(piece)
        for number, found in enumerate(blocks):
            key, check = (np.concatenate([keys[column] for keys in found]) for column in (0, 1))
            row = np.concatenate([keys[2].astype(np.int64) + start for keys, start in zip(found, starts, strict=True)])
            for part in parted(key, check, row, piece.params["ranges"], number * each, (number + 1) * each):
                yield pa.table([*part[:2], pa.array(part[2]).cast(pa.uint32())], schema=KEYS)

    def _count(self, piece: Piece) -> int:
        """In how many blocks, a power of two, the keys come."""
        count, size = 1, sum(ref.bytes for ref in piece.inputs)
        while count < piece.params["ranges"] and count * BLOCK_BYTES < size:
            count *= 2
        return count
