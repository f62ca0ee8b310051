"""Reads the original record of a document or report row again, from its place in the crawl."""

import codecs
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import IO, Any

from corpusmill.ingest.archive_walk import FRAMED, examine
from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.formats import TYPES, delimited_row, jsonable, line_row
from corpusmill.ingest.http import TooLarge
from corpusmill.ingest.pages import MIB, payload_of
from corpusmill.ingest.warc import Record, read_records
from corpusmill.pipeline.config import canonical_json, parse_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import file_ref, open_file
from corpusmill.pipeline.formats.compressed import CODECS, Inflating, codec_of, compression_of, inflating
from corpusmill.pipeline.formats.delimited import column_names, split_rows
from corpusmill.pipeline.formats.detect import NEWLINES, WARC_MAGIC, InputFile
from corpusmill.pipeline.formats.parquet import open_parquet
from corpusmill.pipeline.formats.streams import TextLine, Window
from corpusmill.pipeline.schemas import document_id

#: Bytes that are read at a time.
CHUNK = 1 << 20


def read_record(source: str, offset: int | None, length: int | None, limit: int = 1 << 30) -> bytes:
    """Returns the bytes of a record as the crawl has them, decompressed: a WARC or ARC record with its headers, a line of JSONL, a row
    of CSV, or a row of Parquet as JSON. If several records lie in one compressed frame, returns all of them.

    Raises InputError if the file is gone, has changed, or has no such place, or if the record has more than `limit` bytes.
    """
    found = examine(file_ref(source))
    if not isinstance(found, InputFile) or offset is None:
        raise InputError(f"{source}: it holds no record that could be shown again.")
    if found.format == "parquet":
        return _parquet_row(source, offset)
    if length is None:
        raise InputError(f"{source}: a record at byte {offset} needs its length to be shown again.")
    with open_file(source) as file:
        if found.layout in CODECS:
            window = Window(inflating(file, found.layout))
            window.skip(offset)
            content = window.take(length)
            complete = len(content) == length
        else:
            file.seek(offset)
            content = file.read(length)
            complete = len(content) == length
            if found.layout.endswith(FRAMED):
                codec = codec_of(file, found.layout.removesuffix(FRAMED))
                content = _up_to(Inflating(io.BytesIO(content), codec), limit + 1)
    if len(content) > limit:
        raise InputError(f"{source}: the record at byte {offset} has more than {limit} bytes, too many to be shown.")
    if not complete:
        raise InputError(f"{source}: it ends before byte {offset + length}; it is not the file that was ingested.")
    return content


def read_stretch(source: str, offset: int, length: int) -> Iterator[bytes]:
    """Yields the bytes of a damaged stretch of a file, in chunks: as they are in the file, or, if the file is one compressed stream, those
    that can still be decompressed. Raises InputError if the file is gone or has no such stretch."""
    found = examine(file_ref(source))
    if not isinstance(found, InputFile) or found.format == "parquet":
        raise InputError(f"{source}: what is damaged there can't be shown by itself.")
    with open_file(source) as file:
        if found.layout in CODECS:
            window = Window(inflating(file, found.layout))
            window.skip(offset)
        else:
            file.seek(offset)
            window = Window(file)
        while length and (chunk := window.take(min(length, CHUNK))):
            length -= len(chunk)
            yield chunk


