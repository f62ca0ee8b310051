"""A piece of crawl files cut in two, for where it has no room in memory: between segments, or between records of its only one.

A segment means the records that begin in it, so cuts change no row; only where the reading of a damaged file was given up altogether,
the rest of a half is less than the rest of the whole.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from typing import Any

from corpusmill.pipeline.ingest.files import open_file
from corpusmill.pipeline.ingest.parquet import group_bytes, open_groups
from corpusmill.pipeline.ingest.splitting import RangeIndex
from corpusmill.pipeline.ingest.warc import CUTTABLE
from corpusmill.pipeline.ingest.window import Window
from corpusmill.pipeline.stage import Piece

#: Walks the records of a range: of a file (path), where (the other arguments of `index_range`).
Index = Callable[[str, dict[str, Any]], RangeIndex]


def piece_halves(piece: Piece, index: Index) -> tuple[Piece, Piece] | None:
    """The two halves; None where there is but one record, or a stream that has to be read from its beginning."""
    segments, inputs = piece.params["segments"], piece.inputs
    if len(segments) > 1:
        edges = list(accumulate(segment["bytes"] for segment in segments))
        count = 1 + min(range(len(edges) - 1), key=lambda last: abs(2 * edges[last] - edges[-1]))
        parts = (segments[:count], segments[count:]), (inputs[:count], inputs[count:])
    elif (both := _segment_halves(inputs[0].path, segments[0], index)) is not None:
        parts = ([both[0]], [both[1]]), (inputs, inputs)
    else:
        return None
    warnings = piece.params.get("warnings", [])
    first, second = ({**piece.params, "segments": part, "warnings": said} for part, said in zip(parts[0], (warnings, [])))
    return replace(piece, inputs=parts[1][0], params=first), replace(piece, inputs=parts[1][1], params=second)


def _segment_halves(path: str, segment: dict[str, Any], index: Index) -> tuple[dict[str, Any], dict[str, Any]] | None:
    start, end, kind = segment["start"], segment["end"], segment["format"]
    if kind == "parquet":
        with open_file(path) as file:
            sizes = group_bytes(open_groups(path, file))
        middle = (start + end) // 2
        first = sum(sizes[start:middle])
    else:
        middle = _line(path, segment) if kind == "jsonl" else _record(path, segment, index)
        first = middle - start
    if not start < middle < end:
        return None
    return {**segment, "end": middle, "bytes": first}, {**segment, "start": middle, "bytes": segment["bytes"] - first}


def _line(path: str, segment: dict[str, Any]) -> int:
    """Where the first line behind the middle begins; `start` where a compressed file is read from its beginning."""
    start, end = int(segment["start"]), int(segment["end"])
    if segment["layout"] != "plain":
        return start
    with open_file(path) as file:
        place = (start + end) // 2
        file.seek(place)
        window = Window(file, place)
        return window.position + 1 if window.seek_pattern(b"\n") else start


def _record(path: str, segment: dict[str, Any], index: Index) -> int:
    """Where the first record behind the middle begins; `start` where nothing can be cut."""
    start, end = segment["start"], segment["end"]
    if segment["format"] not in ("warc", "arc") or segment["layout"] not in CUTTABLE:
        return int(start)
    where = {name: segment[name] for name in ("format", "layout", "start", "end")}
    found = index(path, {**where, "step": max(1, (end - start) // 2)})
    return found.places[1] if found.first == start and len(found.places) > 1 else int(start)
