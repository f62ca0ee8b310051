"""Views of a stream: a range of a file, a buffered window that moves through a stream, and the lines of a window."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Protocol

from corpusmill.pipeline.stores import Stream

#: Bytes that are read from the stream at a time.
CHUNK = 1 << 17


class RangeFile(Stream):
    """The bytes `[start, end)` of a seekable stream, as a stream that begins at 0."""

    def __init__(self, file: IO[bytes], start: int, end: int):
        super().__init__(end - start)
        self.file, self.start, self.end = file, start, end
        file.seek(start)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        super().seek(offset, whence)
        self.file.seek(self.start + self.position)
        return self.position

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.size - self.position)
        content = self.file.read(left if size < 0 else min(size, left))
        self.position += len(content)
        return content


class ByteReader(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Window:
    """Buffered bytes of `stream`. `position` is the offset of the next byte; the stream begins at `base`.

    `hold` keeps the bytes that the position has passed, so that a caller can go back to them. Over a `RangeFile`, `go` reaches any offset.
    """

    def __init__(self, stream: ByteReader, base: int = 0):
        self.stream = stream
        self.base = base
        self.position = base
        self.buffer = bytearray()
        self.at = 0  # the index of `position` in the buffer
        self.ended = False
        self.held = False

    @property
    def end(self) -> int | None:
        """The offset at which the stream ends; None if it is no `RangeFile`."""
        return self.base + self.stream.end - self.stream.start if isinstance(self.stream, RangeFile) else None

    def ensure(self, size: int) -> bool:
        """Reads until `size` bytes are buffered. Returns False if the stream ends before."""
        while len(self.buffer) - self.at < size and not self.ended:
            if self.at and not self.held:
                del self.buffer[: self.at]
                self.at = 0
            chunk = self.stream.read(CHUNK)
            self.ended = not chunk
            self.buffer += chunk
        return len(self.buffer) - self.at >= size

    def peek(self, size: int, ahead: int = 0) -> bytes:
        """Returns up to `size` bytes that begin `ahead` bytes after the position, without moving."""
        self.ensure(ahead + size)
        return bytes(memoryview(self.buffer)[self.at + ahead : self.at + ahead + size])

    def take(self, size: int) -> bytes:
        """Returns up to `size` next bytes, and moves past them."""
        content = self.peek(size)
        self._move(len(content))
        return content

    def take_line(self) -> bytes:
        """Returns the rest of the line, with its line break, or of the buffered part of the line. Moves past it."""
        self.ensure(1)
        place = self.buffer.find(b"\n", self.at)
        return self.take((place + 1 if place >= 0 else len(self.buffer)) - self.at)

    def _move(self, size: int) -> None:
        self.at += size
        self.position += size

    def skip(self, size: int) -> int:
        """Moves past up to `size` bytes without keeping them. Returns how many there were."""
        skipped = 0
        while skipped < size and self.ensure(1):
            step = min(size - skipped, len(self.buffer) - self.at)
            self._move(step)
            skipped += step
        return skipped

    def skip_any(self, characters: bytes) -> None:
        """Moves past all next bytes that are in `characters`."""
        while self.ensure(1):
            while self.at < len(self.buffer):
                if self.buffer[self.at] not in characters:
                    return
                self._move(1)

    def seek_pattern(self, pattern: bytes, stop: int | None = None) -> bool:
        """Moves to the next place before `stop` where `pattern` begins. Returns False if there is none: then the position is `stop`
        or the end of the stream."""
        while True:
            place = self.buffer.find(pattern, self.at)
            keep = 0 if self.ended else len(pattern) - 1
            step = (place if place >= 0 else max(self.at, len(self.buffer) - keep)) - self.at
            if stop is not None and self.position + step >= stop:
                self._move(max(0, stop - self.position))
                return False
            self._move(step)
            if place >= 0:
                return True
            if self.ended:
                return False
            self.ensure(len(self.buffer) - self.at + 1)

    @contextmanager
    def hold(self, wanted: bool = True) -> Iterator[None]:
        """Keeps all bytes from the position on until the block ends, so that `go` can come back to them."""
        self.held = wanted
        try:
            yield
        finally:
            self.held = False

    def go(self, position: int) -> None:
        """Moves to a position, back or forth: any position of a `RangeFile`, else one that is still buffered. Raises ValueError."""
        at = self.at + position - self.position
        if not 0 <= at <= len(self.buffer):
            if not isinstance(self.stream, RangeFile):
                raise ValueError(f"position {position} is not buffered")
            self.stream.seek(position - self.base)
            self.buffer.clear()
            at, self.ended = 0, False
        self.at, self.position = at, position


@dataclass(frozen=True)
class TextLine:
    """A line with its line break. `length` counts the bytes of the whole line, `content` is cut at the limit."""

    offset: int
    length: int
    content: bytes
    ended: bool  # False for a last line without a line break


def split_lines(window: Window, limit: int) -> Iterator[TextLine]:
    """Yields the lines from the window's position to its end. Only the first `limit` bytes of a line are kept."""
    while window.ensure(1):
        start = window.position
        parts: list[bytes] = []
        kept = 0
        ended = False
        while not ended and window.ensure(1):
            part = window.take_line()
            ended = part.endswith(b"\n")
            parts.append(part[: max(0, limit - kept)])
            kept += len(parts[-1])
        yield TextLine(start, window.position - start, b"".join(parts), ended)