def _up_to(stream: IO[bytes] | Inflating, size: int) -> bytes:
    parts: list[bytes] = []
    while size > 0 and (part := stream.read(min(size, CHUNK))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _parquet_row(source: str, number: int) -> bytes:
    with open_file(source) as file:
        parquet = open_parquet(source, file)
        first = 0
        for group in range(parquet.metadata.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            if number < first + rows:
                (row,) = parquet.read_row_group(group, use_threads=False).slice(number - first, 1).to_pylist()
                return canonical_json(jsonable(row)).encode("utf-8", "surrogatepass")
            first += rows
    raise InputError(f"{source}: it has no row {number}; it is not the file that was ingested.")


#: The largest record that can be shown, decompressed (bytes); it is held in memory.
LARGEST = 512 * MIB
#: Record types in the report that come from JSONL, CSV and Parquet (ROWS), and that are not records at all (NO_RECORDS).
ROWS = ("line", "row")
NO_RECORDS = ("damage", "file")
LINE_END = re.compile(rb"\n")
BLANK_LINE = re.compile(rb"\r?\n\r?\n")


@dataclass(frozen=True)
class Original:
    """A record as the crawl has it."""

    content: bytes  # the whole record
    head: int  # where its headers end; 0 where it has none
    body: bytes | None  # its payload with HTTP's encodings undone; None where that exceeds the limits of ingest


def original_of(row: dict[str, Any], config: IngestConfig) -> Original:
    """Returns the original of a row of the ingest report (`source`, `offset`, `length`, `record_type`, `url`, `id`).

    Raises InputError if the file is gone, or no longer has a record with the row's id at that place.
    """
    content = read_record(row["source"], row["offset"], row["length"], LARGEST)
    limit = config.extraction.max_record_mb * MIB
    if row["record_type"] in ROWS:
        if row["record_type"] == "row" and row["length"] is not None:
            return Original(content, 0, _text_of_row(content, row, config))
        if row["record_type"] == "line" and not _is_line(content, row, config):
            raise _another(row)
        return Original(content, 0, _text_of(content, config))
    if row["record_type"] in TYPES:
        if document_id(None, content[:limit]) != row["id"]:
            raise _another(row)
        return Original(content, 0, content)
    format = "warc" if content.lstrip(NEWLINES).startswith(WARC_MAGIC) else "arc"
    for record in read_records(io.BytesIO(content), format, "plain", 0, len(content), limit):
        if isinstance(record, Record) and _gives_id(record, row, config):
            part = content[record.offset : record.offset + record.length]
            start, head = _heads(part, record, format)
            record.body = part[head : start + record.size]  # the whole body, not cut at the limit
            return Original(part, head, _payload(record, config))
    raise _another(row)


def _another(row: dict[str, Any]) -> InputError:
    return InputError(f"{row['source']}: at byte {row['offset']} lies another record than the one that was ingested.")


def _is_line(content: bytes, row: dict[str, Any], config: IngestConfig) -> bool:
    line = TextLine(row["offset"], row["length"], content[: config.extraction.max_record_mb * MIB], True)
    start = line.content.removeprefix(codecs.BOM_UTF8) if line.offset == 0 else line.content
    return line_row(row["source"], line, start, config).id == row["id"]


def _text_of_row(content: bytes, row: dict[str, Any], config: IngestConfig) -> bytes:
    """Returns the text of a row of CSV, in UTF-8. The names of its columns are at the beginning of the file."""
    limit = config.extraction.max_record_mb * MIB
    with open_file(row["source"]) as file:
        compression = compression_of(file.read(4))
        file.seek(0)
        header = next(split_rows(row["source"], Window(inflating(file, compression) if compression else file), limit))
    (again,) = islice(split_rows(row["source"], Window(io.BytesIO(header.content + content), 0), limit), 1, 2)
    made = delimited_row(row["source"], replace(again, offset=row["offset"]), column_names(header), config)
    if made.id != row["id"]:
        raise _another(row)
    return made.text.encode()


def _text_of(content: bytes, config: IngestConfig) -> bytes:
    """Returns the text of a line or row, in UTF-8."""
    try:
        fields = parse_json(content)
    except ValueError:
        return content
    text = fields.get(config.text_key) if isinstance(fields, dict) else None
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else b""


def _payload(record: Record, config: IngestConfig) -> bytes | None:
    try:
        return payload_of(record, config).body
    except TooLarge:
        return None


def _gives_id(record: Record, row: dict[str, Any], config: IngestConfig) -> bool:
    """Whether a record has the id of the row. The id of a page that was decoded is made from the decoded body; for other records, from the
    body as it is in the file (up to the limit of a record)."""
    return row["id"] in (document_id(record.url, body) for body in (record.body, _payload(record, config) or b""))


def _heads(part: bytes, record: Record, format: str) -> tuple[int, int]:
    """Returns where the archive's header of a record ends, and where the HTTP header after it ends."""
    archive = (BLANK_LINE if format == "warc" else LINE_END).search(part)
    start = archive.end() if archive else 0
    if record.whole:
        return start, start + record.size - len(record.body)
    http = BLANK_LINE.search(part, start) if record.status is not None else None
    return start, http.end() if http else start
