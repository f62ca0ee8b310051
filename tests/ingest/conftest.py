"""Writes WARCs by warcio, and runs the stage in this process."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from corpusmill.ingest.stage import IngestStage
from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress

PAGE = "<html><head><title>Title {n}</title></head><body><main><p>{text}</p></main></body></html>"


def page(number: int, words: int = 40) -> bytes:
    return PAGE.format(n=number, text=" ".join(f"word{number}x{i}" for i in range(words))).encode()


def write_warc(records: list[dict], gzip: bool = True) -> bytes:
    """Returns a WARC of `records`: dicts with url, body and, where not usual, type, status, headers."""
    out = io.BytesIO()
    writer = WARCWriter(out, gzip=gzip)
    for record in records:
        kind = record.get("type", "response")
        http = None
        if kind in ("response", "request", "revisit"):
            fields = record.get("headers", [("Content-Type", "text/html; charset=utf-8")])
            line, protocol = (record.get("status", "200 OK"), "HTTP/1.1") if kind != "request" else ("GET / HTTP/1.1", "")
            http = StatusAndHeaders(line, fields, protocol=protocol, is_http_request=kind == "request")
        writer.write_record(
            writer.create_warc_record(
                record.get("url", "http://example.test/"), kind, payload=io.BytesIO(record["body"]), http_headers=http,
                warc_content_type=record.get("warc_content_type", ""), warc_headers_dict={"WARC-Date": "2024-05-01T00:00:00Z"},
            )
        )  # fmt: skip
    return out.getvalue()


def mixed_records(count: int) -> list[dict]:
    """Makes `count` pages, each with its request before it."""
    records: list[dict] = []
    for number in range(count):
        url = f"http://example.test/{number}"
        records += [{"url": url, "type": "request", "body": b"", "headers": [("Host", "example.test")]}, {"url": url, "body": page(number)}]
    return records


def arc_records(records: list[tuple[str, str, bytes]], date: str = "20140216050221") -> list[bytes]:
    """Returns the version block of an ARC and its records from URL, content type, block."""
    spec = b"1 0 Test\nURL IP-address Archive-date Content-type Archive-length\n"
    blocks = [("filedesc://test.arc", "text/plain", spec), *records]
    return [f"{url} 192.0.2.1 {date} {kind} {len(block)}\n".encode() + block + b"\n" for url, kind, block in blocks]


@pytest.fixture
def warcs() -> SimpleNamespace:
    return SimpleNamespace(write=write_warc, page=page, mixed=mixed_records, arc=arc_records)


@pytest.fixture
def ingest(tmp_path: Path) -> Callable[..., SimpleNamespace]:
    """Runs the stage on `inputs`; returns its documents, report, manifest rows, warnings, folder, and the reader's memory."""

    def run(*inputs: object, name: str = "run", **config: object) -> SimpleNamespace:
        stage = IngestStage(IngestStage.Config.model_validate(config))
        run = StageRun(
            stage, Storage(str(tmp_path / name)), {"ingest": stage.config}, [str(i) for i in inputs], InlineEngine(), Progress(False)
        )
        run.execute()
        rows = [row for row in run.manifest.rows() if row.task.startswith("part-")]
        tables = {
            kind: pa.concat_tables([read_table(run.storage, o.path) for row in rows for o in row.outputs if o.path.startswith(kind)])
            for kind in ("data", "report")
        }
        return SimpleNamespace(
            data=tables["data"].to_pylist(), report=tables["report"].to_pylist(), tables=tables, rows=rows,
            warnings=[w for row in rows for w in row.warnings], storage=run.storage, run=run,
            reader_mb=max(json.loads(line)["beside_mb"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()),
        )  # fmt: skip

    return run
