"""Compressed files: decoders for single frames, and streams over all frames of a file.

A frame is a gzip member, a Zstandard frame or an LZ4 frame (RFC 1952, RFC 8878, the LZ4 frame format). The libraries
differ in how they limit their output and return unused input; the decoders here all work in the same way. A stream
returns everything up to the place at which a file is damaged, and then sets `fault`.
"""

import io
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, Protocol

#: Compressed bytes read at a time.
CHUNK = 1 << 16
#: Compressed bytes that zstd and lz4 get at a time: their decoders can't limit the output, and a few bytes can expand to 128 KiB.
SMALL_CHUNK = 1 << 11
#: The frame that holds the dictionary of all others of a zstd WARC (IIPC, WARC compression with Zstandard, 0.1).
DICTIONARY_MAGIC = b"\x5d\x2a\x4d\x18"
#: The most bytes of a dictionary. A larger one is ignored.
MAX_DICTIONARY = 64 << 20


class Corrupt(ValueError):
    """Compressed bytes that can't be decompressed."""


class FrameDecoder(Protocol):
    """Decompresses one frame. `rest` is the input that the last `feed` has not used, and has to be fed again. Once `eof` is set, it is the
    content after the frame."""

    rest: bytes
    eof: bool

    def feed(self, data: bytes, size: int) -> bytes:
        """Decompresses some of `data` into about `size` bytes at most. Raises Corrupt."""

    def copy(self) -> "FrameDecoder | None":
        """Returns a copy of the decoder in its present state, or None if the library can't copy it."""


class GzipDecoder:
    def __init__(self, inner: Any = None) -> None:
        self.inner = inner or zlib.decompressobj(31)
        self.rest, self.eof = b"", False

    def feed(self, data: bytes, size: int) -> bytes:
        try:
            out: bytes = self.inner.decompress(data, size)
        except zlib.error as error:
            raise Corrupt(str(error)) from error
        self.eof = self.inner.eof
        self.rest = self.inner.unused_data if self.eof else self.inner.unconsumed_tail
        return out

    def copy(self) -> "GzipDecoder":
        return GzipDecoder(self.inner.copy())


class ZstdDecoder:
    def __init__(self, dictionary: Any = None) -> None:
        import zstandard

        # frames made with --long=31, as the large public dumps are, need the whole window
        options = {"dict_data": dictionary} if dictionary else {}
        self.inner = zstandard.ZstdDecompressor(max_window_size=1 << 31, **options).decompressobj()
        self.fault = zstandard.ZstdError
        self.rest, self.eof = b"", False

    def feed(self, data: bytes, size: int) -> bytes:
        try:
            out: bytes = self.inner.decompress(data[:SMALL_CHUNK])
        except self.fault as error:
            raise Corrupt(str(error)) from error
        self.eof = self.inner.eof
        self.rest = self.inner.unused_data + data[SMALL_CHUNK:]
        return out

    def copy(self) -> None:
        return None


class Lz4Decoder:
    def __init__(self) -> None:
        from lz4.frame import LZ4FrameDecompressor

        self.inner = LZ4FrameDecompressor()
        self.rest, self.eof = b"", False

    def feed(self, data: bytes, size: int) -> bytes:
        try:
            out: bytes = self.inner.decompress(data[:SMALL_CHUNK])
        except RuntimeError as error:  # the only error of the library
            raise Corrupt(str(error)) from error
        self.eof = self.inner.eof
        self.rest = (self.inner.unused_data or b"") + data[SMALL_CHUNK:]
        return out

    def copy(self) -> None:
        return None


@dataclass(frozen=True)
class Codec:
    """A compression: the first bytes of its frames, and a function that makes a decoder. `skippable`: whether it has skippable frames,
    which hold no content."""

    name: str
    magic: bytes
    decoder: Callable[[], FrameDecoder]
    skippable: bool = False

    def begins(self, content: bytes) -> bool:
        return content.startswith(self.magic) or (self.skippable and bool(SKIPPABLE.match(content)))


#: The begin of a skippable frame (0x184D2A50 to 0x184D2A5F), which zstd and lz4 share.
SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
CODECS = {
    "gzip": Codec("gzip", b"\x1f\x8b\x08", GzipDecoder),
    "zstd": Codec("zstd", b"\x28\xb5\x2f\xfd", ZstdDecoder, skippable=True),
    "lz4": Codec("lz4", b"\x04\x22\x4d\x18", Lz4Decoder, skippable=True),
}


def compression_of(start: bytes) -> str | None:
    """Returns the compression of a file from its first bytes; None: not compressed. A skippable frame at the beginning counts as zstd."""
    return next((name for name, codec in CODECS.items() if codec.begins(start[:4])), None)


def codec_of(file: IO[bytes], name: str) -> Codec:
    """Returns the codec of an open file. A zstd file may begin with the dictionary that its frames need."""
    if name != "zstd":
        return CODECS[name]
    file.seek(0)
    dictionary = _dictionary(file)
    file.seek(0)
    if not dictionary:
        return CODECS["zstd"]
    import zstandard

    content = zstandard.ZstdCompressionDict(dictionary)
    return Codec("zstd", CODECS["zstd"].magic, lambda: ZstdDecoder(content), skippable=True)


def _dictionary(file: IO[bytes]) -> bytes | None:
    """Returns the content of a dictionary frame, which may be compressed itself; None if there is no valid one."""
    head = file.read(8)
    if len(head) < 8 or not head.startswith(DICTIONARY_MAGIC):
        return None
    (size,) = struct.unpack("<I", head[4:])
    content = file.read(min(size, MAX_DICTIONARY))
    if len(content) < size or not content.startswith(CODECS["zstd"].magic):
        return content if len(content) == size else None
    decoder, out = ZstdDecoder(), b""
    decoder.rest = content
    while not decoder.eof and decoder.rest and len(out) <= MAX_DICTIONARY:
        try:
            out += decoder.feed(decoder.rest, MAX_DICTIONARY)
        except Corrupt:
            return None
    return out if decoder.eof else None


def last_bytes(decoder: FrameDecoder | None, chunk: bytes) -> bytes:
    """Returns the output of a damaged chunk up to the damage, which it finds by halving the chunk. Empty without a decoder."""
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
    """A decompressed stream over all frames of a file. `fault` is set where the file is `truncated` or `corrupt`.

    Damaged content never raises an error. Zero bytes and empty frames between frames are skipped.
    """

    def __init__(self, file: IO[bytes], codec: Codec):
        self.file = file
        self.codec = codec
        self.fault: str | None = None
        self.decoder: FrameDecoder | None = None
        self.input = b""
        self.output = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def read(self, size: int = -1) -> bytes:
        """Returns at most `size` bytes, and at least one, unless the stream has ended."""
        if size < 0:
            return b"".join(iter(lambda: self.read(CHUNK), b""))
        while not self.output and self.fault is None and self._fill():
            self._step(size)
        content, self.output = self.output[:size], self.output[size:]
        return content

    def _fill(self) -> bool:
        """Reads input where there is none. Returns False at the end of the file."""
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
    """Returns the decompressed stream of a file whose compression is `gzip`, `zstd` or `lz4`."""
    return Inflating(file, codec_of(file, compression))
