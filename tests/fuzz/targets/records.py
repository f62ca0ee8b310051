"""Fuzzes WARC and ARC records, plain and compressed: parts in order, the same by FastWARC, by hand, and for any cuts of the file."""

import io
from itertools import pairwise

from fuzzing import choose, choosing
from warc_fuzz import COMPRESS
from warc_peers import LIMIT

from corpusmill.ingest.archive_walk import Gap
from corpusmill.ingest.warc import Record, read_records

#: Format, layout, and whether to compress the input first, so that the inside of a compressed file is reached.
KINDS = [("warc", "plain", False), ("arc", "plain", False), *(("warc", name + frames, packed) for name in COMPRESS
         for frames in ("", "-frames") for packed in (True, False))]  # fmt: skip

HTTP = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>A page of some words."
ARC = (
    b"filedesc://crawl.arc 0.0.0.0 20050101000000 text/plain 76\n1 0 Example\nURL IP-address Archive-date Content-type Archive-length\n"
    b"\nxxxx\n\nhttp://host.test/ 1.2.3.4 20050101000000 text/html " + str(len(HTTP)).encode() + b"\n" + HTTP + b"\n"
)


def record(kind: str, block: bytes, more: str = "") -> bytes:
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{kind}>\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n{more}"
    return f"{head}Content-Length: {len(block)}\r\n\r\n".encode() + block + b"\r\n\r\n"


def warc() -> list[bytes]:
    """Returns the records of a small WARC."""
    url = "WARC-Target-URI: http://host.test/\r\n"
    return [
        record("warcinfo", b"software: x\r\n"),
        record("response", HTTP, f"{url}Content-Type: application/http; msgtype=response\r\n"),
        record("conversion", b"Text of a page.", f"{url}WARC-Refers-To: <urn:uuid:response>\r\nContent-Type: text/plain\r\n"),
    ]


def seeds() -> list[bytes]:
    return [choosing(0, b"".join(warc())), choosing(1, ARC)] + [
        choosing(place, b"".join(warc()) if packed else b"".join(map(COMPRESS[dims.removesuffix("-frames")], warc())))
        for place, (_, dims, packed) in enumerate(KINDS) if place > 1
    ]  # fmt: skip


def fuzz(data: bytes) -> None:
    (format, dims, packed), content = choose(data, KINDS)
    if packed:
        content = COMPRESS[dims.removesuffix("-frames")](content)

    def read(start: int = 0, end: int = len(content), without_fastwarc: bool = False) -> list[Record | Gap]:
        return list(read_records(io.BytesIO(content), format, dims, start, end, LIMIT, without_fastwarc))

    parts = read()
    for part in parts:
        assert part.offset >= 0 and part.length >= 0, part
        if isinstance(part, Record):
            assert len(part.body) <= LIMIT, part
            (part.url or "").encode()  # goes into columns, which hold UTF-8
    if dims == "plain":
        assert all(a.offset + a.length <= b.offset or a.offset == b.offset for a, b in pairwise(parts)), "parts overlap"
        assert read(without_fastwarc=True) == parts, "FastWARC and the walk by hand disagree"
        cuts = sorted({0, len(content), *(part.offset for part in parts[:8])})
        assert [part for a, b in pairwise(cuts) for part in read(a, b)] == parts, f"cuts at {cuts} change what is read"
