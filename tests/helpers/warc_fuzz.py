"""Cuts and damages real WARCs and ARCs at random, and checks what is still read from them: see the fuzz target `real_archives`."""

import gzip
import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path

import lz4.frame
import zstandard
from warc_peers import LIMIT

from corpusmill.ingest.archive_walk import Gap, examine
from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.formats import SegmentReader
from corpusmill.ingest.inputs import index_range, joined, segments_of
from corpusmill.ingest.warc import CUTTABLE, Record, read_records
from corpusmill.pipeline.files import file_ref
from corpusmill.pipeline.formats.compressed import CODECS, Inflating
from corpusmill.pipeline.formats.detect import InputFile

Parts = list[Record | Gap]
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1, mtime=0),
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "lz4": lambda data: lz4.frame.compress(data, content_checksum=True),
}


@dataclass
class Sample:
    """A sound file: its bytes and all records read from it."""

    name: str
    format: str
    layout: str
    content: bytes
    parts: Parts

    def read(self, content: bytes, start: int = 0, end: int | None = None, without_fastwarc: bool = False) -> Parts:
        end = len(content) if end is None else end
        return list(read_records(io.BytesIO(content), self.format, self.layout, start, end, LIMIT, without_fastwarc))

    def plain(self, content: bytes) -> bytes:
        return Inflating(io.BytesIO(content), CODECS[self.layout]).read()


def load(path: Path) -> Sample:
    source = examine(file_ref(str(path)))
    assert isinstance(source, InputFile), source
    sample = Sample(path.name, source.format, source.layout, path.read_bytes(), [])
    sample.parts = sample.read(sample.content)
    return sample


def repacked(sample: Sample, layout: str) -> Sample | None:
    """Compresses a plain file, as one stream or with a frame for each record; returns None where it is already damaged."""
    if sample.layout != "plain" or not all(isinstance(part, Record) for part in sample.parts):
        return None
    name = layout.removesuffix("-frames")
    pieces = [sample.content[p.offset : p.offset + p.length] for p in sample.parts] if name != layout else [sample.content]
    made = Sample(f"{sample.name} as {layout}", sample.format, layout, b"".join(map(COMPRESS[name], pieces)), [])
    made.parts = made.read(made.content)
    assert [(p.type, p.body, p.url) for p in made.parts] == [(p.type, p.body, p.url) for p in sample.parts], made.name
    return made


def same(found: Record | Gap, expected: Record | Gap) -> bool:
    """Whether two records are the same except for the newlines after them, which a cut or a flip may have taken."""
    if not (isinstance(found, Record) and isinstance(expected, Record)):
        return found == expected
    return found.content() == expected.content()


def check_cut(sample: Sample, place: int) -> None:
    """Checks a file that ends at `place`: it gives all whole records before, and one damage row for the rest."""
    content = sample.content[:place]
    parts = sample.read(content)
    there = place if sample.layout in CUTTABLE else len(sample.plain(content))
    records = [p for p in sample.parts if isinstance(p, Record) and p.offset + p.length <= there]
    kept = [p for p in parts if isinstance(p, Record)]
    assert len(kept) >= len(records) and all(map(same, kept, records)), "a whole record before the cut is lost"
    end = records[-1].offset + records[-1].length if records else sample.parts[0].offset
    rest = parts[parts.index(kept[len(records) - 1]) + 1 :] if records else parts
    if any(isinstance(p, Gap) and p.offset < there for p in sample.parts):
        return  # damaged before it was cut
    if not sample.layout.endswith("-frames") and rest and isinstance(rest[0], Record):
        assert same(rest.pop(0), sample.parts[len(records)]), "not the record whose last newlines are cut off"
        end = there
    if sample.layout in CUTTABLE and there <= end:
        assert not rest, "something is left where nothing was cut off"
    elif rest or place < len(sample.content):
        assert [type(p) for p in rest] == [Gap], f"not one damage row for the rest: {rest}"
        assert rest[0].kind == "truncated" and rest[0].offset == end, rest


