"""The records of a WARC, whole or in a range of it, each with its exact place, and each damaged stretch as one too.

FastWARC does the reading. A record of it counts only once the records behind it were seen where they must be; from
the first place where anything is odd, the walk by hand (`walk.py`) takes over to the end of the range. FastWARC's own
decoding of bodies stays off: it ends silently on gzip + chunked responses.
"""

import io
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import IO, Any

from corpusmill.pipeline.ingest.files import RangeFile
from corpusmill.pipeline.ingest.inflate import inflating
from corpusmill.pipeline.ingest.walk import MAX_HEADER, Gap, Raw, walk_members, walk_plain
from corpusmill.pipeline.ingest.window import Window

STATUS_LINE = re.compile(r"HTTP/\d\S*\s+(\d{3})(?!\d)")


@dataclass(frozen=True)
class Record:
    """A whole WARC record. `offset` and `length` are bytes of the file as it lies on disk, or of its decompressed
    stream where it is compressed as one."""

    offset: int
    length: int
    type: str
    size: int  # of the block, declared
    body: bytes  # the block behind its HTTP header, at most the limit
    whole: bool = True  # False where the body was cut at the limit
    url: str | None = None
    timestamp: str | None = None
    block_type: str | None = None  # Content-Type of the WARC header
    status: int | None = None
    http: dict[str, str] = field(default_factory=dict)  # header names in lower case; repeated ones joined by ", "


def read_records(file: IO[bytes], layout: str, start: int, end: int, limit: int, by_hand: bool = False) -> Iterator[Record | Gap]:
    """All records that begin in `[start, end)`, bodies cut at `limit` bytes.

    `layout` is `plain`, `members` (a gzip member a record; both must begin at a record), or `gzip` / `zstd`: one
    compressed stream, which can only be read whole. `by_hand` walks from the start, for files on which FastWARC hangs.
    """
    if layout in ("gzip", "zstd"):
        yield from _read_stream(file, layout, start, limit)
        return
    resume = start
    held: list[Record] = []
    window = RangeFile(file, start, end)
    for record in () if by_hand else _fast(window, start, limit):
        # two are held back: where several records lie in one member, FastWARC misplaces the second at the next one
        if held and record.offset <= held[-1].offset:
            break
        held.append(record)
        if len(held) == 3:
            first = held.pop(0)
            resume = held[0].offset
            yield replace(first, length=resume - first.offset)
    window.seek(resume - start)
    if layout == "plain":
        yield from _parsed(walk_plain(Window(window, resume), limit), limit)
    else:
        yield from _parsed(walk_members(window, resume - start, limit, start), limit)


def _fast(window: RangeFile, base: int, limit: int) -> Iterator[Record]:
    """FastWARC's records up to the first that is not surely right; their lengths are not known yet."""
    from fastwarc.warc import ArchiveIterator

    with suppress(OSError):  # whatever stops it here, the walk by hand looks at the same place and says what it is
        for record in ArchiveIterator(window, parse_http=False, max_header_len=MAX_HEADER):
            captured = capture(record, base + record.stream_pos, limit)
            if captured is None:
                return
            yield captured


def capture(record: Any, offset: int, limit: int, cut: bool = False) -> Record | None:
    """What is needed of a FastWARC record, or None where it is not well formed or not whole (but for `cut`)."""
    headers = record.headers
    kind, declared = headers.get("WARC-Type"), headers.get("Content-Length")
    if kind is None or declared is None or not declared.strip().isdecimal():
        return None
    if any("\n" in value for value in headers.values()):  # a bare LF made several lines one
        return None
    url = headers.get("WARC-Target-URI")
    block_type = _clean(headers.get("Content-Type"))
    if not record.is_http and kind.strip().lower() == "response" and (url or "").lstrip("<").lower().startswith("http"):
        record.is_http = True  # the WARC header names the page's own type, as some writers do
    status: int | None = None
    http: dict[str, str] = {}
    with suppress(OSError):  # an endless HTTP header: the block stays as it is
        record.parse_http(quirks_mode=True, max_header_len=MAX_HEADER)
        status, http = _http(record.http_headers)
    remaining = record.content_length
    body = record.reader.read(min(limit, remaining)) if remaining else b""
    rest = remaining - len(body)
    if rest and not cut and record.reader.consume() < rest:
        return None
    return Record(
        offset, 0, kind.strip().lower(), int(declared), body, not rest, _clean(url.strip("<> ")) if url else None,
        _clean(headers.get("WARC-Date")), block_type, status, http,
    )  # fmt: skip


def _http(headers: Any) -> tuple[int | None, dict[str, str]]:
    if headers is None:
        return None, {}
    status = STATUS_LINE.match(headers.status_line or "")
    fields: dict[str, str] = {}
    for name, value in headers.items():
        key = name.lower()
        fields[key] = f"{fields[key]}, {value}" if key in fields else value
    return (int(status.group(1)) if status else None), fields


def _clean(value: str | None) -> str | None:
    """A header value that is surely valid UTF-8."""
    return value.encode("utf-8", "replace").decode() if value else None


def _read_stream(file: IO[bytes], compression: str, start: int, limit: int) -> Iterator[Record | Gap]:
    stream = inflating(RangeFile(file, start, file.seek(0, io.SEEK_END)), compression)  # type: ignore[arg-type]
    gap: Gap | None = None
    for part in _parsed(walk_plain(Window(stream), limit), limit):
        if isinstance(part, Gap) and part.kind == "truncated":
            gap = part
        else:
            yield part
    if gap and stream.fault == "corrupt":
        gap = replace(gap, kind="corrupt", reason=f"the compressed stream is damaged behind byte {gap.offset} of its content")
    if gap:
        yield gap


def _parsed(parts: Iterator[Raw | Gap], limit: int) -> Iterator[Record | Gap]:
    from fastwarc.warc import ArchiveIterator

    for part in parts:
        if isinstance(part, Gap):
            yield part
            continue
        record = None
        with suppress(OSError, StopIteration):
            source = io.BytesIO(part.header + part.block)
            parsed = next(iter(ArchiveIterator(source, parse_http=False, quirks_mode=True, max_header_len=2 * MAX_HEADER)))
            record = capture(parsed, part.offset, limit, cut=True)
        if record is None:
            yield Gap(part.offset, part.length, "corrupt", "the header of the record is malformed")
        else:
            yield replace(record, length=part.length, size=part.size, whole=len(part.block) == part.size)
