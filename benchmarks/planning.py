"""Measures how long ingest plans for a crawl on a store that takes its time, and again when the run is resumed.

    python benchmarks/planning.py [--files 90000] [--delay 0.03] [--workers 2] [--task-mb 1024]

A server of this script speaks as much of S3 as listing and reading take, and answers each request after `--delay` seconds. It lists
files of 1.1 GB, as a crawl of Common Crawl has, each a gzip member of one record, repeated. Planning is all that ingest does before its
first document: it lists, looks at the head of each file on `--workers` workers of Ray, and makes the tasks. Prints a line for each of the
two runs: seconds, requests by kind, the most requests at a time, tasks, peak memory of the driver.
"""

import argparse
import asyncio
import contextlib
import gzip
import json
import multiprocessing
import os
import re
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from email.utils import formatdate
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.stage import IngestStage
from corpusmill.pipeline.engine import Job, peak_memory_mb
from corpusmill.pipeline.failures import Report
from corpusmill.pipeline.on_ray.engine import RayEngine
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Task
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress

LINE = "{:8} {:6.1f} s {:8,} looks {:6,} others, {:4} at a time {:9,} tasks {:7,} MB"
PAGE, BYTES = 1000, 1_100_000_000
NAME = "crawl-data/CC-MAIN-2026-04/segments/1767800000000.00/warc/CC-MAIN-20260115000000-20260115030000-{:05d}.warc.gz"
BODY = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>" + b"A page among many. " * 300
RECORD = (
    b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.test/\r\nWARC-Date: 2026-01-15T00:00:00Z\r\n"
    b"WARC-Record-ID: <urn:uuid:00000000-0000-4000-8000-000000000000>\r\nContent-Type: application/http; msgtype=response\r\n"
    b"Content-Length: " + str(len(BODY)).encode() + b"\r\n\r\n" + BODY + b"\r\n\r\n"
)


class Planned(Exception):
    """All tasks of the documents are made."""


class PlanningEngine(RayEngine):
    """Performs all phases but the one that reads documents."""

    tasks = 0

    def perform(self, job: Job, tasks: Sequence[Task], report: Report) -> None:
        if not job.phase:
            self.tasks = len(tasks)
            raise Planned
        super().perform(job, tasks, report)


class StoreServer:
    """Lists `files` objects and serves ranges of them."""

    def __init__(self, files: int, delay: float):
        self.files, self.delay = files, delay
        self.counts, self.open, self.most = Counter[str](), 0, 0
        member = gzip.compress(RECORD, mtime=0)
        self.content = member * (2 + (9 << 20) // len(member))
        self.period = len(member)
        self.date = formatdate(0, usegmt=True)

    async def serve(self, connection: Connection) -> None:
        server = await asyncio.start_server(self.answer_all, "127.0.0.1", 0, backlog=1024)
        connection.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    async def answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the requests of one connection."""
        with contextlib.closing(writer):
            while True:
                try:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode()
                except (asyncio.IncompleteReadError, ConnectionResetError):
                    return
                self.open += 1
                self.most = max(self.most, self.open)
                await asyncio.sleep(self.delay)
                writer.write(self.answer(*head.split(" ", 2)[:2], head))
                self.open -= 1

    def answer(self, method: str, target: str, head: str) -> bytes:
        url, query = urlsplit(target), parse_qs(urlsplit(target).query)
        if url.path == "/counts":
            found = json.dumps({**self.counts, "most": self.most}).encode()
            self.counts, self.most = Counter(), 0
            return self.whole(200, found)
        if "list-type" in query:
            self.counts["others"] += 1
            return self.whole(200, self.listing(query))
        asked = re.search(r"(?im)^range: bytes=(\d+)-(\d*)", head)
        self.counts["looks" if asked else "others"] += 1
        if not url.path.endswith(".gz"):
            return self.whole(404, b"" if method == "HEAD" else b"<Error><Code>NoSuchKey</Code></Error>")
        begin = int(asked[1]) if asked else 0
        end = min(int(asked[2]) + 1 if asked and asked[2] else BYTES, BYTES)
        place = begin % self.period
        body = b"" if method == "HEAD" else self.content[place : place + end - begin]
        return (
            f"HTTP/1.1 {206 if asked else 200} OK\r\nContent-Length: {end - begin}\r\nContent-Range: bytes {begin}-{end - 1}/{BYTES}\r\n"
            f'ETag: "tag"\r\nLast-Modified: {self.date}\r\nAccept-Ranges: bytes\r\n\r\n'
        ).encode() + body

    def whole(self, status: int, body: bytes) -> bytes:
        return f"HTTP/1.1 {status} OK\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    def listing(self, query: dict[str, list[str]]) -> bytes:
        begin = int(query.get("continuation-token", ["0"])[0])
        end = min(begin + PAGE, self.files)
        rows = "".join(
            f"<Contents><Key>{NAME.format(number)}</Key><LastModified>1970-01-01T00:00:00.000Z</LastModified><ETag>&quot;tag&quot;</ETag>"
            f"<Size>{BYTES}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for number in range(begin, end)
        )
        more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{end}</NextContinuationToken>"
        return (
            f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>crawl</Name>'
            f"<MaxKeys>{PAGE}</MaxKeys>{more if end < self.files else '<IsTruncated>false</IsTruncated>'}"
            f"<KeyCount>{end - begin}</KeyCount>{rows}</ListBucketResult>"
        ).encode()


def serve(files: int, delay: float, connection: Connection) -> None:
    asyncio.run(StoreServer(files, delay).serve(connection))


def plan(root: Path, workers: int, task_mb: int, name: str, port: int) -> None:
    """Plans a run and prints what it took."""
    stage = IngestStage(IngestConfig(task_mb=task_mb))
    engine = PlanningEngine(workers)
    began = time.perf_counter()
    try:
        StageRun(stage, Storage(str(root)), {"ingest": stage.config}, ["s3://crawl/crawl-data"], engine, Progress(False)).execute()
    except Planned:
        seconds = time.perf_counter() - began
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/counts") as answer:
        counts = json.load(answer)
    print(
        LINE.format(name, seconds, counts.get("looks", 0), counts.get("others", 0), counts["most"], engine.tasks, peak_memory_mb()),
        flush=True,
    )
    engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=90_000)
    parser.add_argument("--delay", type=float, default=0.03)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--task-mb", type=int, default=1024)
    given = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    server = context.Process(target=serve, args=(given.files, given.delay, theirs), daemon=True)
    server.start()
    port = ours.recv()
    os.environ |= dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "any")
    os.environ |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("planned", "resumed"):
            plan(Path(folder) / "run", given.workers, given.task_mb, name, port)
    server.terminate()


if __name__ == "__main__":
    main()
