"""Compressed files as streams that give everything up to where they break, and say that they broke."""

import io
import zlib
from abc import abstractmethod
from typing import IO, Any

#: Compressed bytes read at a time.
CHUNK = 1 << 16
#: Compressed bytes given to zstd at a time: a few bytes of it can stand for 128 KiB, and its objects know no limit.
ZSTD_CHUNK = 1 << 11
GZIP = b"\x1f\x8b\x08"
ZSTD = b"\x28\xb5\x2f\xfd"


def last_bytes(decompressor: Any, chunk: bytes) -> bytes:
    """What a chunk that breaks still gives before the place where it breaks, found by halving it."""
    out = b""
    while chunk:
        half = chunk[: max(1, len(chunk) // 2)]
        trial = decompressor.copy()
        try:
            piece = trial.decompress(half)
        except zlib.error:
            if len(half) == 1:
                break
            chunk = half
            continue
        out, decompressor, chunk = out + piece, trial, chunk[len(half) :]
    return out


class Inflating(io.RawIOBase):
    """A decompressed stream over all members (frames) of a file. `fault` is set where the file is cut or corrupt.

    It never raises for what the file holds. Zero bytes and empty members between members are skipped.
    """

    def __init__(self, file: IO[bytes]):
        self.file = file
        self.fault: str | None = None
        self.decompressor: Any = None
        self.input = b""
        self.output = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def read(self, size: int = -1) -> bytes:
        """At least one byte where there is one, at most `size`."""
        if size < 0:
            return b"".join(iter(lambda: self.read(CHUNK), b""))
        while not self.output and self.fault is None and self._fill():
            self._step(size)
        content, self.output = self.output[:size], self.output[size:]
        return content

    def _fill(self) -> bool:
        """Sees to it that there is input and a decompressor; False at the end of the file."""
        if self.decompressor is None:
            self.input = self.input.lstrip(b"\0")
        while not self.input:
            self.input = self.file.read(CHUNK)
            if not self.input:
                self._end()
                return False
            if self.decompressor is None:
                self.input = self.input.lstrip(b"\0")
        return True

    def _end(self) -> None:
        if self.decompressor is not None:
            self.fault = "truncated"
            self.output = self.decompressor.flush() or b""

    @abstractmethod
    def _step(self, size: int) -> None:
        """Decompresses some of `input` into at most about `size` bytes of `output`, or sets `fault`."""


class GzipStream(Inflating):
    def _step(self, size: int) -> None:
        self.decompressor = self.decompressor or zlib.decompressobj(31)
        before = self.decompressor.copy()
        try:
            self.output = self.decompressor.decompress(self.input, size)
        except zlib.error:
            self.output, self.fault = last_bytes(before, self.input), "corrupt"
            return
        if self.decompressor.eof:
            self.input, self.decompressor = self.decompressor.unused_data, None
        else:
            self.input = self.decompressor.unconsumed_tail


class ZstdStream(Inflating):
    def _step(self, size: int) -> None:
        import zstandard

        # frames made with --long=31, as the large public dumps are, need the whole window
        self.decompressor = self.decompressor or zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
        chunk, self.input = self.input[:ZSTD_CHUNK], self.input[ZSTD_CHUNK:]
        try:
            self.output = self.decompressor.decompress(chunk)
        except zstandard.ZstdError:
            self.fault = "corrupt"
            return
        if self.decompressor.eof:
            self.input, self.decompressor = self.decompressor.unused_data + self.input, None


def inflating(file: IO[bytes], compression: str) -> Inflating:
    """The decompressed stream of a file whose compression is `gzip` or `zstd`."""
    return GzipStream(file) if compression == "gzip" else ZstdStream(file)
