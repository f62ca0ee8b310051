"""`raw`: writes the original record of a document, read again from its crawl file."""

import sys
from collections.abc import Iterable
from typing import Any

from corpusmill.ingest.charset import decode_text
from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.html import TooDeep
from corpusmill.ingest.html.blocks import page_blocks
from corpusmill.ingest.original import NO_RECORDS, ROWS, Original, original_of, read_stretch
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.safe import safe_line, safe_text
from corpusmill.pipeline.storage import is_remote
from corpusmill.report.answers.why_find import resolve
from corpusmill.report.queries.language_model import lineage
from corpusmill.report.query.run import Run
from corpusmill.report.read import NO_PAGE, RunReader
from corpusmill.report.sources import check_source

COLUMNS = ("id", "url", "source", "offset", "length", "record_type", "encoding", "failed", "reason")
#: The rules that drop a page after its blocks were found.
READ = {"empty_text", "only_scripts", "no_main_text", "page_type", "too_short"}


def raw(folder: str, document: str, part: str = "record", fetch: bool = False) -> None:
    """Writes a record to standard output: all of it, its `head`, its decoded `body`, the `text` that ingest extracted, or the
    `blocks` of the page: + before the lines that are in the text, - before the others.

    `document`: a URL, an id, or the beginning of one, of any input record, kept or dropped. The bytes are those of the crawl, decompressed;
    on a terminal without control sequences. Only files that the run has read are opened, and files on another server only with `fetch`.
    Raises InputError.
    """
    reader = RunReader(folder)
    row = _row(reader, folder, document)
    write(_text(reader, row) if part == "text" else _parts(reader, row, part, fetch))


def _row(reader: RunReader, folder: str, document: str) -> dict[str, Any]:
    """Returns the report row of the document: among records of one URL the page, among equal documents the first."""
    if not reader.stages["ingest"].outputs("report/"):
        raise InputError(f"{folder}: no stage of this run has read a crawl yet.")
    with Run(reader) as run:
        ids = resolve(run, ["ingest"], document)
        written = "" if ids else lineage(run, document)
    rows = [row for id_ in ids for row in reader.rows(reader.find("ingest", "report", "id", [id_])[:1], COLUMNS)]
    if len(rows) > 1:
        rows = [row for row in rows if row["failed"] != [NO_PAGE]] or rows
    if not rows:
        why = f"; {safe_line(written, 600)}" if written else ""
        raise InputError(f"{folder}: nothing that was ingested has the id or URL {safe_line(document, 200)!r}{why}.")
    if len(rows) > 1:
        some = ", ".join(row["id"] for row in rows[:4])
        raise InputError(f"{safe_line(document, 200)}: {len(rows):,} records of this run have this URL; give the id of one ({some}).")
    return rows[0]


def _parts(reader: RunReader, row: dict[str, Any], part: str, fetch: bool) -> Iterable[bytes]:
    check_source(reader, row["source"], fetch)
    if row["record_type"] in NO_RECORDS and row["offset"] is not None and part == "record":
        return read_stretch(row["source"], row["offset"], row["length"] or 0)
    if part == "head" and row["record_type"] in ROWS:
        raise InputError(f"{safe_line(row['source'], 300)}: a {row['record_type']} has no headers.")
    if part == "blocks":
        return [f"{'+' if kept else '-'} {line}\n".encode() for text, kept in blocks(reader, row, fetch) for line in text.splitlines()]
    original = _original(reader, row)
    return [_body(original, row) if part == "body" else original.content[: original.head] if part == "head" else original.content]


def _original(reader: RunReader, row: dict[str, Any]) -> Original:
    """Reads the record of a row of the ingest report again."""
    where = safe_line(row["source"], 300)
    if row["record_type"] in NO_RECORDS:
        raise InputError(f"{where}: there is no such part ({safe_line(row['reason'] or 'no record', 300)}).")
    try:
        return original_of(row, _config(reader))
    except InputError as error:
        if is_remote(row["source"]) or row["source"].startswith("/") or "can't be read" not in str(error):
            raise
        raise InputError(f"{where}: no such file here; its path is relative to the folder in which the run was started.") from error


def _config(reader: RunReader) -> IngestConfig:
    try:
        return IngestConfig.model_validate(reader.description["recipe"]["ingest"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{reader.storage.path('run.json')}: it has no usable configuration of ingest.") from error


def _body(original: Original, row: dict[str, Any]) -> bytes:
    if original.body is None:
        raise InputError(f"{row['id']}: its body decompresses to more than ingest lets through (extraction.max_decoded_mb, max_expansion).")
    return original.body


def blocks(reader: RunReader, row: dict[str, Any], fetch: bool = False) -> list[tuple[str, bool]]:
    """Returns the blocks of a page in order, each with whether the extraction kept it. `row`: of the ingest report, with `COLUMNS`.

    Only a page that ingest has read to its end is parsed again. Raises InputError.
    """
    check_source(reader, row["source"], fetch)
    config = _config(reader).extraction
    if row.get("record_type") not in ("response", "html") or row.get("encoding") is None or not {*row["failed"]} <= READ:
        raise InputError(f"{row['id']}: ingest has not cut it into blocks.")
    if config.extractor != "lexbor":
        raise InputError(f"{row['id']}: {config.extractor} does not say which blocks of a page it keeps.")
    text = decode_text(_body(_original(reader, row), row), row["encoding"])
    try:
        return page_blocks(text.text.encode(), row["url"], config)
    except TooDeep as error:
        raise InputError(f"{row['id']}: its elements nest too deeply.") from error


def _text(reader: RunReader, row: dict[str, Any]) -> Iterable[bytes]:
    places = reader.find("ingest", "data", "id", [row["id"]])[:1]
    if not places:
        raise InputError(f"{row['id']}: it was dropped, so it has no text ({safe_line(row['reason'] or ', '.join(row['failed']), 300)}).")
    return [str(reader.row(places[0], ["text"])["text"]).encode()]


def write(chunks: Iterable[bytes]) -> None:
    """Writes bytes to standard output: unchanged, or on a terminal as text without control sequences."""
    if sys.stdout.isatty():
        print(safe_text(b"".join(chunks).decode("utf-8", "replace")))
        return
    for chunk in chunks:
        sys.stdout.buffer.write(chunk)
    sys.stdout.flush()
