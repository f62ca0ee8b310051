"""Compares transfer and content encodings with warcio's readers and the codecs themselves."""

import gzip
import io
import random
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from warcio.bufferedreaders import ChunkedDataReader

from corpusmill.ingest.http import NotEncoded, TooLarge, dechunk, decode_payload

LIMIT = 1 << 24
TEXT = b"<html>" + b"some words in a page " * 500 + b"</html>"
CODECS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": lambda data: brotli.compress(data, quality=4),
    "zstd": zstandard.ZstdCompressor().compress,
}


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


def chunked(parts: list[bytes], extension: bytes = b"", trailer: bytes = b"") -> bytes:
    return b"".join(b"%x%s\r\n%s\r\n" % (len(part), extension, part) for part in parts if part) + b"0\r\n" + trailer + b"\r\n"


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=6), st.sampled_from([b"", b";name=value", b" "]))
def test_dechunk_undoes_chunking(parts: list[bytes], extension: bytes) -> None:
    assert dechunk(chunked(parts, extension)) == b"".join(parts)
    assert dechunk(chunked(parts, extension, b"Trailer: yes\r\n")) == b"".join(parts)


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=4), st.integers(0, 1 << 30))
def test_a_cut_chunked_body_gives_all_content_before_the_cut(parts: list[bytes], where: int) -> None:
    whole = chunked(parts)
    first = whole.index(b"\r\n") + 2
    place = first + where % (len(whole) - first)
    expected, start = b"", 0
    for part in parts:
        start = whole.index(b"\r\n", start) + 2
        expected += whole[start : min(place, start + len(part))]
        start += len(part) + 2
    assert dechunk(whole[:place]) == expected


def test_what_follows_a_broken_size_is_kept_as_warcio_keeps_it() -> None:
    body = b"5\r\nhello\r\nthis is no size\r\nworld"
    assert dechunk(body) == ChunkedDataReader(io.BytesIO(body)).read() == b"hellothis is no size\r\nworld"


@pytest.mark.parametrize("body", [b"<html>no chunks</html>", b"\r\n"])
def test_a_body_that_only_claims_to_be_chunked_stays(body: bytes) -> None:
    with pytest.raises(NotEncoded):
        dechunk(body)
    payload = decode_payload(body, {"transfer-encoding": "chunked"}, LIMIT)
    assert payload.body == body and payload.remarks == ("says chunked but is not",)


@pytest.mark.parametrize("coding", sorted(CODECS))
def test_codings_are_undone(coding: str) -> None:
    body = CODECS[coding](TEXT)
    assert decode_payload(body, {"content-encoding": coding.upper()}, LIMIT).body == TEXT
    assert (
        decode_payload(chunked([body[:100], body[100:]]), {"content-encoding": coding, "transfer-encoding": "chunked"}, LIMIT).body == TEXT
    )
    assert decode_payload(b"", {"content-encoding": coding}, LIMIT).body == b""
    payload = decode_payload(TEXT, {"content-encoding": coding}, LIMIT)
    assert payload.body == TEXT and payload.remarks == (f"says {coding} but is not",)


def test_several_codings_members_and_bare_deflate() -> None:
    assert decode_payload(brotli.compress(gzip.compress(TEXT)), {"content-encoding": "gzip, br"}, LIMIT).body == TEXT
    assert decode_payload(raw_deflate(TEXT), {"content-encoding": "deflate"}, LIMIT).body == TEXT
    assert decode_payload(gzip.compress(TEXT) + gzip.compress(b"more"), {"content-encoding": "gzip"}, LIMIT).body == TEXT + b"more"
    assert decode_payload(gzip.compress(TEXT) + b"rubbish", {"content-encoding": "gzip"}, LIMIT).body == TEXT
    assert decode_payload(TEXT, {"content-encoding": "identity"}, LIMIT).remarks == ()
    assert "unknown content encoding" in decode_payload(TEXT, {"content-encoding": "compress"}, LIMIT).remarks[0]


@pytest.mark.parametrize("coding", sorted(CODECS))
def test_a_body_that_breaks_off_keeps_its_beginning(coding: str) -> None:
    text = random.Random(3).randbytes(400_000)
    body = CODECS[coding](text)
    payload = decode_payload(body[: len(body) // 2], {"content-encoding": coding}, LIMIT)
    assert text.startswith(payload.body) and len(payload.body) > 50_000
    if coding != "zstd":  # its reader does not report an unfinished frame
        assert payload.remarks == (f"its {coding} breaks off",)


@pytest.mark.parametrize("coding", sorted(CODECS))
def test_bombs_stop_at_the_limit(coding: str) -> None:
    bomb = CODECS[coding](b"\0" * 10_000_000)
    assert len(bomb) < 100_000
    with pytest.raises(TooLarge):
        decode_payload(bomb, {"content-encoding": coding}, 1 << 20)
    double = CODECS[coding](bomb)
    with pytest.raises(TooLarge):
        decode_payload(double, {"content-encoding": f"{coding}, {coding}"}, 1 << 20)
