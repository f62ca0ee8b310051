"""Walking the records of a WARC by hand: exact borders, and every byte accounted for where the file is damaged.

FastWARC reads sound files (`warc.py`); this is the judge where it stops, skips or misreads: bare LF headers, records
behind an empty gzip member, cut and corrupt files. A stretch that is no record becomes one `Gap`.
"""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from corpusmill.pipeline.ingest.files import RangeFile
from corpusmill.pipeline.ingest.inflate import CHUNK, GZIP
from corpusmill.pipeline.ingest.window import Window

#: The longest block of WARC header lines that is believed, bytes.
MAX_HEADER = 1 << 20
CONTENT_LENGTH = re.compile(rb"\ncontent-length:[ \t]*(\d{1,18})[ \t\r]*\n", re.IGNORECASE)
HEADER_END = re.compile(rb"\n\r*\n")
MAGIC = b"WARC/"
#: More newlines than this behind a record are not believed to be its end.
TRAILER = 64


@dataclass(frozen=True)
class Raw:
    """A whole record: where it lies, its header lines, and its block up to the limit that was asked for."""

    offset: int
    length: int
    header: bytes
    block: bytes
    size: int  # of the block as it lies in the file


@dataclass(frozen=True)
class Gap:
    """Bytes that are no whole record: `kind` is `truncated` or `corrupt`."""

    offset: int
    length: int
    kind: str
    reason: str


def walk_plain(window: Window, limit: int) -> Iterator[Raw | Gap]:
    """Records of an uncompressed (or decompressed) WARC from the window's position to its end."""
    window.skip_any(b"\r\n")
    while window.ensure(1):
        start = window.position
        head = _header(window)
        if isinstance(head, str):
            yield _gap(window, start, head)
            continue
        header, size = head
        window.skip(len(header))
        block = window.take(min(size, limit))
        if len(block) + window.skip(size - len(block)) < size:
            yield Gap(start, window.position - start, "truncated", f"the file ends within the record at {start}")
            return
        window.skip_any(b"\r\n")
        yield Raw(start, window.position - start, header, block, size)


def _header(window: Window) -> tuple[bytes, int] | str:
    """The header block at the window's position and the length of the content, or why there is none."""
    if window.peek(len(MAGIC)) != MAGIC:
        return "truncated" if MAGIC.startswith(window.peek(len(MAGIC))) else "no WARC record begins here"
    size = 1 << 12
    while True:
        block = window.peek(size)
        if end := HEADER_END.search(block):
            break
        if len(block) < size:
            return "truncated"
        if size >= MAX_HEADER:
            return "the header does not end"
        size *= 4
    header = block[: end.end()]
    length = CONTENT_LENGTH.search(header)
    return (header, int(length.group(1))) if length else "the header has no Content-Length"


def _gap(window: Window, start: int, reason: str) -> Gap:
    """Moves to the next place where a record may begin and accounts for what lies before it."""
    window.skip(1)
    while window.seek_pattern(b"\nWARC/"):
        window.skip(1)
        if window.peek(7) in (b"WARC/0.", b"WARC/1."):
            return Gap(start, window.position - start, "corrupt", "damaged record" if reason == "truncated" else reason)
    if reason == "truncated":
        return Gap(start, window.position - start, reason, f"the file ends within the record at {start}")
    return Gap(start, window.position - start, "corrupt", reason)


@dataclass(frozen=True)
class _Member:
    content: bytes  # up to the limit
    size: int
    end: int
    fault: str | None


