"""Fuzzes the WAT record of a page: a row that its table can hold, or nothing."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
from fuzzing import json_mutants
from targets.records import record

from corpusmill.ingest.warc import read_records
from corpusmill.ingest.wat import DESCRIPTIONS, WatIndex, described

LIMIT = 1 << 24

ENVELOPE = {
    "Envelope": {
        "WARC-Header-Metadata": {"WARC-Target-URI": "http://host.test/", "WARC-Date": "2026-01-01T00:00:00Z", "WARC-Record-ID": "<x>"},
        "Payload-Metadata": {
            "HTTP-Response-Metadata": {
                "Response-Message": {"Status": "200"},
                "Headers": {"Content-Type": "text/html; charset=utf-8"},
                "HTML-Metadata": {
                    "Head": {
                        "Title": "A title", "Link": [{"rel": "canonical", "url": "http://host.test/"}],
                        "Metas": [{"name": "description", "content": "x"}, {"property": "og:type", "content": "article"}],
                    }
                },
            }
        },
    }
}  # fmt: skip


def seeds() -> list[bytes]:
    return [json.dumps(ENVELOPE).encode(), *json_mutants("wat", ENVELOPE, 8)]


def fuzz(data: bytes) -> None:
    content = record("metadata", data, "WARC-Target-URI: http://host.test/\r\n")
    parts = read_records(io.BytesIO(content), "warc", "plain", 0, len(content), LIMIT)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([row for part in parts if (row := described(part))], DESCRIPTIONS), sink)
    for row in WatIndex(sink.getvalue().to_pybytes()).table.to_pylist():
        assert isinstance(json.loads(row["metadata"]), dict)
