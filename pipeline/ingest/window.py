"""A forward-moving view of a stream that knows its position, for walking records by hand."""

from typing import Protocol

#: Bytes asked of the stream at a time.
CHUNK = 1 << 17


class Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Window:
    """Buffered bytes of `stream`; `position` is the offset of the first of them, counted from `base`."""

    def __init__(self, stream: Reader, base: int = 0):
        self.stream = stream
        self.position = base
        self.buffer = bytearray()
        self.ended = False

    def ensure(self, size: int) -> bool:
        """Reads until `size` bytes are buffered; False where the stream ends before."""
        while len(self.buffer) < size and not self.ended:
            chunk = self.stream.read(CHUNK)
            self.ended = not chunk
            self.buffer += chunk
        return len(self.buffer) >= size

    def peek(self, size: int) -> bytes:
        """Up to `size` next bytes, without moving."""
        self.ensure(size)
        return bytes(self.buffer[:size])

    def take(self, size: int) -> bytes:
        """Up to `size` next bytes, and moves past them."""
        content = self.peek(size)
        del self.buffer[: len(content)]
        self.position += len(content)
        return content

    def skip(self, size: int) -> int:
        """Moves past up to `size` bytes without keeping them; returns how many there were."""
        skipped = 0
        while skipped < size and self.ensure(1):
            step = min(size - skipped, len(self.buffer))
            del self.buffer[:step]
            skipped += step
        self.position += skipped
        return skipped

    def skip_any(self, characters: bytes) -> None:
        """Moves past all next bytes that are in `characters`."""
        while self.ensure(1):
            kept = self.buffer.lstrip(characters)
            gone = len(self.buffer) - len(kept)
            self.buffer = kept
            self.position += gone
            if kept or not gone:
                return

    def seek_pattern(self, pattern: bytes) -> bool:
        """Moves to the next place where `pattern` begins, or to the end of the stream (False)."""
        while True:
            place = self.buffer.find(pattern)
            if place >= 0:
                del self.buffer[:place]
                self.position += place
                return True
            keep = 0 if self.ended else len(pattern) - 1
            gone = max(0, len(self.buffer) - keep)
            del self.buffer[:gone]
            self.position += gone
            if self.ended:
                return False
            self.ensure(len(self.buffer) + 1)
