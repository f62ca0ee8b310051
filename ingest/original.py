"""The original of a report row: the record as its source has it, and what the stage made its id from."""

import codecs
import io
import json
import re
from dataclasses import dataclass
from typing import Any

from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.jsonl import line_row
from corpusmill.ingest.pages import MIB, payload_of
from corpusmill.ingest.payload import TooLarge
from corpusmill.ingest.record import read_record
from corpusmill.ingest.records import Record
from corpusmill.ingest.single import TYPES
from corpusmill.ingest.warc import read_records
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.formats.detect import NEWLINES, WARC_MAGIC
from corpusmill.pipeline.formats.streams import Line
from corpusmill.pipeline.schemas import document_id

#: A record is held in memory up to this size, decompressed (bytes).
LARGEST = 512 * MIB
#: Record types of the report that are no records of a web archive.
ROWS = ("line", "row")
NO_RECORDS = ("damage", "file")
LINE_END = re.compile(rb"\n")
BLANK_LINE = re.compile(rb"\r?\n\r?\n")


@dataclass(frozen=True)
class Original:
    """A record: all of it, where its headers end (0 where it has none), and its payload with HTTP's encodings undone (None
    where that is more than the limits of ingest let through)."""

    content: bytes
    head: int
    body: bytes | None


def original_of(row: dict[str, Any], config: IngestConfig) -> Original:
    """The original of a row of the ingest report (`source`, `offset`, `length`, `record_type`, `url`, `id`).

    Raises InputError where the file is gone or no longer holds, at that place, a record that gives the row's id.
    """
    content = read_record(row["source"], row["offset"], row["length"], LARGEST)
    limit = config.extraction.max_record_mb * MIB
    if row["record_type"] in ROWS:
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
            record.body = part[head : start + record.size]  # all of it
            return Original(part, head, _payload(record, config))
    raise _another(row)


def _another(row: dict[str, Any]) -> InputError:
    return InputError(f"{row['source']}: at byte {row['offset']} lies another record than the one that was ingested.")


def _is_line(content: bytes, row: dict[str, Any], config: IngestConfig) -> bool:
    line = Line(row["offset"], row["length"], content[: config.extraction.max_record_mb * MIB], True)
    start = line.content.removeprefix(codecs.BOM_UTF8) if line.offset == 0 else line.content
    return line_row(row["source"], line, start, config).id == row["id"]


def _text_of(content: bytes, config: IngestConfig) -> bytes:
    """What a line or row has as its text."""
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError):
        return content
    text = fields.get(config.text_key) if isinstance(fields, dict) else None
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else b""


def _payload(record: Record, config: IngestConfig) -> bytes | None:
    try:
        return payload_of(record, config).body
    except TooLarge:
        return None


def _gives_id(record: Record, row: dict[str, Any], config: IngestConfig) -> bool:
    """Whether this is the record of the row: the id is made from the decoded body of a page, and from the body as it came
    (up to the limit of a record) of what was dropped before."""
    return row["id"] in (document_id(record.url, body) for body in (record.body, _payload(record, config) or b""))


def _heads(part: bytes, record: Record, format: str) -> tuple[int, int]:
    """Where the archive's header of a record ends, and where that of HTTP behind it."""
    archive = (BLANK_LINE if format == "warc" else LINE_END).search(part)
    start = archive.end() if archive else 0
    if record.whole:
        return start, start + record.size - len(record.body)
    http = BLANK_LINE.search(part, start) if record.status is not None else None
    return start, http.end() if http else start
