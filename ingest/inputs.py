"""Turns the inputs of a run (files, folders, globs, URLs) into tasks: finds the files, and cuts them into balanced segments.

Large files are cut at records, lines or row groups; small files are put together in one task.
"""

import shlex
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, TypeAlias

from corpusmill.ingest.archive_walk import examine
from corpusmill.ingest.warc import CUTTABLE, SURE, first_start, read_records
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import file_refs, listed, local_path, open_file
from corpusmill.pipeline.formats.detect import KNOWN, Ignored, InputFile, Refused
from corpusmill.pipeline.formats.streams import Window
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.stage import Task
from corpusmill.pipeline.storage import is_remote, printable


@dataclass
class Discovery:
    """The files of the inputs: those to read (`sources`), those that should hold data but can't be read (`refused`), and those left out."""

    sources: list[InputFile] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)

    def add(self, result: InputFile | Refused | Ignored) -> None:
        if isinstance(result, InputFile):
            self.sources.append(result)
        elif isinstance(result, Refused):
            self.refused.append(result)
        else:
            self.ignored.append(result)


#: A function that finds the format of each file.
Look: TypeAlias = Callable[[list[FileRef]], Iterable[InputFile | Refused | Ignored]]


def discover(
    inputs: list[str],
    run: str = "",
    look: Look = lambda refs: map(examine, refs),
    find: Callable[[str], dict[str, FileRef | None]] = listed,
) -> Discovery:
    """Finds the files of each input with `find`, and their formats with `look`. Leaves out files in the run folder `run`
    that no input names.

    Raises InputError if an input does not exist or no file can be read.
    """
    if not inputs:
        raise InputError("ingest: no input was given; name a file, a folder or a glob.")
    files: dict[str, FileRef | None] = {}
    explicit: set[str] = set()
    for given in inputs:
        paths = {path: ref for path, ref in find(given).items() if path == given or not (run and _inside(path, run))}
        if not paths:
            raise InputError(f"{given}: there is nothing in it.")
        explicit.update([given] if list(paths) == [given] else [])
        files |= {path: ref for path, ref in paths.items() if path not in files}
    found = _found(files, explicit, look)
    if not found.sources:
        raise InputError(_nothing(inputs, found))
    return found


def _inside(path: str, folder: str) -> bool:
    """Whether a file lies in a folder; both are local paths or URLs."""
    path, folder = (given if is_remote(given) else str(Path(local_path(given)).absolute()) for given in (path, folder))
    return path.startswith(folder.rstrip("/") + "/")


def _found(files: dict[str, FileRef | None], explicit: set[str], look: Look) -> Discovery:
    readable = [path for path in files if printable(path) == path and (path in explicit or not Path(path).name.startswith((".", "_")))]
    unknown = [path for path in readable if files[path] is None]
    refs = {path: files[path] for path in readable} | dict(zip(unknown, file_refs(unknown)))
    for path, ref in refs.items():
        if isinstance(ref, InputError) and (path in explicit or is_remote(path)):
            raise ref
    results = iter(look([ref for ref in refs.values() if isinstance(ref, FileRef)]))
    found = Discovery()
    for path in files:
        if (shown := printable(path)) != path:
            reason = f"{shown}: its name is not UTF-8, so no report could name it; rename it to have it read."
            found.add(Refused(FileRef(shown, "", 0), "unreadable", reason))
        elif path not in refs:
            found.add(Ignored(path))
        elif isinstance(ref := refs[path], FileRef):
            found.add(_named(ref, next(results)) if path in explicit else next(results))
        else:  # a link to nothing, or a file that has just gone
            found.add(Refused(FileRef(path, "", 0), "unreadable", str(ref)))
    return found


def _named(ref: FileRef, result: InputFile | Refused | Ignored) -> InputFile | Refused:
    """Returns the format of a file that the user has named: what would be ignored in a folder is refused."""
    if not isinstance(result, Ignored):
        return result
    if not ref.bytes:
        return Refused(ref, "empty_file", f"{ref.path}: there is nothing in it.")
    return Refused(ref, "wrong_format", f"{ref.path}: not a {KNOWN} file{_next_step(ref.path)}.")


def _next_step(path: str) -> str:
    """Returns how a PDF becomes a file that can be read, as the end of a message; empty for other files."""
    if Path(path).suffix.lower() != ".pdf":
        return ""
    return f"; write its text to one first, for example with: {shlex.join(['pdftotext', path, str(Path(path).with_suffix('.txt'))])}"


def _nothing(inputs: list[str], found: Discovery) -> str:
    if len(found.refused) == 1:
        return found.refused[0].reason
    where = ", ".join(map(printable, inputs[:3])) + (", ..." if len(inputs) > 3 else "")
    if found.refused:
        return f"{where}: none of {len(found.refused)} files can be read; the first: {found.refused[0].reason}"
    return f"{where}: no {KNOWN} file in it ({len(found.ignored)} other files){_next_step(found.ignored[0].path) if found.ignored else ''}."


MIB = 1 << 20
#: Small inputs are cut into about this many tasks, so that all workers have one, but not into tasks of less than SMALLEST bytes.
TASKS = 16
SMALLEST = 4 * MIB
#: An indexing task walks a range of a large WARC that is later cut into about this many tasks.
INDEXED = 4


