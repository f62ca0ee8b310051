"""A record of a WARC or ARC: what is needed of its headers, and its body."""

import io
import re
from contextlib import suppress
from datetime import datetime
from typing import Any

from fastwarc.warc import ArchiveIterator, WarcHeader

from corpusmill.pipeline.ingest.charset import fit
from corpusmill.pipeline.ingest.headers import MAX_HEADER, parse_arc_line
from corpusmill.pipeline.ingest.walk import Gap, Raw

STATUS_LINE = re.compile(r"HTTP/\d\S*\s+(\d{3})(?!\d)")
DIGITS = re.compile(r"[0-9]{1,18}")
#: Records whose blocks begin with the header of an HTTP response.
WITH_HTTP = ("response", "revisit")
TYPE, LENGTH, URI, DATE, BLOCK_TYPE = (
    WarcHeader.WARC_TYPE, WarcHeader.CONTENT_LENGTH, WarcHeader.WARC_TARGET_URI, WarcHeader.WARC_DATE, WarcHeader.CONTENT_TYPE,
)  # fmt: skip


class Record:
    """A whole record. `offset` and `length` are bytes of the file as it lies on disk (where it has a compressed frame
    for each record: those of the frame), or of its decompressed stream where it is compressed as one."""

    __slots__ = ("_headers", "_http", "block_type", "body", "length", "offset", "size", "timestamp", "type", "url", "whole")

    def __init__(
        self, offset: int, length: int, type: str, size: int, body: bytes, whole: bool, url: str | None, timestamp: str | None,
        block_type: str | None, headers: Any,
    ):  # fmt: skip
        self.offset, self.length = offset, length
        self.type = type
        self.size = size  # of the block, declared
        self.body = body  # the block behind its HTTP header, at most the limit
        self.whole = whole  # False where the body was cut at the limit
        self.url, self.timestamp = url, timestamp
        self.block_type = block_type  # Content-Type of the WARC header; of an ARC, its record's
        self._headers = headers  # FastWARC's map of the HTTP header
        self._http: dict[str, str] | None = None

    @property
    def status(self) -> int | None:
        """The status of an HTTP response."""
        found = STATUS_LINE.match(self._headers.status_line or "") if self._headers is not None else None
        return int(found.group(1)) if found else None

    @property
    def http(self) -> dict[str, str]:
        """The HTTP header: names in lower case, values of repeated ones joined by `, `."""
        if self._http is None:
            self._http = {}
            for name, value in self._headers.to_tuples() if self._headers is not None else ():
                key = name.lower()
                self._http[key] = f"{self._http[key]}, {value}" if key in self._http else value
        return self._http

    def _content(self) -> tuple[object, ...]:
        return (
            self.offset, self.length, self.type, self.size, self.body, self.whole, self.url, self.timestamp, self.block_type, self.status,
            self.http,
        )  # fmt: skip

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and self._content() == other._content()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Record({self.type} at {self.offset}, {self.length} bytes, {self.url})"


def capture(record: Any, base: int, limit: int, cut: bool = False) -> Record | None:
    """What is needed of a FastWARC record, or None where it is not well formed or not whole (but for `cut`)."""
    headers = record.headers
    kind, declared, url, date, block_type = (
        headers.get(TYPE), headers.get(LENGTH), headers.get(URI), headers.get(DATE), headers.get(BLOCK_TYPE),
    )  # fmt: skip
    size = remaining = record.content_length
    if kind is None or declared is None or (declared != str(size) and not _declares(declared, size)):
        return None
    if url is None or date is None or block_type is None:
        odd = any("\n" in value for value in headers.values())
    else:
        odd = "\n" in url or "\n" in date or "\n" in block_type or "\n" in kind
    if odd:  # a bare LF made several lines one
        return None
    kind = kind.strip().lower()
    http = None
    if kind in WITH_HTTP and remaining:
        if not record.is_http and kind == "response" and (url or "").lstrip("<").lower().startswith("http"):
            record.is_http = True  # the WARC header names the page's own type, as some writers do
        with suppress(OSError):  # an endless HTTP header: the block stays as it is
            record.parse_http(quirks_mode=True, max_header_len=MAX_HEADER)
            http = record.http_headers
        remaining = record.content_length
    body = record.reader.read(remaining if remaining < limit else limit) if remaining else b""
    rest = remaining - len(body)
    if rest and not cut and record.reader.consume() < rest:
        return None
    return Record(
        base + record.stream_pos, 0, kind, size, body, not rest, url.strip("<> ") if url else None, date or None,
        block_type or None, http,
    )  # fmt: skip


def _declares(declared: str, size: int) -> bool:
    """Whether a Content-Length that is written unusually (`007`) is this size."""
    return bool(DIGITS.fullmatch(declared)) and int(declared) == size


def parse_record(raw: Raw, format: str, limit: int) -> Record | Gap:
    """The record of bytes that were found by walking; a Gap where its header can't be read."""
    if format == "arc":
        return _arc_record(raw, limit)
    record = _parsed(raw.header + raw.block, raw.offset, limit)
    if record is None:
        return Gap(raw.offset, raw.length, "corrupt", "the header of the record is malformed")
    record.length, record.size, record.whole = raw.length, raw.size, len(raw.block) == raw.size
    return record


def _parsed(content: bytes, offset: int, limit: int) -> Record | None:
    with suppress(OSError, StopIteration):
        found = next(iter(ArchiveIterator(io.BytesIO(content), parse_http=False, quirks_mode=True, max_header_len=2 * MAX_HEADER)))
        return capture(found, offset, limit, cut=True)
    return None


def _arc_record(raw: Raw, limit: int) -> Record:
    """ARC knows no types: what is not the file's own description is a `response`, with an HTTP header or without
    (`dns:` records, and Alexa's `alexa/dat`, which then have no status)."""
    line = parse_arc_line(raw.header)
    assert line is not None  # or the walk had not found it
    url, block_type = (fit(value.decode("utf-8", "replace")).strip() for value in (line.url, line.type))
    kind = "arc_header" if url.startswith("filedesc:") else "response"
    record = None
    if kind == "response" and raw.block.startswith(b"HTTP/"):
        head = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Type: application/http; msgtype=response\r\nContent-Length: %d\r\n\r\n"
        record = _parsed(head % len(raw.block) + raw.block, raw.offset, limit)
    body, http = (record.body, record._headers) if record else (raw.block, None)
    return Record(
        raw.offset, raw.length, kind, raw.size, body, len(raw.block) == raw.size, url, _timestamp(line.date.decode()), block_type or None,
        http,
    )  # fmt: skip


def _timestamp(digits: str) -> str | None:
    """`20140216050221` as ISO 8601; None where it is no date. Old ARCs have dates without seconds or hours."""
    try:
        return datetime.strptime(digits[:14].ljust(14, "0"), "%Y%m%d%H%M%S").strftime("%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return None
