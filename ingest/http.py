"""Undoes HTTP transfer and content encodings, with a limit on the size. Headers may claim encodings that the body does not have."""

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corpusmill.pipeline.formats.compressed import GzipDecoder, last_bytes

CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")
CUT_SIZE = re.compile(rb"[0-9a-fA-F]{0,8}\r?")


class TooLarge(ValueError):
    """A body decodes to more than the limit."""


class NotEncoded(ValueError):
    """A body is not encoded as its header says."""


@dataclass(frozen=True)
class Payload:
    """A body with its HTTP encodings undone, and remarks on claims that were false (`says gzip but is not`)."""

    body: bytes
    remarks: tuple[str, ...] = ()


def decode_payload(body: bytes, http: Mapping[str, str], limit: int) -> Payload:
    """Returns `body` without the encodings that the HTTP header `http` (names in lower case) claims.

    A false claim leaves the body as it is. Of a body that is damaged or cut, the part before that is decoded. Raises TooLarge if the
    result has more than `limit` bytes.
    """
    remarks: list[str] = []
    if "chunked" in http.get("transfer-encoding", "").lower():
        try:
            body = dechunk(body)
        except NotEncoded:
            remarks.append("says chunked but is not")
    codings = [c.strip().lower() for c in http.get("content-encoding", "").split(",")]
    for coding in reversed([c for c in codings if c not in ("", "identity")]):
        decoder = DECODERS.get(coding)
        if decoder is None:
            remarks.append(f"unknown content encoding {coding[:40]!r}")
            continue
        try:
            body, whole = decoder(body, limit) if body else (body, True)
        except NotEncoded:
            remarks.append(f"says {coding} but is not")
            continue
        if not whole:
            remarks.append(f"its {coding} breaks off")
    return Payload(body, tuple(remarks))


def dechunk(body: bytes) -> bytes:
    """Returns the content of a chunked body, without trailers.

    Where the size of a chunk can't be read, the rest of the body is taken as it is, as in warcio. Raises NotEncoded if this is the first
    chunk.
    """
    parts: list[bytes] = []
    place = 0
    while place < len(body):
        head = CHUNK_SIZE.match(body, place)
        if not head:
            if not parts:
                raise NotEncoded
            if not CUT_SIZE.fullmatch(body, place):
                parts.append(body[place:])
            break
        size = int(head.group(1), 16)
        if not size:
            break
        parts.append(body[head.end() : head.end() + size])
        place = head.end() + size
        place += 2 if body.startswith(b"\r\n", place) else 0
    return b"".join(parts)


def _zlib(body: bytes, limit: int, window_bits: int) -> tuple[bytes, bool]:
    parts: list[bytes] = []
    size = 0
    while body:
        decompressor = zlib.decompressobj(window_bits)
        while body and not decompressor.eof:
            try:
                part = decompressor.decompress(body, limit + 1 - size)
            except zlib.error as error:
                if not parts:
                    part = _first_bytes(body, window_bits, limit)
                    if not part:
                        raise NotEncoded from error
                    parts.append(part)
                return b"".join(parts), False
            if part:
                parts.append(part)
            size += len(part)
            if size > limit:
                raise TooLarge
            body = decompressor.unconsumed_tail
        if not decompressor.eof:
            return b"".join(parts), False
        body = decompressor.unused_data if window_bits > zlib.MAX_WBITS else b""
        if body[:2] != b"\x1f\x8b":  # no other member follows, only bytes that all readers ignore
            break
    return b"".join(parts), True


def _first_bytes(body: bytes, window_bits: int, limit: int) -> bytes:
    """Returns the content of a damaged stream before the damage."""
    return last_bytes(GzipDecoder(zlib.decompressobj(window_bits)), body)[:limit]


def gunzip(body: bytes, limit: int) -> tuple[bytes, bool]:
    return _zlib(body, limit, zlib.MAX_WBITS | 16)


def inflate(body: bytes, limit: int) -> tuple[bytes, bool]:
    """Decodes `deflate`: a zlib stream, as the standard says, or the bare deflate stream that many servers send."""
    try:
        return _zlib(body, limit, zlib.MAX_WBITS)
    except NotEncoded:
        return _zlib(body, limit, -zlib.MAX_WBITS)


def unbrotli(body: bytes, limit: int) -> tuple[bytes, bool]:
    import brotli

    decompressor: Any = brotli.Decompressor()
    parts: list[bytes] = []
    size = 0
    data = body
    while True:
        try:
            part = decompressor.process(data, output_buffer_limit=1 << 20)
        except brotli.error as error:
            if not parts:
                raise NotEncoded from error
            return b"".join(parts), False
        parts += [part] if part else []
        size += len(part)
        if size > limit:
            raise TooLarge
        if decompressor.is_finished():
            return b"".join(parts), True
        if not part:  # `can_accept_more_data` is no test for the end: in brotli 1.2 it is true while output is still held back
            return b"".join(parts), False
        data = b""


def unzstd(body: bytes, limit: int) -> tuple[bytes, bool]:
    import zstandard

    # browsers take windows of at most 8 MiB (RFC 9659); a crawler may have accepted larger ones
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27)
    parts: list[bytes] = []
    size = 0
    with decompressor.stream_reader(body, read_across_frames=True) as reader:
        while True:
            try:
                part = reader.read(1 << 18)
            except zstandard.ZstdError as error:
                if not parts:
                    raise NotEncoded from error
                return b"".join(parts), False
            if not part:
                return b"".join(parts), True
            parts.append(part)
            size += len(part)
            if size > limit:
                raise TooLarge


DECODERS = {
    "gzip": gunzip,
    "x-gzip": gunzip,
    "deflate": inflate,
    "br": unbrotli,
    "zstd": unzstd,
}
