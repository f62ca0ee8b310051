"""Tests compressed streams: whole, cut and damaged."""

import gzip
import io
import random
import zlib

import lz4.frame
import pytest
import zstandard

from corpusmill.pipeline.formats.compressed import Inflating, inflating

RANDOM = random.Random(5)
TEXT = b"".join(b"line %d %s\n" % (i, RANDOM.randbytes(6).hex().encode()) for i in range(20_000))


def compress(kind: str, data: bytes) -> bytes:
    return {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress, "lz4": lz4.frame.compress}[kind](data)


def stream(kind: str, content: bytes) -> Inflating:
    return inflating(io.BytesIO(content), kind)


@pytest.mark.parametrize("kind", ["gzip", "zstd", "lz4"])
def test_members_empty_members_and_padding(kind: str) -> None:
    content = compress(kind, TEXT) + compress(kind, b"") + compress(kind, b"more") + b"\0" * 100
    found = stream(kind, content)
    assert found.read() == TEXT + b"more" and found.fault is None
    assert io.BufferedReader(stream(kind, content)).read() == TEXT + b"more"


@pytest.mark.parametrize("kind", ["gzip", "zstd", "lz4"])
def test_a_cut_stream_gives_its_beginning(kind: str) -> None:
    content = compress(kind, TEXT)
    for place in RANDOM.sample(range(20, len(content)), 20):
        found = stream(kind, content[:place])
        out = found.read()
        assert TEXT.startswith(out) and found.fault == "truncated"
        if kind == "gzip":
            assert len(out) >= len(zlib.decompressobj(31).decompress(content[:place]))


def test_a_damaged_gzip_stream_gives_everything_before_the_damage() -> None:
    content = bytearray(compress("gzip", TEXT))
    place = len(content) // 2
    content[place : place + 40] = b"\xff" * 40
    found = stream("gzip", bytes(content))
    out = found.read()
    assert found.fault == "corrupt"
    sound = zlib.decompressobj(31).decompress(bytes(content[:place]))
    assert out.startswith(sound) and len(sound) > len(TEXT) // 3


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_rubbish_behind_the_last_member_is_a_fault(kind: str) -> None:
    found = stream(kind, compress(kind, TEXT) + b"rubbish")
    assert found.read() == TEXT and found.fault == "corrupt"