@dataclass(frozen=True)
class Segment:
    """A part of one file: its bytes `[start, end)`, or its row groups for Parquet. A file that is one compressed stream has one segment.

    In a WARC or ARC with a gzip member for each record, both may be any places: the records between `sure_start` of both are meant.
    """

    format: str
    layout: str
    start: int
    end: int
    bytes: int
    rule: str = ""  # for a file that can't be read (format `refused`): the rule that it fails, and the reason
    reason: str = ""


def task_bytes(sources: list[InputFile], task_mb: int) -> int:
    """Returns the size of a task for these files. It does not depend on the number of workers, which must not change the outputs."""
    total = sum(source.ref.bytes for source in sources)
    return min(task_mb * MIB, max(SMALLEST, total // TASKS))


def needs_index(source: InputFile, target: int) -> bool:
    """Whether a file is a WARC or ARC that is large enough to be cut, but only after a walk over its records."""
    archive = source.format in ("warc", "arc") and source.layout in CUTTABLE
    return archive and source.layout != SURE and _is_large(source, target)


def _is_large(source: InputFile, target: int) -> bool:
    return 2 * source.ref.bytes > 3 * target


def even_edges(size: int, step: int) -> list[int]:
    """Returns `[0, step, 2 * step, ..., size]`; the last range has half a step to one and a half."""
    return [*range(0, max(1, size - step // 2), step), size]


def index_ranges(size: int, target: int) -> list[tuple[int, int]]:
    """Returns the ranges of a large file, each of which one task indexes."""
    return list(pairwise(even_edges(size, INDEXED * target)))


@dataclass(frozen=True)
class RangeIndex:
    """The places at which a range of a file can be cut."""

    first: int  # where the first record seems to begin: found by searching, so it may be wrong (in a page that holds a WARC)
    places: list[int]
    landed: int  # where the walk from `first` ended: the first record at or after the end of the range


#: The index of a range that can't be walked: it fits no other range, and has no places.
UNKNOWN = RangeIndex(-1, [], -2)


def index_range(
    path: str,
    format: str,
    layout: str,
    start: int,
    end: int,
    step: int,
    without_fastwarc: bool = False,
    on_record: Callable[[], None] = lambda: None,
) -> RangeIndex:
    """Walks the records that begin in `[start, end)`; returns places about every `step` bytes. `without_fastwarc`: see `read_records`."""
    with open_file(path) as file:
        first = first_start(file, format, layout, start)
        places, landed = [first], first
        for part in read_records(file, format, layout, first, end, 0, without_fastwarc) if first < end else ():
            on_record()
            if part.offset >= places[-1] + step:
                places.append(part.offset)
            landed = part.offset + part.length
    return RangeIndex(first, places, landed)


def joined(ranges: list[RangeIndex], size: int) -> list[int] | None:
    """Returns the places at which a file can be cut: 0, ..., size; or None if the ranges do not fit together.

    They fit if each range begins where the walk over the range before it ended. Then each place is the beginning of a record, because the
    first range begins at one, and a walk goes from record to record.
    """
    if any(one.landed != other.first for one, other in pairwise(ranges)):
        return None
    return sorted({place for one in ranges for place in one.places} | {0, size})


def segments_of(source: InputFile, target: int, starts: list[int] | None = None) -> list[Segment]:
    """Returns the segments of one file, in order. `starts`: the places at which a large WARC can be cut (`joined`)."""
    size = source.ref.bytes
    if source.format == "parquet":
        return _row_groups(source, target)
    if source.layout == SURE and _is_large(source, target):
        starts = even_edges(size, target)
    elif source.format == "jsonl" and source.layout == "plain" and _is_large(source, target):
        with open_file(source.ref.path) as file:
            starts = line_starts(file, size, target)
    starts = starts or [0, size]
    return [Segment(source.format, source.layout, a, b, b - a) for a, b in pairwise(starts)]


def line_starts(file: IO[bytes], size: int, step: int) -> list[int]:
    """Returns places at which a line begins, about every `step` bytes: 0, ..., size."""
    places = [0]
    while places[-1] + step < size:
        place = places[-1] + step
        file.seek(place - 1)  # one byte before, to find a line that begins exactly at `place`
        window = Window(file, place - 1)
        found = window.seek_pattern(b"\n")
        if not found or window.position + 1 >= size:
            break
        places.append(window.position + 1)
    return [*places, size] if size else [0]


def _row_groups(source: InputFile, target: int) -> list[Segment]:
    segments: list[Segment] = []
    first = gathered = 0
    for group, size in enumerate(source.groups):
        gathered += size
        if gathered >= target or group == len(source.groups) - 1:
            segments.append(Segment("parquet", "plain", first, group + 1, gathered))
            first, gathered = group + 1, 0
    return segments


def pack(parts: list[tuple[FileRef, Segment]], target: int) -> list[Task]:
    """Returns tasks `part-00000`, ... of consecutive segments, each of up to about `target` bytes."""
    groups: list[list[tuple[FileRef, Segment]]] = []
    size = 0
    for ref, segment in parts:
        if not groups or size + segment.bytes > target:
            groups.append([])
            size = 0
        groups[-1].append((ref, segment))
        size += segment.bytes
    return [_task(number, group) for number, group in enumerate(groups)]


def _task(number: int, group: list[tuple[FileRef, Segment]]) -> Task:
    params: dict[str, Any] = {"segments": [asdict(segment) for _, segment in group]}
    return Task(f"part-{number:05d}", tuple(ref for ref, _ in group), params)
