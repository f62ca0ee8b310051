"""The external sort of dedup. Each task of one phase writes a file that is cut into partitions; each task of a later phase reads one
partition from all these files. So no task holds more than a shard or a partition.

The partitions of keys (hashes of texts, of URLs and of LSH bands) are equal ranges of 64-bit numbers. The partitions of documents are the
groups in which they are judged. A file is an Arrow file with a batch for each partition.

Where many tasks would read many files, a phase merges neighbouring files first, `FAN_IN` into one, so that each task opens fewer files. One
such phase is enough: it turns 10,000 files into 157, and a task opens these in less time than it takes to read its batches.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.dedup.corpus import Integers, open_batches
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.lists import write_list
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import Batches, batches_buffer, batches_stream
from corpusmill.pipeline.stage import Output, Task, Worker
from corpusmill.pipeline.storage import Storage

EXACT_KEYS, URL_KEYS, BAND_KEYS = "exact", "url", "bands"

KEYS = pa.schema(
    [
        pa.field("key", pa.uint64(), nullable=False),
        # for bands, a hash of the text, so that exact copies count as one; for texts and URLs, the other 64 bits of their hash
        pa.field("check", pa.uint64(), nullable=False),
        pa.field("row", pa.uint32(), nullable=False),
    ]
)

#: About how many keys a batch has: a task that needs a range reads at most this many others with it.
BATCH_KEYS = 4_096
MAX_RANGES = 65_536

#: Files that one task merges. It holds all of them open; on a store, up to 9 MiB of each are read ahead.
FAN_IN = 64
#: For this many reading tasks or fewer, opening all files in each takes less time than merging the files first.
FEW = 32
#: How much one task merges at once: bytes of keys, and 64-bit words of documents (`GROUPED` in `candidates.py`).
BLOCK_BYTES, BLOCK_WORDS = 32 << 20, 4_000_000
#: The column with the number of a document's group, in files that are still to be merged.
GROUP = "group_number"

Keys = npt.NDArray[np.uint64]
Item = TypeVar("Item")


# ---- keys --------------------------------------------------------------------------------------------


def range_of(keys: Keys, ranges: int) -> npt.NDArray[np.uint16]:
    """Returns the range of each key: the 64-bit numbers are divided into `ranges` (a power of two up to 65,536) equal ranges."""
    if ranges == 1:
        return np.zeros(len(keys), np.uint16)
    return (keys >> np.uint64(64 - (ranges.bit_length() - 1))).astype(np.uint16)


def batch_ranges(keys: int) -> int:
    """Returns the number of ranges, a power of two, into which the keys of a shard are split."""
    return min(1 << max(keys // BATCH_KEYS, 1).bit_length() - 1, MAX_RANGES)


def keys_bytes(keys: Keys, check: Keys, rows: npt.NDArray[np.uint32]) -> bytes:
    """Returns the key file of one shard: a batch of about `BATCH_KEYS` for each range. The keys of a batch keep their order."""
    ranges = batch_ranges(len(keys))
    table = pa.table([keys, check, rows], schema=KEYS)
    return batches_buffer(KEYS, list(parted(table, range_of(keys, ranges), 0, ranges))).to_pybytes()


def parted(table: pa.Table, partition: npt.NDArray[Any], first: int, end: int) -> Iterator[pa.Table]:
    """Yields the rows of each partition from `first` to `end`, in their order. All rows must lie in these partitions."""
    order = np.argsort(partition, kind="stable")
    table = table.take(pa.array(order)).combine_chunks()
    for a, b in pairwise(np.searchsorted(partition[order], np.arange(first, end + 1)).tolist()):
        yield table.slice(a, b - a)


def read_keys(run: Storage, path: str, part: int, parts: int) -> tuple[Keys, Keys, Integers]:
    """Returns `(key, check, row)` for range `part` of `parts`. The file may have been written with another number of ranges."""
    with open_batches(run, path) as reader:
        key, check, row = (column.to_numpy() for column in _keys(reader, part, parts).columns)
        return key, check, row.astype(np.int64)


def _keys(reader: Batches, part: int, parts: int) -> pa.Table:
    ranges = reader.num_record_batches
    first, count = part * ranges // parts, max(ranges // parts, 1)
    table = pa.Table.from_batches([reader.get_batch(number) for number in range(first, first + count)])
    if parts > ranges:
        table = table.filter(pa.array(range_of(table["key"].to_numpy(), parts) == part))
    return table


# ---- the merge ---------------------------------------------------------------------------------------


def worth_merging(files: int, readers: int) -> bool:
    """Whether merging `files` files takes less time than it saves the `readers` tasks that each read all of them."""
    return files > FAN_IN and readers > FEW


def neighbours(items: Sequence[Item]) -> list[Sequence[Item]]:
    """Returns the items in blocks of `FAN_IN` neighbours. Each block is merged into one."""
    return [items[begin : begin + FAN_IN] for begin in range(0, len(items), FAN_IN)]


class MergeWorker(Worker):
    """Merges neighbouring files into one with a batch for each partition.

    It works block by block: a block is some neighbouring partitions of all files. Only one block is in memory at a time.
    """

    memory_mb = 900
    #: The number of a task's inputs that are not files to merge; they come first.
    others = 0
    compression: str | None = None

    @abstractmethod
    def blocks(self, task: Task) -> list[int]:
        """Returns the first partition of each block, then the number of partitions."""

    @abstractmethod
    def read(self, reader: Batches, block: int, blocks: int, start: int) -> pa.Table:
        """Reads one of `blocks` blocks of a file. `start`: the number of the file's first row among the rows of all merged files."""

    @abstractmethod
    def partitions(self, task: Task, table: pa.Table) -> tuple[pa.Table, npt.NDArray[Any]]:
        """Returns the rows to write for a block (`table`: its rows from all files), and the partition of each row."""

    def process(self, task: Task) -> Output:
        return Output({f"{task.key}.arrow": self._content(task)})

    def _content(self, task: Task) -> Iterator[Any]:
        with ExitStack() as stack:
            files = task.inputs[self.others :]
            readers = [stack.enter_context(open_batches(self.run, ref.path)) for ref in files]
            tables = self._tables(task, readers)
            first = next(tables)
            yield from batches_stream(first.schema, chain([first], tables), self.compression)

    def _tables(self, task: Task, readers: list[Batches]) -> Iterator[pa.Table]:
        schema = pa.unify_schemas([reader.schema for reader in readers], promote_options="permissive")
        bounds = self.blocks(task)
        for block, (first, end) in enumerate(pairwise(bounds)):
            found = [schema.empty_table()]
            for reader, start in zip(readers, task.params["starts"], strict=True):
                found.append(self.read(reader, block, len(bounds) - 1, start))
            table = pa.concat_tables(found, promote_options="permissive").cast(schema)
            parts = parted(*self.partitions(task, table), first, end)
            del table, found  # `parts` holds a sorted copy
            yield from parts


