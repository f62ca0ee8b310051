"""Records by range of documents, on the disk of this machine: of what is put for many ranges in any order, one range is read at a time."""

import tempfile
from array import array
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import IO

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.temporary import room_for

Index = npt.NDArray[np.int64]

#: Records that are read at once.
CHUNK = 1 << 20
WHAT = "what dedup's phase groups keeps on disk"


class Spill:
    """Rows of 64-bit integers under names, by range; within a range they come back in the order in which they were put.

    `bounds` are the documents with which ranges begin, and the number of documents. Files have no name on the disk, so nothing stays of
    them where this process is killed; they take the space of what was put until it is dropped. CorpusmillError where there is no room.
    """

    def __init__(self, bounds: Index):
        self.bounds = bounds
        self._files: dict[str, IO[bytes]] = {}
        # where blocks begin and how many bytes they have, one after the other
        self._blocks: dict[str, dict[int, array[int]]] = defaultdict(lambda: defaultdict(lambda: array("q")))

    @property
    def names(self) -> set[str]:
        """What has been put and not dropped."""
        return set(self._files)

    @property
    def ranges(self) -> int:
        return len(self.bounds) - 1

    def range_of(self, documents: Index) -> Index:
        return np.searchsorted(self.bounds, documents, "right") - 1

    def put(self, name: str, of: Index | int, records: Index) -> None:
        """Puts n records (n x k), all for one range or for the ranges `of` (n)."""
        if isinstance(of, int):
            self._append(name, of, records)
            return
        order = np.argsort(of.astype(np.min_scalar_type(self.ranges)), kind="stable")  # the narrower, the faster
        ends = np.cumsum(np.bincount(of, minlength=self.ranges))
        for number, (begin, end) in enumerate(pairwise([0, *ends.tolist()])):
            self._append(name, number, records[order[begin:end]])

    def take(self, name: str, number: int, columns: int) -> Iterator[Index]:
        """The records of a range, some at a time (at most CHUNK x `columns`)."""
        blocks = self._blocks[name].get(number, array("q"))
        most = CHUNK * columns * 8
        for begin, size in zip(blocks[::2], blocks[1::2], strict=True):
            for at in range(begin, begin + size, most):
                found = np.empty((min(most, begin + size - at) // (columns * 8), columns), np.int64)
                self._files[name].seek(at)
                self._files[name].readinto(found.data.cast("B"))  # type: ignore[attr-defined]
                yield found

    def all_of(self, name: str, number: int, columns: int) -> Index:
        """All records of a range (n x `columns`)."""
        sizes = self._blocks[name].get(number, array("q"))[1::2]
        found, at = np.empty((sum(sizes) // (columns * 8), columns), np.int64), 0
        for some in self.take(name, number, columns):
            found[at : at + len(some)] = some
            at += len(some)
        return found

    def drop(self, *names: str) -> None:
        for name in names:
            self._blocks.pop(name, None)
            if file := self._files.pop(name, None):
                file.close()

    def _append(self, name: str, number: int, records: Index) -> None:
        if not len(records):
            return
        with room_for(WHAT):
            if name not in self._files:
                self._files[name] = tempfile.TemporaryFile(prefix="corpusmill-dedup-")
            file = self._files[name]
            begin = file.seek(0, 2)
            file.write(np.ascontiguousarray(records, np.int64).data.cast("B"))
            file.flush()
        blocks = self._blocks[name][number]
        if blocks and blocks[-2] + blocks[-1] == begin:
            blocks[-1] += records.nbytes
        else:
            blocks.extend((begin, records.nbytes))
