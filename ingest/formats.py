"""Reads the segments of a task: records of WARC and ARC, lines of JSONL, rows of CSV and Parquet, and files that are one page or text.

Finding a record and extracting it are two steps (`PendingRow`), because either may kill the process.
"""

import base64
import contextlib
import datetime
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from itertools import islice
from typing import IO, Any

import pyarrow as pa

from corpusmill.ingest.archive_walk import Gap
from corpusmill.ingest.charset import decode, decode_text
from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.inputs import Segment
from corpusmill.ingest.pages import MIB, check_text, gap_row, record_row, unread_row, warm_up
from corpusmill.ingest.rows import IngestRow, PendingRow, SkipReason
from corpusmill.ingest.urls.filter import UrlFilter, check_url, make_url_filter
from corpusmill.ingest.warc import CUTTABLE, SURE, Fields, Record, read_records, sure_start
from corpusmill.pipeline.config import canonical_json, parse_json
from corpusmill.pipeline.files import open_file
from corpusmill.pipeline.formats.compressed import Inflating, inflating
from corpusmill.pipeline.formats.delimited import DelimitedRow, column_names, split_rows
from corpusmill.pipeline.formats.parquet import is_text, open_parquet
from corpusmill.pipeline.formats.streams import RangeFile, TextLine, Window, split_lines
from corpusmill.pipeline.schemas import document_id
from corpusmill.text.damage import storable


def fill_row(row: IngestRow, fields: dict[str, Any], config: IngestConfig) -> IngestRow:
    """Moves text, URL, title, author and dates from `fields` to `row`; the other fields become its metadata.

    All but the text may also be in an object `metadata`, where datatrove and dolma write them.
    """
    text = fields.get(config.text_key)
    inner = fields.get("metadata")
    nested: dict[str, Any] = inner if isinstance(inner, dict) else {}
    taken = {config.text_key}

    def string(key: str) -> str | None:
        value = fields.get(key)
        if isinstance(value, str | datetime.date):
            taken.add(key)
            return storable(value if isinstance(value, str) else value.isoformat())
        return storable(nested[key]) if isinstance(nested.get(key), str) else None

    row.url, row.title, row.timestamp = string(config.url_key), string(config.title_key), string(config.timestamp_key)
    row.author, row.date, row.license = string(config.author_key), string(config.date_key), string(config.license_key)
    given = fields.get(config.id_key)
    origin = row.url if row.url is not None or given is None else str(given)
    rest = {key: value for key, value in fields.items() if key not in taken and value is not None}
    row.metadata = storable(canonical_json(jsonable(rest))) if rest else None
    if not isinstance(text, str):
        row.id = document_id(origin, b"")
        what = f"its {config.text_key} is no text" if text is not None else f"it has no {config.text_key}"
        return row.fail("no_text", what)
    row.id = document_id(origin, text.encode("utf-8", "surrogatepass"))
    row.chars_in, row.text, row.encoding = len(text), storable(text), "utf-8"
    check_text(row, config.extraction.minimum_chars)
    return row


def jsonable(value: Any) -> Any:
    """Returns `value` with replacements for all that JSON can't hold: ISO 8601 for dates, base64 for bytes, null for NaN."""
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta | Decimal):
        return str(value)
    return value


def read_lines(source: str, file: IO[bytes], format: str, layout: str, start: int, end: int, config: IngestConfig) -> Iterator[PendingRow]:
    """Yields a row for each line of JSONL or row of CSV that is not blank, and one for the rest of a damaged compressed file."""
    stream = RangeFile(file, start, end) if layout == "plain" else inflating(file, layout)
    window = Window(stream, start if layout == "plain" else 0)
    limit = config.extraction.max_record_mb * MIB
    rows = split_rows(source, window, limit) if format == "csv" else None
    names = column_names(next(rows)) if rows else []
    for line in rows or split_lines(window, limit):
        if isinstance(stream, Inflating) and stream.fault and not line.ended:
            yield PendingRow.of(gap_row(source, Gap(line.offset, line.length, stream.fault, _damage(stream.fault, line.offset))))
            return
        content = line.content.removeprefix(b"\xef\xbb\xbf") if line.offset == 0 else line.content
        if isinstance(line, DelimitedRow):
            yield PendingRow(partial(delimited_row, source, line, names, config), partial(_unread_line, source, line, content, "row"))
        elif content.strip():
            yield PendingRow(partial(line_row, source, line, content, config), partial(_unread_line, source, line, content))
    if isinstance(stream, Inflating) and stream.fault:
        yield PendingRow.of(gap_row(source, Gap(window.position, 0, stream.fault, _damage(stream.fault, window.position))))


def _damage(fault: str, offset: int) -> str:
    what = "ends early" if fault == "truncated" else "is damaged"
    return f"the compressed stream {what} after byte {offset} of its content"


