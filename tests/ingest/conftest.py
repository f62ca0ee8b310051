"""Writes WARCs by warcio, and runs the stage in this process, with reader processes that runs leave to each other."""

import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from corpusmill.ingest import stage
from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.guard import ReaderGuard, ReaderProcess
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


@pytest.fixture(scope="session")
def warcs() -> SimpleNamespace:
    return SimpleNamespace(write=write_warc, page=page, mixed=mixed_records, arc=arc_records)


class IdleReaders:
    """Reader processes that runs leave: the next guard with the same options and environment takes one, as starting one takes a second."""

    def __init__(self) -> None:
        self.processes: dict[str, ReaderProcess] = {}

    def guard(self, config: IngestConfig, params: dict[str, Any]) -> ReaderGuard:
        surroundings = sorted((name, value) for name, value in os.environ.items() if not name.startswith("PYTEST"))
        key, idle = repr((config.model_dump_json(), params, surroundings)), self.processes

        class Guard(ReaderGuard):
            def _running(self) -> ReaderProcess:
                if not self.process:
                    self.process = idle.pop(key, None)
                return super()._running()

            def close(self) -> None:
                if self.process and not self.answering and self.process.popen.poll() is None and key not in idle:
                    idle[key], self.process = self.process, None
                super().close()

        while len(idle) > 3:
            idle.pop(next(iter(idle))).close()
        return Guard(config, params)

    def close(self) -> None:
        while self.processes:
            self.processes.popitem()[1].close()


@pytest.fixture(scope="module")
def idle_readers() -> Iterator[IdleReaders]:
    with closing(IdleReaders()) as readers:
        yield readers


@pytest.fixture
def shared_readers(idle_readers: IdleReaders, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets runs take idle readers. Test files about the life or the memory of a reader override this."""
    monkeypatch.setattr(stage, "ReaderGuard", idle_readers.guard)


@pytest.fixture
def ingest(tmp_path: Path, shared_readers: None) -> Callable[..., SimpleNamespace]:
    """Runs the stage on `inputs`; returns its documents, report, manifest rows, warnings, folder, and the reader's memory."""

    def run(*inputs: object, name: str = "run", **config: object) -> SimpleNamespace:
        made = IngestStage(IngestConfig.model_validate(config))
        given = [str(i) for i in inputs]
        run = StageRun(made, Storage(str(tmp_path / name)), {"ingest": made.config}, given, InlineEngine(), Progress(False))
        run.execute()
        rows = [row for row in run.manifest.rows() if row.task.startswith("part-")]
        tables = {
            kind: pa.concat_tables([read_table(run.storage, o.path) for row in rows for o in row.outputs if o.path.startswith(kind)])
            for kind in ("data", "report")
        }
        return SimpleNamespace(
            data=tables["data"].to_pylist(), report=tables["report"].to_pylist(), tables=tables, rows=rows,
            warnings=[w for row in rows for w in row.warnings], storage=run.storage, run=run,
            reader_mb=max(json.loads(line)["children_mb"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()),
        )  # fmt: skip

    return run
