"""Reads the records of a WARC or ARC, or of a range of it, each with its exact place. A damaged stretch becomes a `Gap`.

FastWARC reads WARCs that are plain or have a gzip member for each record. A record counts only after the following records were found where
they must be. Where anything is odd, the walk (`archive_walk.py`) decides what lies at that place, and FastWARC continues after it. The walk
reads all other files. FastWARC does not decode bodies here, because it stops without an error at responses that are gzip and chunked.
"""

import io
import os
import re
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Any

from fastwarc.warc import ArchiveIterator, WarcHeader

from corpusmill.ingest.archive_walk import (
    FRAMED,
    GRAMMARS,
    HUGE,
    MAX_HEADER,
    Gap,
    Grammar,
    Raw,
    next_frame,
    parse_arc_line,
    sure_frame,
    walk,
    walk_frames,
)
from corpusmill.pipeline.formats.compressed import codec_of, inflating
from corpusmill.pipeline.formats.detect import FILEDESC
from corpusmill.pipeline.formats.streams import RangeFile, Window
from corpusmill.text.damage import storable

STATUS_LINE = re.compile(r"HTTP/\d\S*\s+(\d{3})(?!\d)")
ZERO = re.compile(r"\+?0{1,18}")
KNOWN_TYPES = frozenset({"response", "request", "metadata", "warcinfo", "resource", "revisit", "conversion", "continuation"})
#: Types of records whose block begins with the header of an HTTP response.
WITH_HTTP = ("response", "revisit")
TYPE, LENGTH, URI, DATE = WarcHeader.WARC_TYPE, WarcHeader.CONTENT_LENGTH, WarcHeader.WARC_TARGET_URI, WarcHeader.WARC_DATE
BLOCK_TYPE = WarcHeader.CONTENT_TYPE


class Record:
    """A whole record.

    `offset` and `length` are bytes of the file on disk. If the file has a compressed frame for each record, they are those of the frame; if
    it is one compressed stream, they are bytes of the decompressed stream. Header fields are looked up on demand, because most records need
    few of them.
    """

    __slots__ = ("_fields", "_http", "_http_headers", "body", "length", "offset", "size", "type", "whole")

    def __init__(self, offset: int, length: int, type: str, size: int, body: bytes, whole: bool, fields: Any, http_headers: Any):
        self.offset = offset
        self.length = length
        self.type = type
        self.size = size  # of the block, as its header declares it
        self.body = body  # the block after its HTTP header, up to the limit
        self.whole = whole  # False where the body was cut at the limit
        self._fields = fields  # FastWARC's map of the WARC header, or Fields
        self._http_headers = http_headers  # FastWARC's map of the HTTP header, or None
        self._http: dict[str, str] | None = None

    @property
    def url(self) -> str | None:
        url = _field(self._fields, URI, "warc-target-uri")
        return url.strip("<> ") or None if url else None

    @property
    def timestamp(self) -> str | None:
        return _field(self._fields, DATE, "warc-date")

    @property
    def block_type(self) -> str | None:
        """The Content-Type of the WARC header, or the type in the line before an ARC record."""
        return _field(self._fields, BLOCK_TYPE, "content-type")

    @property
    def status(self) -> int | None:
        """The status of an HTTP response."""
        found = STATUS_LINE.match(self._http_headers.status_line or "") if self._http_headers is not None else None
        return int(found.group(1)) if found else None

    @property
    def http(self) -> dict[str, str]:
        """The HTTP header: names in lower case; the values of a repeated name are joined by `, `."""
        if self._http is None:
            self._http = {}
            for name, value in self._http_headers.to_tuples() if self._http_headers is not None else ():
                key = name.lower()
                self._http[key] = f"{self._http[key]}, {value}" if key in self._http else value
        return self._http

    def content(self) -> tuple[object, ...]:
        """All values of the record except its length, which includes the newlines after the record."""
        return (
            self.offset, self.type, self.size, self.body, self.whole, self.url, self.timestamp, self.block_type, self.status, self.http,
        )  # fmt: skip

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and self.length == other.length and self.content() == other.content()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Record({self.type} at {self.offset}, {self.length} bytes, {self.url})"


@dataclass(frozen=True)
class Fields:
    """The header fields of a record that is not from a WARC, with the interface of a WARC header."""

    url: str | None = None
    date: str | None = None
    type: str | None = None

    def get(self, key: Any) -> str | None:
        return self.url if key == URI else self.date if key == DATE else self.type if key == BLOCK_TYPE else None

    def values(self) -> tuple[str, ...]:
        return ()


def _field(fields: Any, key: Any, name: str) -> str | None:
    value: str | None = fields.get(key)
    if value is None:
        return _hidden_field(fields, name)
    return value.partition("\n")[0].strip() or None


