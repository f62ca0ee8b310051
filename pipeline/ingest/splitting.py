"""Balanced pieces: large files are cut at records, lines or row groups, small ones are put together."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from corpusmill.pipeline.ingest.files import open_file
from corpusmill.pipeline.ingest.formats import Source
from corpusmill.pipeline.ingest.jsonl import line_starts
from corpusmill.pipeline.ingest.parquet import group_bytes, open_groups
from corpusmill.pipeline.ingest.warc import CUTTABLE, read_records
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.stage import Piece

MIB = 1 << 20
#: An input is cut into about this many pieces, so that all workers have something to do, unless they would be tiny.
PIECES = 16
SMALLEST = 4 * MIB


@dataclass(frozen=True)
class Segment:
    """A part of one source: bytes `[start, end)`, or row groups of Parquet; all of it where it is one stream."""

    format: str
    layout: str
    start: int
    end: int
    bytes: int
    rule: str = ""  # of a file that can't be read, with format `refused`
    reason: str = ""
    wat: str = ""  # of a WET file: what its WAT file says, a file in the run
    wat_sha256: str = ""


def piece_bytes(sources: list[Source], piece_mb: int) -> int:
    """The size of a piece for these sources. The number of workers plays no part: it must not change the outputs."""
    total = sum(source.ref.bytes for source in sources)
    return min(piece_mb * MIB, max(SMALLEST, total // PIECES))


def needs_index(source: Source, target: int) -> bool:
    """Whether a WARC or ARC is so large that it has to be cut, which takes a walk over its records first."""
    return source.format in ("warc", "arc") and source.layout in CUTTABLE and 2 * source.ref.bytes > 3 * target


def record_starts(
    path: str, format: str, layout: str, size: int, step: int, by_hand: bool = False, on_record: Callable[[], None] = lambda: None
) -> list[int]:
    """Places in a WARC or ARC where a record begins, about every `step` bytes: 0, ..., size. `by_hand`: see `read_records`."""
    places = [0]
    with open_file(path) as file:
        for part in read_records(file, format, layout, 0, size, 0, by_hand):
            on_record()
            if part.offset >= places[-1] + step:
                places.append(part.offset)
    return [*places, size]


def segments_of(source: Source, target: int, starts: list[int] | None = None, wat: tuple[str, str] = ("", "")) -> list[Segment]:
    """The parts of one source, in order. `starts`: where a large WARC can be cut (`record_starts`); `wat`: what is joined to it."""
    size = source.ref.bytes
    if source.format == "parquet":
        return _row_groups(source, target)
    if source.format == "jsonl" and source.layout == "plain" and 2 * size > 3 * target:
        with open_file(source.ref.path) as file:
            starts = line_starts(file, size, target)
    starts = starts or [0, size]
    return [Segment(source.format, source.layout, a, b, b - a, wat=wat[0], wat_sha256=wat[1]) for a, b in pairwise(starts)]


def _row_groups(source: Source, target: int) -> list[Segment]:
    with open_file(source.ref.path) as file:
        sizes = group_bytes(open_groups(source.ref.path, file))
    segments: list[Segment] = []
    first = gathered = 0
    for group, size in enumerate(sizes):
        gathered += size
        if gathered >= target or group == len(sizes) - 1:
            segments.append(Segment("parquet", "plain", first, group + 1, gathered))
            first, gathered = group + 1, 0
    return segments


def pack(parts: list[tuple[FileRef, Segment]], target: int) -> list[Piece]:
    """Pieces `part-00000`, ... of consecutive segments, each up to about `target` bytes."""
    groups: list[list[tuple[FileRef, Segment]]] = []
    size = 0
    for ref, segment in parts:
        if not groups or size + segment.bytes > target:
            groups.append([])
            size = 0
        groups[-1].append((ref, segment))
        size += segment.bytes
    return [_piece(number, group) for number, group in enumerate(groups)]


def _piece(number: int, group: list[tuple[FileRef, Segment]]) -> Piece:
    params: dict[str, Any] = {"segments": [asdict(segment) for _, segment in group]}
    return Piece(f"part-{number:05d}", tuple(ref for ref, _ in group), params)
