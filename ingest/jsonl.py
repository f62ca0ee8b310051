"""JSONL: the lines of a file or of a range of it, each with its place, and their rows."""

import contextlib
import json
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import IO, Any

from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.fields import fill_row
from corpusmill.ingest.pages import MIB, gap_row
from corpusmill.ingest.rows import Row, Work
from corpusmill.ingest.walk import Gap
from corpusmill.pipeline.formats.compressed import Inflating, inflating
from corpusmill.pipeline.formats.streams import Line, RangeFile, Window, split_lines
from corpusmill.pipeline.schemas import document_id


def line_starts(file: IO[bytes], size: int, step: int) -> list[int]:
    """Places where a line begins, about every `step` bytes: 0, ..., size."""
    places = [0]
    while places[-1] + step < size:
        place = places[-1] + step
        file.seek(place - 1)  # a line that begins exactly here is found too
        window = Window(file, place - 1)
        found = window.seek_pattern(b"\n")
        if not found or window.position + 1 >= size:
            break
        places.append(window.position + 1)
    return [*places, size] if size else [0]


def read_jsonl(source: str, file: IO[bytes], layout: str, start: int, end: int, config: IngestConfig) -> Iterator[Work]:
    """A row for every line that is not blank, and one for the rest of a damaged compressed file."""
    stream = RangeFile(file, start, end) if layout == "plain" else inflating(file, layout)
    window = Window(stream, start if layout == "plain" else 0)
    limit = config.extraction.max_record_mb * MIB
    for line in split_lines(window, limit):
        if isinstance(stream, Inflating) and stream.fault and not line.ended:
            yield Work.of(gap_row(source, Gap(line.offset, line.length, stream.fault, _damage(stream.fault, line.offset))))
            return
        content = line.content.removeprefix(b"\xef\xbb\xbf") if line.offset == 0 else line.content
        if content.strip():
            yield Work(partial(line_row, source, line, content, config), partial(_unread_row, source, line, content))
    if isinstance(stream, Inflating) and stream.fault:
        yield Work.of(gap_row(source, Gap(window.position, 0, stream.fault, _damage(stream.fault, window.position))))


def _damage(fault: str, offset: int) -> str:
    what = "ends before its time" if fault == "truncated" else "is damaged"
    return f"the compressed stream {what} behind byte {offset} of its content"


def _unread_row(source: str, line: Line, content: bytes) -> Row:
    return Row(document_id(f"{source}#{line.offset}", content), source, line.offset, line.length, "line", line.length)


def line_row(source: str, line: Line, content: bytes, config: IngestConfig) -> Row:
    row = _unread_row(source, line, content)
    if len(line.content) < line.length:
        return row.fail("too_large", f"the line has {line.length} bytes, more than extraction.max_record_mb")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        return row.fail("invalid_utf8", f"byte {error.start} of the line is not UTF-8")
    try:
        fields: Any = json.loads(text, parse_constant=lambda _: None)
    except RecursionError:
        return row.fail("not_json", "it nests too deeply")
    except ValueError as error:
        return row.fail("not_json", f"not JSON ({str(error)[:100]})")
    if not isinstance(fields, dict):
        return row.fail("not_json", "not a JSON object")
    return fill_row(row, fields, config)


def first_keys(file: IO[bytes], layout: str, size: int, limit: int) -> list[str]:
    """The keys of the first line that is a JSON object; none where that is not among the first 100."""
    stream = RangeFile(file, 0, size) if layout == "plain" else inflating(file, layout)
    for line in islice(split_lines(Window(stream, 0), limit), 100):
        with contextlib.suppress(ValueError, RecursionError):
            fields = json.loads(line.content.removeprefix(b"\xef\xbb\xbf"))
            if isinstance(fields, dict):
                return list(fields)
    return []