def _unread_line(source: str, line: TextLine, content: bytes, kind: str = "line") -> IngestRow:
    return IngestRow(document_id(f"{source}#{line.offset}", content), source, line.offset, line.length, kind, line.length)


def line_row(source: str, line: TextLine, content: bytes, config: IngestConfig) -> IngestRow:
    row = _unread_line(source, line, content)
    if len(line.content) < line.length:
        return row.fail("too_large", f"the line has {line.length} bytes, more than extraction.max_record_mb")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        return row.fail("invalid_utf8", f"byte {error.start} of the line is not UTF-8")
    try:
        fields: Any = parse_json(text, parse_constant=lambda _: None)
    except ValueError as error:
        return row.fail("not_json", f"not JSON ({str(error)[:100]})")
    if not isinstance(fields, dict):
        return row.fail("not_json", "not a JSON object")
    return fill_row(row, fields, config)


def delimited_row(source: str, given: DelimitedRow, names: Sequence[str], config: IngestConfig) -> IngestRow:
    """Returns a row of CSV or TSV. Its bytes are read as UTF-8, else in the encoding that they seem to have."""
    row = _unread_line(source, given, given.content, "row")
    if len(given.content) < given.length:
        return row.fail("too_large", f"the row has {given.length} bytes, more than extraction.max_record_mb")
    if given.fault or len(given.fields) != len(names):
        return row.fail("not_csv", given.fault or f"it has {len(given.fields)} fields, and the first line has {len(names)}")
    encoding = decode_text(given.content, None, html=False).encoding
    fields = {name: decode(value.encode("latin-1"), encoding) for name, value in zip(names, given.fields, strict=True)}
    row = fill_row(row, {name: value for name, value in fields.items() if value or name == config.text_key}, config)
    row.encoding = row.encoding and encoding
    return row


def first_keys(file: IO[bytes], layout: str, size: int, limit: int) -> list[str]:
    """Returns the keys of the first line that is a JSON object, or none if the first 100 lines have no object."""
    stream = RangeFile(file, 0, size) if layout == "plain" else inflating(file, layout)
    for line in islice(split_lines(Window(stream, 0), limit), 100):
        with contextlib.suppress(ValueError):
            fields = parse_json(line.content.removeprefix(b"\xef\xbb\xbf"))
            if isinstance(fields, dict):
                return list(fields)
    return []


#: Rows that are converted to Python values at a time.
BATCH_ROWS = 256


def read_groups(source: str, file: IO[bytes], start: int, end: int, config: IngestConfig, skip_reason: SkipReason) -> Iterator[PendingRow]:
    """Yields a row for each row of the row groups `[start, end)`; its `offset` is the number of the row in the file.

    The rest of a row group that can't be read gives one row.
    """
    parquet = open_parquet(source, file)
    number = sum(parquet.metadata.row_group(group).num_rows for group in range(start))
    for group in range(start, end):
        after = number + parquet.metadata.row_group(group).num_rows
        reason: list[str] | None = None
        try:
            batches = parquet.iter_batches(BATCH_ROWS, row_groups=[group], use_threads=False)
            while number < after and not (reason := skip_reason()):
                if (batch := next(batches, None)) is None:
                    break
                for fields in _rows(batch):
                    yield PendingRow(partial(_row, source, number, fields, config), partial(_unread_row, source, number))
                    number += 1
            if reason:
                yield PendingRow.of(
                    gap_row(source, Gap(number, after - number, reason[0], f"row group {group} from row {number} on: {reason[1]}"))
                )
        except MemoryError:
            raise
        except (pa.ArrowException, OSError) as error:
            damage = f"row group {group} is damaged from row {number} on: {after - number} rows ({str(error).splitlines()[0][:200]})"
            yield PendingRow.of(gap_row(source, Gap(number, after - number, "corrupt", damage)))
        number = after


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    columns = {name: _values(batch.column(place)) for place, name in enumerate(batch.schema.names)}
    for place in range(batch.num_rows):
        yield {name: values[place] for name, values in columns.items()}


