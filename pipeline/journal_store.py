"""A journal on an object store: lines in objects, each named by the number of its first line.

Objects can't grow, so lines that come close together go into one. `tidy` writes neighbours again as one object under the name of the first,
and then removes the others. Killed between the two, it leaves objects whose lines an earlier one has, too; whoever reads leaves these out.
New lines only ever make a new object, so that two processes never write the same one: who holds the run's lease goes on behind one that
was still on its way when the former holder lost it. A copy of the lines lies in a temporary file on this machine, from which they are read
again.
"""

import tempfile
import threading
from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath

from corpusmill.pipeline.cell import create, overwrite
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.journal import Journal
from corpusmill.pipeline.storage import Storage

#: Objects that are read at a time, and how many of them may be in memory.
THREADS, AHEAD = 16, 64
#: Bytes of an object that `tidy` makes at most, and the objects above which opening tidies.
TIDY_BYTES, MANY_OBJECTS = 16 << 20, 64
#: Where the lines of an object lie that are in no copy (lines of this process may have been added to it meanwhile).
NOT_COPIED = (-1, -1)
#: How often a listing is made again because an object was gone: whoever writes was tidying.
LISTINGS = 5


@dataclass
class Stretch:
    """The lines of one object: the number of the first, and where they lie in the copy."""

    first: int
    begin: int
    end: int


class StoreJournal(Journal):
    def __init__(self, storage: Storage, folder: str, read_only: bool = False):
        super().__init__()
        self.storage, self.folder, self.read_only = storage, folder, read_only
        self._copy = tempfile.TemporaryFile()
        self._end = 0  # bytes of the copy
        self._count = 0  # lines
        self._stretches: list[Stretch] = []  # the objects
        self._superseded: list[int] = []  # objects that have nothing of their own
        self._waiting: list[bytes] = []
        self._lock, self._turn = threading.Lock(), threading.Lock()

    @property
    def place(self) -> int:
        return self._count

    def lines(self) -> Iterator[tuple[int, str, bytes]]:
        for first, content in self._objects():
            if first > self._count:
                raise InputError(f"{self._path(self._count)}: this object is missing, and others come after it.")
            lines = content.splitlines(keepends=True)[self._count - first :]
            if not lines:
                self._superseded.append(first)
                continue
            self._stretches.append(Stretch(first, self._end, self._end + len(content)))
            for number, line in enumerate(lines, self._count - first + 1):
                yield self._keep(line), f"{self._path(first)}:{number}", line
        if not self.read_only and len(self._stretches) + len(self._superseded) > MANY_OBJECTS:
            self.tidy()

    def read(self, address: int) -> bytes:
        self._copy.seek(address)
        return self._copy.readline()

    def _add(self, line: bytes) -> int:
        with self._lock:
            self._waiting.append(line)
            return self._keep(line)

    def sync(self) -> None:
        with self._turn:  # one object after the other
            with self._lock:
                content, first = b"".join(self._waiting), self._count - len(self._waiting)
                begin, count = self._end - len(content), len(self._waiting)
            if count:
                self._may_write()
                while not create(self.storage, self._name(first), content):
                    first += self._take_in(first)
                self._stretches.append(Stretch(first, begin, begin + len(content)))
                with self._lock:
                    del self._waiting[:count]

    def _take_in(self, first: int) -> int:
        """Another's object, which has the name of the one that is about to be written; the number of its lines. They come before all that
        this process writes, so its own rows count: nothing of what it has read needs to be told of them."""
        if self.guard is None:
            raise InputError(f"{self._path(first)}: another process has written this object, so this one stops.")
        self.guard(certain=True)
        lines = len(self.storage.read_bytes(self._name(first)).splitlines())
        if not lines:
            raise InputError(f"{self._path(first)}: this object is empty.")
        with self._lock:
            self._count += lines
        self._stretches.append(Stretch(first, *NOT_COPIED))
        return lines

    def tidy(self) -> None:
        self.sync()
        with self._turn:
            kept = []
            for stretches in _neighbours(self._stretches):
                whole = Stretch(stretches[0].first, stretches[0].begin, stretches[-1].end)
                if len(stretches) > 1:
                    self._copy.seek(whole.begin)
                    if not overwrite(self.storage, self._name(whole.first), self._copy.read(whole.end - whole.begin), self._may_write):
                        raise InputError(f"{self._path(whole.first)}: another process has written this object, so this one stops.")
                    self._superseded += [stretch.first for stretch in stretches[1:]]
                kept.append(whole)
            self._stretches = kept
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(lambda first: self.storage.remove(self._name(first)), self._superseded))
            self._superseded = []

    def _keep(self, line: bytes) -> int:
        """Adds a line to the copy."""
        address = self._copy.seek(self._end)
        self._copy.write(line)
        self._end += len(line)
        self._count += 1
        return address

    def _objects(self) -> Iterator[tuple[int, bytes]]:
        """All objects in their order: the number of the first line, and the content. After a new listing it goes on where it was."""
        for _ in range(LISTINGS):
            numbers = sorted(object_names(self.storage.list_files(self.folder)))
            begin = max(bisect_right(numbers, self._count) - 1, 0)
            try:
                yield from self._contents(numbers[begin:])
                return
            except FileNotFoundError:
                continue
        raise InputError(f"{self.storage.path(self.folder)}: its objects come and go, so they can't be read.")

    def _contents(self, numbers: list[int]) -> Iterator[tuple[int, bytes]]:
        with ThreadPoolExecutor(THREADS) as pool:
            for begin in range(0, len(numbers), AHEAD):
                some = numbers[begin : begin + AHEAD]
                yield from zip(some, pool.map(lambda number: self.storage.read_bytes(self._name(number)), some))

    def _name(self, first: int) -> str:
        return f"{self.folder}/{first:08d}.json"

    def _path(self, first: int) -> str:
        return self.storage.path(self._name(first))


def object_names(names: list[str]) -> dict[int, str]:
    """The objects among the files of a journal's folder, by the number of their first line."""
    found = [PurePosixPath(name) for name in names]
    return {int(name.stem): str(name) for name in found if name.suffix == ".json" and name.stem.isdecimal()}


def _neighbours(stretches: list[Stretch]) -> Iterator[list[Stretch]]:
    """Objects that follow each other, also in the copy, in groups of at most TIDY_BYTES (or one that is larger)."""
    group: list[Stretch] = []
    for stretch in stretches:
        apart = stretch.begin < 0 or (group and stretch.begin != group[-1].end)
        if group and (apart or stretch.end - group[0].begin > TIDY_BYTES):
            yield group
            group = []
        group.append(stretch)
    if group:
        yield group
