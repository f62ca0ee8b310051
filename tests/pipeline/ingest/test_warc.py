"""Records against warcio, and what happens to damaged files."""

import gzip
import io
import itertools
import random

import pytest
from warcio.archiveiterator import ArchiveIterator

from corpusmill.pipeline.ingest.codecs import CODECS, compression_of
from corpusmill.pipeline.ingest.frames import begins_one_stream
from corpusmill.pipeline.ingest.headers import GRAMMARS
from corpusmill.pipeline.ingest.records import Record, parse_record
from corpusmill.pipeline.ingest.walk import Gap, Raw
from corpusmill.pipeline.ingest.warc import _walk, read_records

LIMIT = 1 << 26


def layout_of(content: bytes) -> str:
    name = compression_of(content[:4])
    if name is None:
        return "plain"
    return name if begins_one_stream(io.BytesIO(content), CODECS[name], GRAMMARS["warc"]) else f"{name}-frames"


def read(content: bytes, limit: int = LIMIT) -> list[Record | Gap]:
    return list(read_records(io.BytesIO(content), "warc", layout_of(content), 0, len(content), limit))


def walked(content: bytes) -> list[Record | Gap]:
    steps = _walk(io.BytesIO(content), GRAMMARS["warc"], layout_of(content), 0, len(content), LIMIT)
    return [parse_record(part, "warc", LIMIT) if isinstance(part, Raw) else part for step in steps for part in step]


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


@pytest.mark.parametrize("compressed", [True, False])
def test_a_record_that_holds_a_warc_is_one_record(warcs, compressed: bool) -> None:
    inner = b"\r\n\r\n" + warcs.write(warcs.mixed(3), gzip=False) + warcs.write(warcs.mixed(3), gzip=True)
    content = warcs.write([{"url": "http://evil.test/", "body": inner}, {"url": "http://good.test/", "body": b"x"}], gzip=compressed)
    assert [(p.url, p.body) for p in read(content)] == [("http://evil.test/", inner), ("http://good.test/", b"x")]


@pytest.mark.parametrize("compressed", [True, False])
def test_pieces_of_ranges_equal_the_whole(warcs, compressed: bool) -> None:
    content = warcs.write(warcs.mixed(12), gzip=compressed)
    whole = read(content)
    for step in (1, 3, 7):
        cuts = [part.offset for part in whole[::step]] + [len(content)]
        pieces = [
            p for a, b in itertools.pairwise(cuts) for p in read_records(io.BytesIO(content), "warc", layout_of(content), a, b, LIMIT)
        ]
        assert pieces == whole


@pytest.mark.parametrize("compressed", [True, False])
def test_a_cut_anywhere_loses_no_whole_record(warcs, compressed: bool) -> None:
    content = warcs.write(warcs.mixed(6), gzip=compressed)
    whole = read(content)
    for place in random.Random(7).sample(range(20, len(content)), 60):
        parts = read(content[:place])
        before = [p for p in whole if p.offset + p.length <= place]
        rest = place - sum(p.length for p in before)
        assert parts[: len(before)] == before, place
        # of a plain record whose last line break is cut off, all that counts is there
        behind = parts[len(before) :]
        assert [p.offset for p in behind] == ([place - rest] if rest else []), place
        assert all((isinstance(p, Gap) and p.kind == "truncated") or (not compressed and rest >= behind[0].length) for p in behind), place


def test_a_damaged_member_costs_only_itself(warcs) -> None:
    content = bytearray(warcs.write(warcs.mixed(6)))
    whole = read(bytes(content))
    victim = whole[5]
    content[victim.offset + victim.length // 2] ^= 0xFF
    parts = read(bytes(content))
    assert [p for p in parts if isinstance(p, Record)] == [p for p in whole if p is not victim]
    (gap,) = [p for p in parts if isinstance(p, Gap)]
    assert (gap.offset, gap.length, gap.kind) == (victim.offset, victim.length, "corrupt")


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


@pytest.mark.parametrize("compressed", [True, False])
def test_fast_reading_and_walking_agree_on_damaged_files(warcs, compressed: bool) -> None:
    sound = warcs.write(warcs.mixed(4), gzip=compressed)
    random_ = random.Random(11)
    for _ in range(150):
        content = bytearray(sound)
        for _ in range(random_.choice((1, 1, 3))):
            content[random_.randrange(len(content))] = random_.randrange(256)
        if layout_of(bytes(content)) == layout_of(sound):
            assert read(bytes(content)) == walked(bytes(content))


def test_a_record_beyond_the_limit_is_cut_and_its_neighbours_are_not(warcs) -> None:
    for compressed in (True, False):
        content = warcs.write([*warcs.mixed(1), {"body": b"x" * 3_000_000}, *warcs.mixed(1)], gzip=compressed)
        parts = read(content, limit=100_000)
        assert [p.whole for p in parts] == [True, True, False, True, True]
        assert parts[2].size > 3_000_000 and len(parts[2].body) <= 100_000
        assert parts == [*parts[:2], parts[2], *parts[3:]] and sum(p.length for p in parts) == len(content)