def _values(column: pa.Array) -> list[Any]:
    """Returns the Python values of a column. Text that is not UTF-8 (Parquet does not check this) is returned as bytes."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        if not is_text(column.type):
            return [None] * len(column)
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        return [_decoded(value) for value in column.cast(pa.large_binary()).to_pylist()]


def _decoded(value: bytes | None) -> str | bytes | None:
    try:
        return value.decode() if value is not None else None
    except UnicodeDecodeError:
        return value


def _unread_row(source: str, number: int) -> IngestRow:
    return IngestRow(document_id(f"{source}#{number}", b""), source, number, None, "row", 0)


def _row(source: str, number: int, fields: dict[str, Any], config: IngestConfig) -> IngestRow:
    text = fields.get(config.text_key)
    size = len(text.encode("utf-8", "surrogatepass")) if isinstance(text, str) else len(text or b"")
    row = IngestRow("", source, number, None, "row", size)
    if isinstance(text, bytes):
        row.id = document_id(f"{source}#{number}", text)
        return row.fail("invalid_utf8", "the text is not UTF-8")
    if size > config.extraction.max_record_mb << 20:
        row.id = document_id(f"{source}#{number}", b"")
        return row.fail("too_large", f"the text has {size} bytes, more than extraction.max_record_mb")
    return fill_row(row, fields, config)


#: The content type of the files of a format.
TYPES = {"html": "text/html", "text": "text/plain"}


def read_single(file: IO[bytes], format: str, layout: str, limit: int) -> Record | Gap:
    """Returns the file as one record of type `html` or `text`, its body cut at `limit` bytes; a Gap where compressed data is damaged."""
    stream = file if layout == "plain" else inflating(file, layout)
    window = Window(stream)
    body = window.take(limit)
    size = len(body) + window.skip(1 << 62)
    if isinstance(stream, Inflating) and stream.fault:
        what = "ends early" if stream.fault == "truncated" else "is damaged"
        return Gap(0, size, stream.fault, f"the compressed stream {what} after byte {size} of its content")
    return Record(0, size, format, size, body, size == len(body), Fields(type=TYPES[format]), None)


class SegmentReader:
    """Reads segments, in the process that may be killed (`reader.py`). `params`: those of the worker."""

    def __init__(self, config: IngestConfig, params: dict[str, Any]):
        self.config = config
        self.params = params
        self.urls: UrlFilter | None = None

    def setup(self) -> None:
        """Loads the extractor and the URL lists. It is called once for each process, so that no page is charged for it."""
        if self.params.get("pages", True):
            warm_up(self.config.extraction)
        if self.config.url_filter is not None:
            self.urls = make_url_filter(self.config.url_filter)
            self.urls.setup(self.params["url_filter"]["lists"])

    def pending_rows(
        self, path: str, size: int, segment: Segment, without_fastwarc: bool = False, skip_reason: SkipReason = lambda: None
    ) -> Iterator[PendingRow]:
        """Yields the records of a segment of a file of `size` bytes, in order. `without_fastwarc`: finds them without FastWARC.

        The part that can't be read is one row: the rest of a row group of Parquet, or the rest of the segment for other formats.
        """
        last: PendingRow | None = None
        if segment.layout == SURE and not skip_reason():
            with open_file(path) as file:
                start, end = (sure_start(file, segment.format, place) for place in (segment.start, segment.end))
            segment = replace(segment, start=start, end=end)
        works = self._pending_rows(path, size, segment, without_fastwarc, skip_reason)
        while segment.format == "parquet" or not (reason := skip_reason()):
            if (work := next(works, None)) is None:
                return
            yield work
            last = work
        yield PendingRow.of(rest_row(path, segment, last and last.unread()).fail(*reason))

    def _pending_rows(
        self, path: str, size: int, segment: Segment, without_fastwarc: bool, skip_reason: SkipReason
    ) -> Iterator[PendingRow]:
        if segment.format == "refused":
            row = IngestRow(document_id(path, b""), path, None, None, "file", size)
            yield PendingRow.of(row.fail(segment.rule, segment.reason))
            return
        with open_file(path) as file:
            if segment.format in ("jsonl", "csv"):
                for work in read_lines(path, file, segment.format, segment.layout, segment.start, segment.end, self.config):
                    yield self._checked(work)
            elif segment.format == "parquet":
                for work in read_groups(path, file, segment.start, segment.end, self.config, skip_reason):
                    yield self._checked(work)
            else:
                for part in self._parts(file, segment, without_fastwarc):
                    if isinstance(part, Gap):
                        yield PendingRow.of(gap_row(path, part))
                    else:
                        extract = partial(record_row, path, part, self.config, self.urls)
                        yield PendingRow(extract, partial(unread_row, path, part))

    def _parts(self, file: IO[bytes], segment: Segment, without_fastwarc: bool) -> Iterator[Record | Gap]:
        limit = self.config.extraction.max_record_mb * MIB
        if segment.format in TYPES:
            yield read_single(file, segment.format, segment.layout, limit)
        else:
            yield from read_records(file, segment.format, segment.layout, segment.start, segment.end, limit, without_fastwarc)

    def _checked(self, work: PendingRow) -> PendingRow:
        """Returns the row with a check of its URL added. Rows of collections need no extraction, so the check can come after the text."""
        return PendingRow(lambda: check_url(work.row(), self.urls), work.unread) if self.urls else work


def rest_row(path: str, segment: Segment, last: IngestRow | None) -> IngestRow:
    """Returns the row for the rest of a segment that can't be read. `last`: the row before it."""
    offset = segment.start if last is None or last.offset is None else last.offset + (last.length or 0)
    length = segment.end - offset if segment.layout in CUTTABLE else None  # unknown for a compressed stream
    return IngestRow(document_id(f"{path}#{offset}", b""), path, offset, length, "damage", length or 0)
