"""Compares records with warcio's, and tests damaged files."""

import gzip
import io
import itertools
import struct
from pathlib import Path

import pytest
import warc_fuzz
import zstandard
from warcio.archiveiterator import ArchiveIterator

from corpusmill.ingest.archive_walk import GRAMMARS, Gap, begins_one_stream
from corpusmill.ingest.original import read_record
from corpusmill.ingest.warc import Record, read_records
from corpusmill.pipeline.formats.compressed import CODECS, compression_of

LIMIT = 1 << 26


def layout_of(content: bytes) -> str:
    name = compression_of(content[:4])
    if name is None:
        return "plain"
    return name if begins_one_stream(io.BytesIO(content), CODECS[name], GRAMMARS["warc"]) else f"{name}-frames"


def read(content: bytes, limit: int = LIMIT) -> list[Record | Gap]:
    return list(read_records(io.BytesIO(content), "warc", layout_of(content), 0, len(content), limit))


def by_warcio(content: bytes) -> list[tuple[str, int, int]]:
    found = []
    records = ArchiveIterator(io.BytesIO(content), no_record_parse=True)
    for record in records:
        size = len(record.raw_stream.read())
        found.append((record.rec_type, records.get_record_offset(), size))
    return found


def summary(parts: list[Record | Gap]) -> list[tuple[str, int, int]]:
    return [(p.type, p.offset, p.size) for p in parts if isinstance(p, Record)]


@pytest.mark.parametrize("compressed", [True, False])
def test_written_records_come_back(warcs, compressed: bool) -> None:
    content = warcs.write([{"type": "warcinfo", "body": b"a: b\r\n"}, *warcs.mixed(5)], gzip=compressed)
    parts = read(content)
    assert summary(parts) == by_warcio(content)
    assert [p.body for p in parts if p.type == "response"] == [warcs.page(n) for n in range(5)]
    assert {p.url for p in parts if p.type == "response"} == {f"http://example.test/{n}" for n in range(5)}
    assert all(p.status == 200 and p.timestamp == "2024-05-01T00:00:00Z" for p in parts if p.type == "response")


def test_records_behind_rubbish_empty_members_and_doubled_members_are_found(warcs) -> None:
    first, second = warcs.write(warcs.mixed(1)), warcs.write(warcs.mixed(2))
    assert len([p for p in read(first + gzip.compress(b"") + second) if isinstance(p, Record)]) == 6
    parts = read(first + b"rubbish" + second)
    assert [type(p) for p in parts] == [Record, Record, Gap, Record, Record, Record, Record]
    doubled = gzip.compress(warcs.write(warcs.mixed(1), gzip=False))
    parts = read(first + doubled + second)
    assert [p.type for p in parts] == ["request", "response"] * 4
    assert {(p.offset, p.length) for p in parts[2:4]} == {(len(first), len(doubled))}


def test_bare_line_feeds_and_a_single_gzip_member_are_read(warcs) -> None:
    plain = warcs.write(warcs.mixed(3), gzip=False)
    parts = read(gzip.compress(plain))
    assert parts == read(plain)
    block = b"HTTP/1.1 200 OK\nContent-Type: text/html\n\nbody"
    record = b"WARC/1.0\nWARC-Type: response\nWARC-Target-URI: <http://x.test/>\nContent-Length: %d\n\n%s\n\n" % (len(block), block)
    parts = read(record * 3)
    assert [(p.type, p.url, p.status, p.body) for p in parts] == [("response", "http://x.test/", 200, b"body")] * 3


def lengthened(content: bytes, number: int, change: int) -> bytes:
    """Returns a plain WARC whose record `number` declares another Content-Length."""
    victim = read(content)[number]
    start, end = victim.offset, victim.offset + victim.length
    old = b"Content-Length: %d\r\n" % victim.size
    assert content[start:end].count(old) >= 1
    return content[:start] + content[start:end].replace(old, b"Content-Length: %d\r\n" % (victim.size + change), 1) + content[end:]


