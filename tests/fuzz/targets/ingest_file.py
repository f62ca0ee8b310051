"""Fuzzes all of ingest with a file of any kind: rows with an id and a decision, or one sentence; documents that Parquet can hold."""

import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
from fuzzing import choose, choosing, scratch
from targets.records import ARC, warc

from corpusmill.ingest.archive_walk import examine
from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.formats import SegmentReader
from corpusmill.ingest.inputs import segments_of
from corpusmill.ingest.pages import warm_up
from corpusmill.ingest.rows import RowTables
from corpusmill.pipeline.files import file_ref
from corpusmill.pipeline.formats.detect import InputFile

NAMES = ["x.warc", "x.arc", "x.jsonl", "x.parquet", "x.html", "x.txt", "x.warc.gz", "x.jsonl.zst", "x.html.lz4", "x.unknown"]
PAGE = (
    b"<!doctype html><title>A page</title><meta charset=utf-8><body><p>"
    + b"Words of a text that is long enough. " * 4
    + b"<a href=x>link</a>"
)


def seeds() -> list[bytes]:
    warm_up(IngestConfig().extraction)
    rows = [{"text": "Some text.", "url": "http://host.test/", "more": {"a": [1, None]}}, {"text": "Ünïcode \u2028 line", "title": "T"}]
    table = io.BytesIO()
    pq.write_table(pa.table({"text": ["Some text.", "more"], "url": ["http://host.test/", None], "number": [1, 2]}), table)
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    contents = [
        b"".join(warc()),
        ARC,
        lines,
        table.getvalue(),
        PAGE,
        b"A text.\n",
        b"".join(map(gzip.compress, warc())),
        lines,
        PAGE,
        lines,
    ]
    return [choosing(place, content) for place, content in enumerate(contents)]


def fuzz(data: bytes) -> None:
    name, content = choose(data, NAMES)
    path = scratch() / name
    path.write_bytes(content)
    source = examine(file_ref(str(path)))
    if not isinstance(source, InputFile):
        return
    reader, tables = SegmentReader(IngestConfig(), {}), RowTables(IngestConfig().documents)
    for segment in segments_of(source, 1 << 24):
        for work in reader.pending_rows(str(path), len(content), segment):
            row = work.row()
            assert row.id and (row.kept or row.reasons), row
            tables.add(row)
    for table in (tables.documents(), tables.report()):
        table.validate(full=True)
        pq.write_table(table, pa.BufferOutputStream())