def merge_keys(run: StageRun, files: dict[str, list[FileRef]], starts: list[int], ranges: dict[str, int]) -> dict[str, FileRef]:
    """Merges the key files where that saves time; returns the list of files for each kind of keys.

    `starts`: the index of the first document of each shard. `ranges`: by kind, the number of tasks that read the list. `params` of a list:
    `starts`, the index of the first document of each of its files.
    """
    blocks = neighbours(starts)
    tasks = {
        kind: [
            Task(f"merged/{kind}-{number:05d}", tuple(some), {"ranges": ranges[kind], "starts": [start - block[0] for start in block]})
            for number, (some, block) in enumerate(zip(neighbours(files[kind]), blocks, strict=True))
        ]
        for kind in files
        if worth_merging(len(files[kind]), ranges[kind])
    }
    done = iter(run.map("merged keys", KeyMergeWorker, [task for some in tasks.values() for task in some], config=Config()))
    merged = {kind: [next(done).ref("dedup", f"{task.key}.arrow") for task in some] for kind, some in tasks.items()}
    begin = {kind: [block[0] for block in blocks] if kind in merged else starts for kind in files}
    return {kind: write_list(run, f"keys-{kind}", merged.get(kind, files[kind]), {"starts": begin[kind]}) for kind in files}