def _hidden_field(fields: Any, name: str) -> str | None:
    """Returns a field that FastWARC took for a part of the field before it, because a bare LF separates the two."""
    for value in fields.values():
        for line in value.split("\n")[1:] if "\n" in value else ():
            key, colon, content = line.partition(":")
            if colon and key.strip().lower() == name:
                return content.strip() or None
    return None


def capture(record: Any, base: int, limit: int, cut: bool = False) -> Record | None:
    """Returns a Record made from a FastWARC record, or None if it is malformed or not whole. With `cut` it need not be whole."""
    fields = record.headers
    kind = fields.get(TYPE)
    size = remaining = record.content_length
    if kind is None or (not size and not ZERO.fullmatch(fields.get(LENGTH) or "")):  # FastWARC reads an invalid number as 0
        return None
    if size > HUGE and not cut:  # FastWARC would decompress all of it, and it may be a bomb
        return None
    if kind not in KNOWN_TYPES:
        kind = kind.partition("\n")[0].strip().lower()
    http = None
    if kind in WITH_HTTP and remaining:
        if not record.is_http and kind == "response" and _is_web(fields):
            record.is_http = True  # some writers put the type of the page into the WARC header
        try:
            record.parse_http("none", MAX_HEADER, True)
            http = record.http_headers
        except OSError:
            pass  # the HTTP header does not end: the whole block is the body
        remaining = record.content_length
    body = record.reader.read(remaining if remaining < limit else limit) if remaining else b""
    rest = remaining - len(body)
    if rest and not cut and record.reader.consume() < rest:
        return None
    return Record(base + record.stream_pos, 0, kind, size, body, not rest, fields, http)


def _is_web(fields: Any) -> bool:
    return (_field(fields, URI, "warc-target-uri") or "").lstrip("<").lower().startswith("http")


def parse_record(raw: Raw, format: str, limit: int) -> Record | Gap:
    """Returns the record that the walk found; a Gap where its header can't be read."""
    if format == "arc":
        return _arc_record(raw, limit)
    record = _parsed(raw.header, raw.block, raw.offset, limit)
    if record is None:
        return Gap(raw.offset, raw.length, "corrupt", f"the header of the record is malformed (byte {raw.offset})")
    record.length, record.size, record.whole = raw.length, raw.size, len(raw.block) == raw.size
    return record


def _parsed(header: bytes, block: bytes, offset: int, limit: int) -> Record | None:
    """Parses a record strictly, as FastWARC reads records from a file, and leniently where that gives no record."""
    for lenient in (False, True) if header.endswith(b"\r\n\r\n") else (True,):
        with suppress(OSError, StopIteration):
            content = io.BytesIO(header + block)
            found = next(iter(ArchiveIterator(content, parse_http=False, quirks_mode=lenient, max_header_len=2 * MAX_HEADER)))
            record = capture(found, offset, limit, cut=True)
            if record and record.offset == offset:  # else FastWARC has found something like a record within this one
                return record
    return None


def _arc_record(raw: Raw, limit: int) -> Record:
    """Returns a record of an ARC, which has no record types: all but the description of the file are `response`.

    Some have no HTTP header, and so no status: `dns:` records, and Alexa's `alexa/dat`.
    """
    line = parse_arc_line(raw.header)
    assert line is not None  # else the walk would not have found the record
    kind = "arc_header" if line.url.startswith(FILEDESC) else "response"
    record = None
    if kind == "response" and raw.block.startswith(b"HTTP/"):
        head = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Type: application/http; msgtype=response\r\nContent-Length: %d\r\n\r\n"
        record = _parsed(head % len(raw.block), raw.block, raw.offset, limit)
    body, http = (record.body, record._http_headers) if record else (raw.block, None)
    url, block_type = (storable(value.decode("utf-8", "replace")) for value in (line.url, line.type))
    fields = Fields(url, _timestamp(line.date.decode()), block_type)
    return Record(raw.offset, raw.length, kind, raw.size, body, len(raw.block) == raw.size, fields, http)


