"""Balanced pieces: large files are cut at records, lines or row groups, small ones are put together."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from corpusmill.ingest.jsonl import line_starts
from corpusmill.ingest.warc import CUTTABLE, first_start, read_records
from corpusmill.pipeline.files import open_file
from corpusmill.pipeline.formats.detect import InputFile
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.stage import Piece

MIB = 1 << 20
#: An input is cut into about this many pieces, so that all workers have something to do, unless they would be tiny.
PIECES = 16
SMALLEST = 4 * MIB
#: So many pieces of a large WARC are indexed by one task.
INDEXED = 4


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


def piece_bytes(sources: list[InputFile], piece_mb: int) -> int:
    """The size of a piece for these sources. The number of workers plays no part: it must not change the outputs."""
    total = sum(source.ref.bytes for source in sources)
    return min(piece_mb * MIB, max(SMALLEST, total // PIECES))


def needs_index(source: InputFile, target: int) -> bool:
    """Whether a WARC or ARC is so large that it has to be cut, which takes a walk over its records first."""
    return source.format in ("warc", "arc") and source.layout in CUTTABLE and 2 * source.ref.bytes > 3 * target


def index_ranges(size: int, target: int) -> list[tuple[int, int]]:
    """The ranges of a large file that are indexed one by one."""
    step = INDEXED * target
    edges = [*range(0, max(1, size - step // 2), step), size]
    return list(pairwise(edges))


@dataclass(frozen=True)
class RangeIndex:
    """Where a range can be cut: `first` is where its first record seems to begin, found by searching, so it may be a
    mistake (a page that holds a WARC); `landed` is where the walk from there came out, at or behind the range's end."""

    first: int
    places: list[int]
    landed: int


#: A range that can't be walked: it fits to none, and by itself it has no places.
UNKNOWN = RangeIndex(-1, [], -2)


def index_range(
    path: str,
    format: str,
    layout: str,
    start: int,
    end: int,
    step: int,
    by_hand: bool = False,
    on_record: Callable[[], None] = lambda: None,
) -> RangeIndex:
    """Walks the records that begin in `[start, end)`; places about every `step` bytes. `by_hand`: see `read_records`."""
    with open_file(path) as file:
        first = first_start(file, format, layout, start)
        places, landed = [first], first
        for part in read_records(file, format, layout, first, end, 0, by_hand) if first < end else ():
            on_record()
            if part.offset >= places[-1] + step:
                places.append(part.offset)
            landed = part.offset + part.length
    return RangeIndex(first, places, landed)


def joined(ranges: list[RangeIndex], size: int) -> list[int] | None:
    """Where a file can be cut: 0, ..., size; None where a range does not begin where the walk over those before it comes
    out. Where all do, each begins at a record: the first does, and from record to record nothing but records are walked."""
    if any(one.landed != other.first for one, other in pairwise(ranges)):
        return None
    return sorted({place for one in ranges for place in one.places} | {0, size})


def segments_of(source: InputFile, target: int, starts: list[int] | None = None, wat: tuple[str, str] = ("", "")) -> list[Segment]:
    """The parts of one source, in order. `starts`: where a large WARC can be cut (`joined`); `wat`: what is joined to it."""
    size = source.ref.bytes
    if source.format == "parquet":
        return _row_groups(source, target)
    if source.format == "jsonl" and source.layout == "plain" and 2 * size > 3 * target:
        with open_file(source.ref.path) as file:
            starts = line_starts(file, size, target)
    starts = starts or [0, size]
    return [Segment(source.format, source.layout, a, b, b - a, wat=wat[0], wat_sha256=wat[1]) for a, b in pairwise(starts)]


def _row_groups(source: InputFile, target: int) -> list[Segment]:
    segments: list[Segment] = []
    first = gathered = 0
    for group, size in enumerate(source.groups):
        gathered += size
        if gathered >= target or group == len(source.groups) - 1:
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