@pytest.mark.parametrize("change", [-5, 300, 10**6, 10**12])
def test_a_false_length_costs_at_most_its_record(warcs, change: int) -> None:
    content = warcs.write(warcs.mixed(5), gzip=False)
    whole = read(content)
    for number in (0, 3, 9):
        plain = lengthened(content, number, change)
        for damaged in [plain, *([gzip.compress(plain)] if change <= LIMIT else [])]:  # a stream's false length is believed past its end
            parts = read(damaged)
            there = [(p.url, p.type, p.body) for p in parts if isinstance(p, Record)]
            assert all((p.url, p.type, p.body) in there for n, p in enumerate(whole) if n != number), (number, change)
            assert [type(p) for p in parts].count(Gap) == 1, (number, change)


def test_text_that_looks_like_many_records_is_walked_once(warcs) -> None:
    """A reader that began anew at each of them would take minutes."""
    for line in (b"WARC/1.0\nA:\n", b"WARC/1.0\r\n", b"WARC/1.0\nContent-Length: 99999\n", b"WARC/1.0\nContent-Length: 9\n\n"):
        content = warcs.write(warcs.mixed(1), gzip=False)[:-100] + line * (600_000 // len(line))
        parts = read(content)
        assert isinstance(parts[0], Record) and len(parts) > 1 and sum(p.length for p in parts) == len(content)


@pytest.mark.parametrize("name", ["gzip", "zstd", "lz4"])
def test_a_frame_a_record_is_cut_and_damaged_like_members(warcs, name: str) -> None:
    compress = warc_fuzz.COMPRESS[name]
    frames = [compress(warcs.write([record], gzip=False)) for record in warcs.mixed(6)]
    content = b"".join(frames)
    assert layout_of(content) == f"{name}-frames"
    whole = read(content)
    starts = [sum(map(len, frames[:n])) for n in range(12)]
    assert [(p.offset, p.length, p.type) for p in whole] == [
        (start, len(frame), "request" if n % 2 == 0 else "response") for n, (start, frame) in enumerate(zip(starts, frames))
    ]
    pieces = [p for a, b in itertools.pairwise([0, starts[3], starts[7], len(content)])
              for p in read_records(io.BytesIO(content), "warc", f"{name}-frames", a, b, LIMIT)]  # fmt: skip
    assert pieces == whole
    damaged = bytearray(content)
    damaged[starts[5] + len(frames[5]) // 2] ^= 0xFF
    parts = read(bytes(damaged))
    assert [p for p in parts if isinstance(p, Record)] == [*whole[:5], *whole[6:]]
    assert [(p.offset, p.length, p.kind) for p in parts if isinstance(p, Gap)] == [(starts[5], len(frames[5]), "corrupt")]
    parts = read(content[: starts[7] + 20])
    assert parts[:-1] == whole[:7] and (parts[-1].offset, parts[-1].length, parts[-1].kind) == (starts[7], 20, "truncated")


@pytest.mark.parametrize("packed", [True, False])
def test_zstd_frames_with_a_dictionary(tmp_path: Path, warcs, ingest, packed: bool) -> None:
    records = [warcs.write([record], gzip=False) for record in warcs.mixed(20)]
    trained = zstandard.train_dictionary(4000, records * 20).as_bytes()
    inner = zstandard.ZstdCompressor().compress(trained) if packed else trained
    compressor = zstandard.ZstdCompressor(dict_data=zstandard.ZstdCompressionDict(trained))
    frames = [compressor.compress(record) for record in records]
    path = tmp_path / "crawl.warc.zst"
    path.write_bytes(struct.pack("<II", 0x184D2A5D, len(inner)) + inner + b"".join(frames))
    found = ingest(path)
    assert [row["url"] for row in found.data] == [f"http://example.test/{n}" for n in range(20)]
    assert found.report[0]["offset"] == 8 + len(inner) and [row["length"] for row in found.report] == list(map(len, frames))
    row = found.data[11]
    assert read_record(row["source"], row["offset"], row["length"]) == records[23]
