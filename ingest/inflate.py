"""Compressed files as streams that give everything up to where they break, and say that they broke."""

import io
from typing import IO, Any

from corpusmill.ingest.codecs import Codec, Corrupt, Decoder, codec_of

#: Compressed bytes read at a time.
CHUNK = 1 << 16


def last_bytes(decoder: Decoder | None, chunk: bytes) -> bytes:
    """What a chunk that breaks still gives before the place where it breaks, found by halving it."""
    out = b""
    while chunk and decoder:
        half = chunk[: max(1, len(chunk) // 2)]
        trial = decoder.copy()
        if trial is None:
            break
        try:
            piece = trial.feed(half, 0)
        except Corrupt:
            if len(half) == 1:
                break
            chunk = half
            continue
        out, decoder, chunk = out + piece, trial, chunk[len(half) :]
    return out


class Inflating(io.RawIOBase):
    """A decompressed stream over all frames of a file. `fault` is set where the file is cut or corrupt.

    It never raises for what the file holds. Zero bytes and empty frames between frames are skipped.
    """

    def __init__(self, file: IO[bytes], codec: Codec):
        self.file = file
        self.codec = codec
        self.fault: str | None = None
        self.decoder: Decoder | None = None
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
        """Sees to it that there is input; False at the end of the file."""
        if self.decoder is None:
            self.input = self.input.lstrip(b"\0")
        while not self.input:
            self.input = self.file.read(CHUNK)
            if not self.input:
                self.fault = "truncated" if self.decoder else None
                return False
            if self.decoder is None:
                self.input = self.input.lstrip(b"\0")
        return True

    def _step(self, size: int) -> None:
        """Decompresses some of `input` into at most about `size` bytes of `output`, or sets `fault`."""
        self.decoder = self.decoder or self.codec.decoder()
        before = self.decoder.copy()
        try:
            self.output = self.decoder.feed(self.input, size)
        except Corrupt:
            self.output, self.fault = last_bytes(before, self.input), "corrupt"
            return
        self.input = self.decoder.rest
        if self.decoder.eof:
            self.decoder = None


def inflating(file: IO[bytes], compression: str) -> Inflating:
    """The decompressed stream of a file whose compression is `gzip`, `zstd` or `lz4`."""
    return Inflating(file, codec_of(file, compression))
