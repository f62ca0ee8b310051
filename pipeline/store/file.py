"""An object of a store as a seekable binary stream.

Bytes come by ranges. One that was cut is asked for again by itself, so a long read goes on where it was. A small object comes with one
request. Of a large one what is read comes, and more and more ahead of a reader that goes on where it stopped: few requests do for a whole
crawl file, and few bytes for some columns of a shard.
"""

from typing import Any

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.store.ask import Truncated, asked
from corpusmill.pipeline.store.stream import Stream

#: Bytes of an object that is read at once, and of the first range of a larger one.
WHOLE, FIRST = 4 << 20, 64 << 10
#: The longest range of one request, and how many are asked for side by side.
RANGE, BESIDE = 8 << 20, 4
#: Bytes in which the end of a line is looked for.
LINE = 8 << 10


class StoreFile(Stream):
    """`size` (bytes) is asked for where it is not known. FileNotFoundError where there is no such object. `tail`: its last bytes."""

    def __init__(self, fs: Any, path: str, url: str, size: int | None = None, tail: bytes = b""):
        super().__init__(int(asked(url, lambda: fs.info(path))["size"]) if size is None else size)
        self.fs, self.path_in_store, self.name = fs, path, url
        self._begin, self._held = 0, b""  # the range that was read last
        self._tail, self._tail_begin = tail, self.size - len(tail)
        self._ahead = FIRST

    def read(self, size: int | None = -1) -> bytes:
        end = self.size if size is None or size < 0 else min(self.position + size, self.size)
        if end <= self.position:
            return b""
        begin, parts = self.position, []
        held_end = self._begin + len(self._held)
        if self._begin <= begin < held_end:
            parts.append(self._held[begin - self._begin : end - self._begin])
            begin = min(end, held_end)
        if begin < min(end, self._tail_begin):
            parts.append(self._fetch(begin, min(end, self._tail_begin)))
        if end > self._tail_begin:
            parts.append(self._tail[max(begin - self._tail_begin, 0) : end - self._tail_begin])
        self.position = end
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def readall(self) -> bytes:
        return self.read()

    def readline(self, size: int | None = -1) -> bytes:
        begin, most, line = self.position, self.size if size is None or size < 0 else size, b""
        while len(line) < most and (piece := self.read(min(LINE, most - len(line), self._at_hand() or LINE))):
            end = piece.find(b"\n") + 1
            line += piece[:end] if end else piece
            if end:
                break
        self.position = begin + len(line)
        return line

    def _at_hand(self) -> int:
        """Bytes that are held from here on."""
        end = self._begin + len(self._held) if self.position < self._tail_begin else self.size
        return max(0, end - self.position) if self._begin <= self.position else 0

    def _fetch(self, begin: int, end: int) -> bytes:
        """The bytes of a range that is not held; what is read beyond it is held for the next."""
        if self.size <= WHOLE:
            self._begin, self._held = 0, self.ranges(0, self._tail_begin)
        elif end - begin >= RANGE:
            self._begin, self._held = end, b""
            return self.ranges(begin, end)
        else:
            goes_on = begin == self._begin + len(self._held)
            self._ahead = min(self._ahead * 2, RANGE) if goes_on else FIRST
            self._begin, self._held = begin, self.ranges(begin, min(self._tail_begin, max(end, begin + self._ahead)))
        return self._held[begin - self._begin : end - self._begin]

    def ranges(self, begin: int, end: int) -> bytes:
        """Bytes of the object, by requests of at most `RANGE`, of which some go side by side; those that fail are made again."""
        if end - begin <= RANGE:
            return asked(self.name, lambda: self._one(begin, end))
        places = list(range(begin, end, RANGE))
        found: dict[int, bytes] = {}
        for first in range(0, len(places), BESIDE):
            wanted = places[first : first + BESIDE]
            asked(self.name, lambda wanted=wanted: self._several([at for at in wanted if at not in found], end, found))  # type: ignore[misc]
        return b"".join(found[at] for at in places)

    def _one(self, begin: int, end: int) -> bytes:
        content = self.fs.cat_file(self.path_in_store, start=begin, end=end)
        if len(content) > end - begin:
            raise InputError(f"{self.name}: the server gives whole files only, so it can't be read in pieces; download it first.")
        if len(content) < end - begin:
            raise Truncated(f"{len(content):,} of {end - begin:,} bytes came")
        return bytes(content)

    def _several(self, places: list[int], end: int, found: dict[int, bytes]) -> None:
        """Adds to `found` the ranges that came, and raises what became of another."""
        ends = [min(at + RANGE, end) for at in places]
        got = self.fs.cat_ranges([self.path_in_store] * len(places), places, ends, on_error="return")
        failed: BaseException | None = None
        for at, stop, content in zip(places, ends, got):
            if isinstance(content, BaseException):
                failed = failed or content
            elif len(content) == stop - at:
                found[at] = content
            else:
                failed = failed or Truncated(f"{len(content):,} of {stop - at:,} bytes came")
        if failed is not None:
            raise failed
