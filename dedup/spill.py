"""Records by range of documents, on the disk of this machine: of what is put for many ranges in any order, one range is read at a time."""

import tempfile
from array import array
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.temporary import room_for

Index = npt.NDArray[np.int64]

#: Records that are read at once; 64-bit words that wait to be written together, so that a range's come in blocks and not one by one.
CHUNK, BUFFER = 1 << 20, 8 << 20
WHAT = "what dedup's phase groups keeps on disk"


class Spill:
    """Rows of 64-bit integers under names, by range; within a range they come back in the order in which they were put.

    `bounds` are the documents with which ranges begin, and the number of documents. In memory are `buffer` words of each name that is being
    put, and 16 bytes for each block on disk. Files have no name there, so nothing stays of them where this process is killed; they take the
    space of what was put until it is dropped. CorpusmillError where there is no room.
    """

    def __init__(self, bounds: Index, chunk: int = CHUNK, buffer: int = BUFFER):
        self.bounds, self.chunk, self.buffer = bounds, chunk, buffer
        self._named: dict[str, _Records] = {}

    @property
    def names(self) -> set[str]:
        """What has been put and not dropped."""
        return set(self._named)

    @property
    def ranges(self) -> int:
        return len(self.bounds) - 1

    def range_of(self, documents: Index) -> Index:
        return np.searchsorted(self.bounds, documents, "right") - 1

    def put(self, name: str, of: Index | int, records: Index) -> None:
        """Puts n records (n x k), all for one range or for the ranges `of` (n)."""
        if not len(records):
            return
        named = self._named.setdefault(name, _Records())
        if isinstance(of, int):
            named.write_waiting()
            named.write([(of, len(records))], records)
            return
        named.waiting.append((of.astype(np.min_scalar_type(self.ranges)), records))  # the narrower, the faster it is sorted
        named.words += records.size
        if named.words >= self.buffer:
            named.write_waiting()

    def take(self, name: str, number: int, columns: int) -> Iterator[Index]:
        """The records of a range, some at a time (at most `chunk` x `columns`)."""
        named = self._named.get(name)
        blocks = named.blocks_of(number) if named else []
        left, most = sum(size for _, size in blocks), self.chunk * columns * 8
        at, within = 0, 0  # the block that is read, and how much of it has been
        while named and left:
            found = np.empty((min(left, most) // (columns * 8), columns), np.int64)
            space = found.reshape(-1).data.cast("B")
            filled = 0
            while filled < len(space):
                begin, size = blocks[at]
                here = min(size - within, len(space) - filled)
                named.read(begin + within, space[filled : filled + here])
                filled, within = filled + here, within + here
                if within == size:
                    at, within = at + 1, 0
            left -= filled
            yield found

    def all_of(self, name: str, number: int, columns: int) -> Index:
        """All records of a range (n x `columns`)."""
        named = self._named.get(name)
        size = sum(size for _, size in named.blocks_of(number)) if named else 0
        found, at = np.empty((size // (columns * 8), columns), np.int64), 0
        for some in self.take(name, number, columns):
            found[at : at + len(some)] = some
            at += len(some)
        return found

    def drop(self, *names: str) -> None:
        for name in names:
            if (named := self._named.pop(name, None)) and named.file:
                named.file.close()


@dataclass
class _Records:
    """What was put under one name: in a file, block by block, and the latest of it still in memory."""

    file: IO[bytes] | None = None
    #: Of each range: where a block begins and how many bytes it has, one after the other.
    blocks: dict[int, "array[int]"] = field(default_factory=lambda: defaultdict(lambda: array("q")))
    waiting: list[tuple[npt.NDArray[np.unsignedinteger], Index]] = field(default_factory=list)
    words: int = 0  # of what waits

    def write_waiting(self) -> None:
        if not self.waiting:
            return
        of, records = (np.concatenate(arrays) for arrays in zip(*self.waiting, strict=True))
        self.waiting, self.words = [], 0
        numbers, rows = np.unique(of, return_counts=True)
        self.write(list(zip(numbers.tolist(), rows.tolist(), strict=True)), records[np.argsort(of, kind="stable")])

    def write(self, parts: list[tuple[int, int]], records: Index) -> None:
        """Writes records of some ranges: of each its number, and how many."""
        with room_for(WHAT):
            if self.file is None:
                self.file = tempfile.TemporaryFile(prefix="corpusmill-dedup-")
            at = self.file.seek(0, 2)
            self.file.write(np.ascontiguousarray(records, np.int64).reshape(-1).data.cast("B"))
            self.file.flush()
        for number, rows in parts:
            size, blocks = rows * records.shape[1] * 8, self.blocks[number]
            if blocks and blocks[-2] + blocks[-1] == at:
                blocks[-1] += size
            else:
                blocks.extend((at, size))
            at += size

    def blocks_of(self, number: int) -> list[tuple[int, int]]:
        self.write_waiting()
        found = self.blocks.get(number, array("q"))
        return list(zip(found[::2], found[1::2], strict=True))

    def read(self, at: int, space: memoryview) -> None:
        assert self.file is not None
        self.file.seek(at)
        if self.file.readinto(space) != len(space):  # type: ignore[attr-defined]
            raise CorpusmillError(f"{tempfile.gettempdir()}: a temporary file of dedup's is shorter than what was written to it.")