def _timestamp(digits: str) -> str | None:
    """Returns digits such as `20140216050221` as ISO 8601, or None if they are no date. Old ARCs may lack seconds and hours."""
    try:
        return datetime.strptime(digits[:14].ljust(14, "0"), "%Y%m%d%H%M%S").strftime("%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return None


#: A gzip member for each record: a record is recognized from any position (`sure_start`).
SURE = "gzip-frames"
#: Layouts of files that can be read from the beginning of any record.
CUTTABLE = (SURE, "plain", "zstd-frames", "lz4-frames")

#: The most records that are walked before FastWARC is tried again.
MOST_PATIENCE = 1 << 10


def read_records(
    file: IO[bytes], format: str, layout: str, start: int, end: int, limit: int, without_fastwarc: bool = False
) -> Iterator[Record | Gap]:
    """Yields all records that begin in `[start, end)`, with bodies cut at `limit` bytes. A record must begin at `start`.

    `format` is `warc` or `arc`. `layout` is `plain`, `gzip-frames`, `zstd-frames` or `lz4-frames` (a frame for each record), or `gzip`,
    `zstd` or `lz4` (one compressed stream, which can only be read whole). `without_fastwarc`: uses the walk alone, for files that hang
    FastWARC.
    """
    if layout not in CUTTABLE:
        yield from _read_stream(file, GRAMMARS[format], layout, limit)
        return
    size = file.seek(0, os.SEEK_END)
    fast = format == "warc" and layout in ("plain", "gzip-frames") and not without_fastwarc
    position = start
    patience = 1  # records to walk before FastWARC is tried again; doubled each time that FastWARC finds none
    while position < end:
        if fast:
            before = position
            position = yield from _fast(RangeFile(file, position, size), position, end, limit)
            patience = 1 if position > before else min(2 * patience, MOST_PATIENCE)
        if position >= end:
            return
        walked = 0
        for step in _walk(file, GRAMMARS[format], layout, position, size, limit):
            if step[0].offset >= end:
                return
            parts = [parse_record(part, format, limit) if isinstance(part, Raw) else part for part in step]
            yield from parts
            position = step[-1].offset + step[-1].length
            walked += isinstance(parts[-1], Record)
            if fast and walked >= patience:
                break
        else:
            return


def first_start(file: IO[bytes], format: str, layout: str, place: int) -> int:
    """Returns where the first record at or after `place` seems to begin (a text may look like a record), or the end of the file."""
    size = file.seek(0, os.SEEK_END)
    if not place:
        return 0
    if layout == "plain":
        window = Window(RangeFile(file, place, size), place)
        GRAMMARS[format].seek_start(window, None)
        return window.position
    return next_frame(RangeFile(file, 0, size), codec_of(file, layout.removesuffix(FRAMED)), GRAMMARS[format], place)


def sure_start(file: IO[bytes], format: str, place: int) -> int:
    """Returns where the first record at or after `place` surely begins in a file with a gzip member for each record.

    Returns the end of the file where no such record follows. The readers of two neighbouring ranges get the same answer, so no record
    is lost or read twice.
    """
    size = file.seek(0, os.SEEK_END)
    return place if place in (0, size) else sure_frame(RangeFile(file, 0, size), codec_of(file, "gzip"), GRAMMARS[format], place)


def _walk(file: IO[bytes], grammar: Grammar, layout: str, position: int, size: int, limit: int) -> Iterator[list[Raw | Gap]]:
    if layout == "plain":
        for part in walk(Window(RangeFile(file, position, size), position), grammar, limit):
            yield [part]
    else:
        codec = codec_of(file, layout.removesuffix(FRAMED))
        yield from walk_frames(RangeFile(file, 0, size), codec, grammar, position, limit)


def _fast(file: RangeFile, base: int, end: int, limit: int) -> Generator[Record, None, int]:
    """Yields FastWARC's records from `base` to `end`, up to the first that may be wrong; returns the place after the last one."""
    # two records are held back: where several lie in one frame, FastWARC gives the second one the place of the next frame
    first: Record | None = None
    second: Record | None = None
    place = base
    with suppress(OSError):  # whatever stops FastWARC, the walk then looks at the same place and decides
        for found in ArchiveIterator(file, parse_http=False, max_header_len=MAX_HEADER):
            record = capture(found, base, limit)
            if record is None or (record.offset != base if second is None else record.offset <= second.offset):
                break
            if first is not None and second is not None:
                place = second.offset
                first.length = place - first.offset
                yield first
                if place >= end:
                    break
            first, second = second, record
    return place


def _read_stream(file: IO[bytes], grammar: Grammar, compression: str, limit: int) -> Iterator[Record | Gap]:
    file.seek(0)
    stream = inflating(file, compression)
    window = Window(stream)
    gap: Gap | None = None
    for part in walk(window, grammar, limit):
        if isinstance(part, Gap) and part.kind == "truncated":
            gap = part
        else:
            yield parse_record(part, grammar.name, limit) if isinstance(part, Raw) else part
    if stream.fault:
        start = gap.offset if gap else window.position
        what = "is damaged" if stream.fault == "corrupt" else "ends early"
        gap = Gap(start, window.position - start, stream.fault, f"the compressed stream {what} after byte {start} of its content")
    if gap:
        yield gap
