"""The records of a WARC or ARC, whole or in a range of it, each with its exact place, and each damaged stretch as one too.

FastWARC reads WARCs that are plain or have a gzip member for each record. A record of it counts only once the records
behind it were seen where they must be; at a place where anything is odd, the walk by hand (`walk.py`, `frames.py`)
decides about what lies there, and FastWARC goes on behind it. All else is walked. FastWARC's own decoding of bodies
stays off: it ends silently on gzip + chunked responses.
"""

import os
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import IO

from fastwarc.warc import ArchiveIterator

from corpusmill.ingest.frames import FRAMED, next_frame, walk_frames
from corpusmill.ingest.headers import GRAMMARS, MAX_HEADER, Grammar
from corpusmill.ingest.records import Record, capture, parse_record
from corpusmill.ingest.walk import Gap, Raw, walk
from corpusmill.pipeline.formats.compressed import codec_of, inflating
from corpusmill.pipeline.formats.streams import RangeFile, Window

#: Layouts of files that can be read from any record on.
CUTTABLE = ("plain", "gzip-frames", "zstd-frames", "lz4-frames")

MOST_PATIENCE = 1 << 10


def read_records(
    file: IO[bytes], format: str, layout: str, start: int, end: int, limit: int, by_hand: bool = False
) -> Iterator[Record | Gap]:
    """All records that begin in `[start, end)`, bodies cut at `limit` bytes. `start` is where a record begins.

    `format` is `warc` or `arc`. `layout` is `plain`, `gzip-frames`, `zstd-frames` or `lz4-frames` (a frame a record),
    or `gzip`, `zstd` or `lz4`: one compressed stream, which can only be read whole. `by_hand` walks, for files on which FastWARC hangs.
    """
    if layout not in CUTTABLE:
        yield from _read_stream(file, GRAMMARS[format], layout, limit)
        return
    size = file.seek(0, os.SEEK_END)
    fast = format == "warc" and layout in ("plain", "gzip-frames") and not by_hand
    position = start
    patience = 1  # records to walk before FastWARC is tried again: more and more where it gets nowhere
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
    """Where at or behind `place` the first record seems to begin, or the end of the file: text may look like a record."""
    size = file.seek(0, os.SEEK_END)
    if not place:
        return 0
    if layout == "plain":
        window = Window(RangeFile(file, place, size), place)
        GRAMMARS[format].seek_start(window, None)
        return window.position
    return next_frame(RangeFile(file, 0, size), codec_of(file, layout.removesuffix(FRAMED)), GRAMMARS[format], place)


def _walk(file: IO[bytes], grammar: Grammar, layout: str, position: int, size: int, limit: int) -> Iterator[list[Raw | Gap]]:
    if layout == "plain":
        for part in walk(Window(RangeFile(file, position, size), position), grammar, limit):
            yield [part]
    else:
        codec = codec_of(file, layout.removesuffix(FRAMED))
        yield from walk_frames(RangeFile(file, 0, size), codec, grammar, position, limit)


def _fast(file: RangeFile, base: int, end: int, limit: int) -> Generator[Record, None, int]:
    """FastWARC's records from `base` on up to the first that is not surely right, or to `end`; returns where they end."""
    # two are held back: where several records lie in one frame, FastWARC misplaces the second at the next one
    first: Record | None = None
    second: Record | None = None
    place = base
    with suppress(OSError):  # whatever stops it here, the walk by hand looks at the same place and says what it is
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
        what = "is damaged" if stream.fault == "corrupt" else "ends before its time"
        gap = Gap(start, window.position - start, stream.fault, f"the compressed stream {what} behind byte {start} of its content")
    if gap:
        yield gap
