"""Between a phase that writes a file a shard and one of which each task reads a batch of every file: neighbouring files become one.

What is opened would else be files times tasks. It is a `FAN_IN`-th of that with one such phase, and each file once more. There is no second
one: of 10,000 files the first leaves 157, which a task opens in less time than its batches take, and what it has left would be merged by
three tasks.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc

from corpusmill.dedup.batches import open_batches
from corpusmill.dedup.corpus import located
from corpusmill.dedup.keys import KEYS, KeyRows, key_ranges, parted
from corpusmill.pipeline.batches import batches_stream
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Output, Piece, Worker
from corpusmill.pipeline.store.ask import StoreError

#: Files that one task merges. It has all of them open, and of each, on a store, up to 9 MiB that were read ahead.
FAN_IN = 64
#: Where no more tasks read each of the files, they may well open them all: to write them again takes longer.
FEW = 8
#: Bytes of keys that a task of the merge parts at once.
BLOCK_BYTES = 32 << 20

Item = TypeVar("Item")


def worth_merging(files: int, readers: int) -> bool:
    """Whether so many files, each of which so many tasks read, are merged."""
    return files > FAN_IN and readers > FEW


def neighbours(items: Sequence[Item]) -> list[Sequence[Item]]:
    """What becomes one: `FAN_IN` of the items, and the next."""
    return [items[begin : begin + FAN_IN] for begin in range(0, len(items), FAN_IN)]


@dataclass(frozen=True)
class BatchFiles:
    """Files in the order of the plan, of each of which every one of `parts` tasks reads its part."""

    files: list[FileRef]
    parts: int
    starts: list[int] | None = None  # of files of keys: the index of the first document of each


def merge(run: StageRun, phase: str, named: dict[str, BatchFiles]) -> dict[str, BatchFiles]:
    """The same by name, with fewer files where that is worth it: rows in the same order, a batch a part."""
    wanted = {name: found for name, found in named.items() if worth_merging(len(found.files), found.parts)}
    pieces = {name: _pieces(name, found) for name, found in wanted.items()}
    done = iter(run.map(phase, MergeWorker, [piece for group in pieces.values() for piece in group], config=Config()))
    merged = {}
    for name, group in pieces.items():
        files = [row.ref("dedup", row.outputs[0].path) for row in (next(done) for _ in group)]
        starts = wanted[name].starts
        merged[name] = replace(wanted[name], files=files, starts=starts and [block[0] for block in neighbours(starts)])
    return named | merged


def _pieces(name: str, found: BatchFiles) -> list[Piece]:
    starts = neighbours(found.starts) if found.starts else None
    return [
        Piece(
            f"merged/{name}-{number:05d}",
            tuple(files),
            {"parts": found.parts} | ({"starts": [start - starts[number][0] for start in starts[number]]} if starts else {}),
        )
        for number, files in enumerate(neighbours(found.files))
    ]


class MergeWorker(Worker):
    """Some Arrow files to one of `parts` batches: in each the rows that the files have of this part, one file behind the other.

    Files of keys may have any number of batches (`keys.py`); the rows that they name are counted on through all files by `starts`, the
    index of each file's first document. Others have a batch a part; their columns may differ. Params of a piece: `parts`, of keys `starts`.
    """

    memory_mb = 800

    def process(self, piece: Piece) -> Output:
        return Output({f"{piece.key}.arrow": self._merged(piece)})

    def _merged(self, piece: Piece) -> Iterator[bytes]:
        """The file as it is written: a batch is in memory, or a block of keys."""
        parts, starts = piece.params["parts"], piece.params.get("starts")
        with ExitStack() as stack:
            readers = [stack.enter_context(open_batches(self.run, ref.path)) for ref in piece.inputs]
            names = [storage.path(name) for storage, name in (located(self.run, ref.path) for ref in piece.inputs)]
            if starts is None:
                schema = pa.unify_schemas([reader.schema for reader in readers], promote_options="permissive")
                rows = [_named(name, _batches(reader, parts)) for name, reader in zip(names, readers, strict=True)]
                yield from batches_stream(schema, _merged_tables(schema, rows), "lz4")
            else:
                blocks = _blocks(sum(ref.bytes for ref in piece.inputs), parts)
                keys = [_named(name, key_ranges(reader, blocks)) for name, reader in zip(names, readers, strict=True)]
                yield from batches_stream(KEYS, _merged_keys(keys, starts, blocks, parts))


def _named(name: str, found: Iterator[Item]) -> Iterator[Item]:
    """What is read of a file; one sentence where its end is whole and it can't be read all the same."""
    try:
        yield from found
    except StoreError:
        raise
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{name}: not a working file of this run ({error}).") from error


def _batches(reader: ipc.RecordBatchFileReader, parts: int) -> Iterator[pa.Table]:
    for number in range(parts):
        yield pa.Table.from_batches([reader.get_batch(number)])


def _merged_tables(schema: pa.Schema, files: Sequence[Iterator[pa.Table]]) -> Iterator[pa.Table]:
    for tables in zip(*files, strict=True):
        yield pa.concat_tables([schema.empty_table(), *tables], promote_options="permissive").cast(schema)


def _blocks(size: int, parts: int) -> int:
    """In how many blocks (a power of two up to `parts`) so many bytes of keys are merged."""
    blocks = 1
    while blocks < parts and blocks * BLOCK_BYTES < size:
        blocks *= 2
    return blocks


def _merged_keys(files: Sequence[Iterator[KeyRows]], starts: Sequence[int], blocks: int, parts: int) -> Iterator[pa.Table]:
    """`files`: of each its keys, block by block. A batch for each of `parts` ranges."""
    for number, found in enumerate(zip(*files, strict=True)):
        key, check = (np.concatenate([keys[column] for keys in found]) for column in (0, 1))
        row = np.concatenate([keys[2].astype(np.int64) + start for keys, start in zip(found, starts, strict=True)])
        for range_keys, range_check, range_row in parted(key, check, row, parts, number * parts // blocks, (number + 1) * parts // blocks):
            yield pa.table([range_keys, range_check, pa.array(range_row).cast(pa.uint32())], schema=KEYS)