def _inflate_member(file: RangeFile, start: int, limit: int) -> _Member:
    """The gzip member that begins at `start`; `fault` where it is cut (`truncated`) or `corrupt`."""
    file.seek(start)
    decompressor = zlib.decompressobj(31)
    kept: list[bytes] = []
    size = kept_size = 0
    position = start
    chunk = b""
    while not decompressor.eof:
        chunk = decompressor.unconsumed_tail
        if not chunk:
            chunk = file.read(CHUNK)
            position += len(chunk)
        if not chunk:
            return _Member(b"".join(kept), size, position, "truncated")
        try:
            out = decompressor.decompress(chunk, 1 << 20)
        except zlib.error:
            return _Member(b"".join(kept), size, position, "corrupt")
        size += len(out)
        if kept_size < limit:
            kept.append(out[: limit - kept_size])
            kept_size += len(kept[-1])
    return _Member(b"".join(kept), size, position - len(decompressor.unused_data), None)


def walk_members(file: RangeFile, start: int, limit: int, base: int) -> Iterator[Raw | Gap]:
    """Records of a WARC whose gzip members hold a record each, from `start`; offsets are counted from `base`.

    Several records in one member all have the member's offset and length.
    """
    end = file.end - file.start
    while start < end:
        member = _inflate_member(file, start, limit + MAX_HEADER)
        if member.fault:
            after = _next_member(file, start + 1, end)
            yield _member_gap(base + start, after - start, member.fault if after == end else "corrupt")
            start = after
            continue
        yield from _records_of(member, base + start, member.end - start, limit)
        start = member.end


def _member_gap(offset: int, length: int, kind: str) -> Gap:
    what = "the file ends within the gzip member" if kind == "truncated" else "damaged gzip member"
    return Gap(offset, length, kind, f"{what} at {offset}")


def _records_of(member: _Member, offset: int, length: int, limit: int) -> Iterator[Raw | Gap]:
    content = memoryview(member.content)
    if member.size > len(content):  # cut at the limit on purpose: the record is too large, not the file broken
        window = Window(_Bytes(content))
        head = _header(window)
        if isinstance(head, str):
            yield Gap(offset, length, "corrupt", head)
        else:
            yield Raw(offset, length, head[0], bytes(content[len(head[0]) : len(head[0]) + limit]), head[1])
        return
    for part in walk_plain(Window(_Bytes(content)), limit):
        if isinstance(part, Gap):
            yield Gap(offset, length, "corrupt", f"{part.reason} (in the gzip member at {offset})")
        else:
            yield Raw(offset, length, part.header, part.block, part.size)


class _Bytes:
    def __init__(self, content: memoryview):
        self.content, self.position = content, 0

    def read(self, size: int, /) -> bytes:
        part = bytes(self.content[self.position : self.position + size])
        self.position += len(part)
        return part


def _next_member(file: RangeFile, start: int, end: int) -> int:
    """Where the next gzip member with a WARC record begins, or `end`."""
    file.seek(start)
    window = Window(file, start)
    while window.seek_pattern(GZIP):
        try:
            head = zlib.decompressobj(31).decompress(window.peek(1 << 12), 64)
        except zlib.error:
            head = b""
        if head.lstrip(b"\r\n").startswith(MAGIC):
            return window.position
        window.skip(1)
    return end


def begins_one_stream(file: IO[bytes]) -> bool:
    """Whether a gzipped WARC holds its records in one long stream, not a member each.

    Decided by its first member: it goes on after its first record, or ends within it.
    """
    decompressor = zlib.decompressobj(31)
    head = tail = b""
    size = 0
    expected: int | None = None
    while not decompressor.eof:
        chunk = decompressor.unconsumed_tail or file.read(CHUNK)
        if not chunk:
            return False  # cut within its first member: nothing lies behind it either way
        try:
            out = decompressor.decompress(chunk, 1 << 20)
        except zlib.error:
            return False
        size += len(out)
        tail = (tail + out)[-TRAILER:]
        if expected is None:
            head += out
            found = _header(Window(_Bytes(memoryview(head))))
            if not isinstance(found, str):
                expected = len(found[0]) + found[1]
            elif len(head) > MAX_HEADER:
                return False
        if expected is not None and size > expected + TRAILER:
            return True
    if expected is None or size < expected:
        return head.startswith(MAGIC)
    return bool(tail[len(tail) - (size - expected) :].strip(b"\r\n"))