class KeyMergeWorker(MergeWorker):
    """Merges files of keys, each with its own number of ranges, into one file with `ranges` ranges.

    Rows are numbered through all files; `starts` has the number of the first row of each file.
    """

    def blocks(self, task: Task) -> list[int]:
        count, size, ranges = 1, sum(ref.bytes for ref in task.inputs), int(task.params["ranges"])
        while count < ranges and count * BLOCK_BYTES < size:
            count *= 2
        return list(range(0, ranges + 1, ranges // count))

    def read(self, reader: Batches, block: int, blocks: int, start: int) -> pa.Table:
        key, check, row = _keys(reader, block, blocks).columns
        return pa.table([key, check, pc.add(row, pa.scalar(start, pa.uint32()))], schema=KEYS)

    def partitions(self, task: Task, table: pa.Table) -> tuple[pa.Table, npt.NDArray[Any]]:
        return table, range_of(table["key"].to_numpy(), task.params["ranges"])


def merge_documents(run: StageRun, files: Sequence[FileRef], groups: FileRef, count: int) -> list[FileRef]:
    """Merges neighbouring files of the phase `colocated`, so that a task of `clusters` opens fewer files; returns the merged ones.

    `groups`: the file of the `count` groups.
    """
    tasks = [
        Task(f"merged/colocated-{number:05d}", (groups, *some), {"shards": shards, "groups": count, "starts": [0] * len(some)})
        for number, (some, shards) in enumerate(zip(neighbours(files), merged_shards(len(files)), strict=True))
    ]
    done = run.map("merged documents", DocumentMergeWorker, tasks, config=Config())
    return [row.ref("dedup", f"{task.key}.arrow") for row, task in zip(done, tasks, strict=True)]


def merged_shards(count: int) -> list[tuple[int, int]]:
    """Returns `(first, last + 1)` of the shards in each merged file."""
    return [(block[0], block[-1] + 1) for block in neighbours(range(count))]


def group_blocks(run: Storage, groups: str, shards: tuple[int, int], count: int) -> list[int]:
    """Returns the first group of each block, then `count`, the number of groups.

    `groups`: the file of groups. `shards`: `(first, last + 1)` of the shards that are merged.

    With many shards and groups, a shard has only a few documents in each group, and writing a batch for these few would cost more than
    copying them. So shards that are merged write a batch for each block: as many groups as fit into memory with the documents of all these
    shards.
    """
    words = np.zeros(count, np.int64)
    with open_batches(run, groups) as reader:
        for shard in range(*shards):
            members = reader.get_batch(shard)
            words += np.bincount(members["group"].to_numpy(), members["words"].to_numpy(), count).astype(np.int64)
    block = (np.cumsum(words) - words) // BLOCK_WORDS
    return [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), count]


class DocumentMergeWorker(MergeWorker):
    """Merges files of documents, whose columns may differ, into one with a batch for each group. The first input is the file of groups."""

    others = 1
    compression = "lz4"

    def blocks(self, task: Task) -> list[int]:
        return group_blocks(self.run, task.inputs[0].path, task.params["shards"], task.params["groups"])

    def read(self, reader: Batches, block: int, blocks: int, start: int) -> pa.Table:
        return pa.Table.from_batches([reader.get_batch(block)])

    def partitions(self, task: Task, table: pa.Table) -> tuple[pa.Table, npt.NDArray[Any]]:
        return table.drop_columns([GROUP]), table[GROUP].to_numpy()
