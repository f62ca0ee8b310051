"""Fuzzes the body of an HTTP answer: transfer and content encodings undone within the limit, whatever the headers claim."""

import gzip
import zlib

import brotli
import zstandard
from fuzzing import choose, choosing

from corpusmill.ingest.http import TooLarge, decode_payload

LIMIT = 1 << 20
TEXT = b"<p>Some text of a page, " * 20
HEADERS = [
    {"content-encoding": "gzip"}, {"content-encoding": "deflate"}, {"content-encoding": "br"}, {"content-encoding": "zstd"},
    {"transfer-encoding": "chunked"}, {"transfer-encoding": "chunked", "content-encoding": "gzip"}, {"content-encoding": "gzip, br,, x"},
]  # fmt: skip


def seeds() -> list[bytes]:
    chunked = b"5\r\nhello\r\n3;x=y\r\nyou\r\n0\r\n\r\n"
    packed = gzip.compress(TEXT, mtime=0)
    bodies = [packed, zlib.compress(TEXT), brotli.compress(TEXT), zstandard.compress(TEXT), chunked,
              b"%x\r\n%b\r\n0\r\n\r\n" % (len(packed), packed), brotli.compress(packed)]  # fmt: skip
    return [choosing(place, body) for place, body in enumerate(bodies)] + [choosing(0, gzip.compress(bytes(2 << 20), mtime=0))]


def fuzz(data: bytes) -> None:
    header, body = choose(data, HEADERS)
    try:
        found = decode_payload(body, header, LIMIT)
    except TooLarge:
        return
    assert len(found.body) <= max(LIMIT, len(body)), "more came out than the limit allows"
    if found.remarks and all(remark.startswith(("says", "unknown")) for remark in found.remarks):
        assert len(found.body) <= LIMIT or found.body == body