def check_flips(sample: Sample, places: list[int], random_: random.Random, folder: Path) -> None:
    """Checks a file with other bytes at `places`: it gives every record that holds none of them."""
    damaged = bytearray(sample.content)
    for place in places:
        damaged[place] ^= random_.randrange(1, 256)
    content = bytes(damaged)
    parts = sample.read(content)
    if sample.layout in CUTTABLE:
        before = sample.format == "arc"  # the reader finds a line's start by the line break before it
        safe = [p for p in sample.parts if not any(p.offset - before <= place < p.offset + p.length for place in places)]
        check_ranges(sample, content, parts, random_)
        check_index(sample, content, parts, random_, folder)
    else:
        sound = common(sample.plain(content), sample.plain(sample.content))
        safe = [p for p in sample.parts if p.offset + p.length <= sound]
    found = {p.offset: p for p in reversed(parts) if isinstance(p, Record)}
    for part in safe:
        if isinstance(part, Record) and sum(p.offset == part.offset for p in sample.parts) == 1:
            assert part.offset in found and same(found[part.offset], part), f"{part} is lost, though nothing in it was changed"


def common(one: bytes, other: bytes, step: int = 1 << 12) -> int:
    """Returns about how many first bytes are equal; never more than there are."""
    equal = takewhile(lambda at: one[at : at + step] == other[at : at + step], range(0, min(len(one), len(other)) + 1, step))
    return min(sum(step for _ in equal), len(one), len(other))


def check_ranges(sample: Sample, content: bytes, parts: Parts, random_: random.Random) -> None:
    """Checks that every part starts after the one before, and that any choice of cuts gives the same parts."""
    places = sorted({part.offset for part in parts})
    assert all(a.offset + a.length <= b.offset or a.offset == b.offset for a, b in pairwise(parts)), "parts overlap"
    cuts = sorted({0, len(content), *random_.sample(places, random_.randrange(min(len(places), 6) + 1))})
    pieces = [part for a, b in pairwise(cuts) for part in sample.read(content, a, b)]
    assert pieces == parts, f"cuts at {cuts} change what is read"
    different = [(a, b) for a, b in zip(parts, sample.read(content, without_fastwarc=True)) if a != b]
    assert not different, f"FastWARC and the walk by hand disagree: {different[0]}, {content[different[0][0].offset :][:1500]!r}"


def check_index(sample: Sample, content: bytes, parts: Parts, random_: random.Random, folder: Path) -> None:
    """Checks that ranges indexed separately fit together only at places where a record, or damage, begins."""
    path = folder / "indexed"
    path.write_bytes(content)
    edges = sorted({0, len(content), *(random_.randrange(len(content)) for _ in range(3))})
    ranges, without = (
        [index_range(str(path), sample.format, sample.layout, a, b, 1000, without_fastwarc) for a, b in pairwise(edges)]
        for without_fastwarc in (False, True)
    )
    assert ranges == without, f"FastWARC and the walk without it disagree about ranges at {edges}"
    places = joined(ranges, len(content)) or []
    assert set(places) <= {0, len(content), *(part.offset for part in parts)}, f"ranges at {edges} are cut at {places}"


def check_rows(content: bytes, name: str, folder: Path) -> int:
    """Runs the whole of ingest on a file with this content: it must give rows or one sentence, and no exception."""
    path = folder / name
    path.write_bytes(content)
    source = examine(file_ref(str(path)))
    if not isinstance(source, InputFile):
        return 0
    reader = SegmentReader(IngestConfig(), {})
    works = [reader.pending_rows(str(path), len(content), segment, False) for segment in segments_of(source, 1 << 24)]
    rows = [work.row() for each in works for work in each]
    assert all(row.id and (row.kept or row.reasons) for row in rows)
    return len(rows)


def fuzz(sample: Sample, random_: random.Random, rounds: int, folder: Path) -> None:
    size = len(sample.content)
    for number in range(rounds):
        place = random_.randrange(1, size)
        check_cut(sample, place)
        flips = [random_.randrange(size) for _ in range(random_.choice((1, 1, 1, 2, 8)))]
        check_flips(sample, flips, random_, folder)
        if number == 0 and size < 300_000:
            check_rows(sample.content[:place], sample.name.split(" ")[0], folder)
            damaged = bytearray(sample.content)
            for flip in flips:
                damaged[flip] ^= 0x55
            check_rows(bytes(damaged), sample.name.split(" ")[0], folder)
