"""Tests crawls read over HTTP, in ranges, from servers that do and don't support ranges."""

import random
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from corpusmill.ingest import inputs
from corpusmill.ingest.inputs import discover
from corpusmill.ingest.original import read_record
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import expand
from corpusmill.pipeline.store_requests import StoreError, filesystem


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; `ranges` decides whether range requests work."""

    ranges = True

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        asked = re.match(r"bytes=(\d+)-(\d+)$", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if not (self.ranges and asked and path.is_file()):
            super().do_GET()
            return
        content = path.read_bytes()
        start, end = int(asked[1]), min(int(asked[2]) + 1, len(content))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        self.wfile.write(content[start:end])

    def end_headers(self) -> None:
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
        super().end_headers()


class WholeFiles(Handler):
    ranges = False


@pytest.fixture
def served(tmp_path: Path) -> Iterator[SimpleNamespace]:
    folder = tmp_path / "served"
    folder.mkdir()
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), partial(kind, directory=str(folder))) for kind in (Handler, WholeFiles)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield SimpleNamespace(
        folder=folder, ranges=f"http://127.0.0.1:{servers[0].server_port}", whole=f"http://127.0.0.1:{servers[1].server_port}"
    )
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_crawl_on_a_server_equals_the_file(served, warcs, ingest, monkeypatch: pytest.MonkeyPatch) -> None:
    path = served.folder / "crawl.warc.gz"
    path.write_bytes(warcs.write(warcs.mixed(30)))
    monkeypatch.setattr(inputs, "SMALLEST", 2000)
    local = ingest(path, name="local")
    remote = ingest(f"{served.ranges}/crawl.warc.gz", name="remote")
    assert len(remote.rows) == len(local.rows) > 3
    assert [row["text"] for row in remote.data] == [row["text"] for row in local.data]
    row = remote.data[7]
    assert row["source"] == f"{served.ranges}/crawl.warc.gz"
    assert read_record(row["source"], row["offset"], row["length"]).startswith(b"WARC/1.0\r\n")


def test_servers_that_can_not_be_used_are_one_sentence(served, warcs, monkeypatch: pytest.MonkeyPatch) -> None:
    (served.folder / "crawl.warc.gz").write_bytes(warcs.write([{"body": random.Random(1).randbytes(12_000_000)}]))
    with pytest.raises(InputError, match="crawl.warc.gz: the server gives whole files only, so it can't be read in pieces"):
        discover([f"{served.whole}/crawl.warc.gz"])
    with pytest.raises(InputError, match="missing.warc.gz: no such file or folder"):
        discover([f"{served.ranges}/missing.warc.gz"])
    monkeypatch.setenv("CORPUSMILL_STORE_SECONDS", "0.2")
    with pytest.raises(StoreError, match="can't be reached or fails"):
        discover(["http://127.0.0.1:1/crawl.warc.gz"])


def test_globs_and_folders_of_a_server_that_lists_them(served, warcs, ingest) -> None:
    for name in ("a.warc.gz", "b.warc.gz", "c.txt.log"):
        (served.folder / "2026").mkdir(exist_ok=True)
        (served.folder / "2026" / name).write_bytes(warcs.write(warcs.mixed(3)))
    assert expand(f"{served.ranges}/2026/*.warc.gz") == [f"{served.ranges}/2026/{name}" for name in ("a.warc.gz", "b.warc.gz")]
    assert len(ingest(f"{served.ranges}/2026/*.warc.gz").data) == 6
    with pytest.raises(InputError, match="no file matches"):
        expand(f"{served.ranges}/2026/*.arc.gz")


def test_addresses_of_the_hugging_face_hub_reach_its_filesystem() -> None:
    """Checks that the filesystem of the Hub gets the address; without a network no more can be tested."""
    from huggingface_hub import HfFileSystem

    fs, name = filesystem("hf://datasets/allenai/c4/en/*.json.gz")
    assert isinstance(fs, HfFileSystem) and name == "datasets/allenai/c4/en/*.json.gz"
