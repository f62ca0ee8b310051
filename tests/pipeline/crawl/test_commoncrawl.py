"""Common Crawl's layout on a local server: ids, list of files, range request."""

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from corpusmill.pipeline.crawl import sources

PATH = "crawl-data/CC-MAIN-2026-21/segments/1/warc/CC-MAIN-20260501-00000.warc.gz"
WARC = bytes(range(256)) * 4000


class Server(ThreadingHTTPServer):
    files: dict[str, bytes]
    requests: list[tuple[str, str | None, str | None]]
    ranges = True


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers["Range"], self.headers["User-Agent"]))
        body = self.server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        if self.headers["Range"] and self.server.ranges:
            first, last = self.headers["Range"].removeprefix("bytes=").split("-")
            body = body[int(first) : int(last) + 1]
            self.send_response(206)
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.requests = []
        server.files = {
            "/collinfo.json": json.dumps([{"id": "CC-MAIN-2026-17"}, {"id": "CC-MAIN-2026-21"}, {"id": "CC-MAIN-2009-2010"}]).encode(),
            "/crawl-data/CC-MAIN-2026-21/warc.paths.gz": gzip.compress(f"{PATH}\nsecond\n".encode()),
            f"/{PATH}": WARC,
        }
        monkeypatch.setattr(sources, "BYTES", 100_000)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize("ranges", [True, False])
def test_the_head_of_the_newest_crawls_first_file(server: Server, tmp_path: Path, ranges: bool) -> None:
    server.ranges = ranges
    what = sources.fetch_commoncrawl(tmp_path, url(server), url(server))
    assert (tmp_path / "CC-MAIN-20260501-00000.warc.gz").read_bytes() == WARC[:100_000]
    assert "CC-MAIN-2026-21" in what
    assert server.requests[-1][:2] == (f"/{PATH}", "bytes=0-99999")
    assert all((agent or "").startswith("corpusmill/") for *_, agent in server.requests)


def test_a_known_crawl_where_the_index_is_broken(server: Server, tmp_path: Path) -> None:
    for answer in (b"<html>busy</html>", b'{"a": 1}', b"[]"):
        server.files["/collinfo.json"] = answer
        assert sources.newest_id(url(server)) == sources.KNOWN_ID


def test_what_is_not_there_is_an_oserror(server: Server, tmp_path: Path) -> None:
    server.files["/crawl-data/CC-MAIN-2026-21/warc.paths.gz"] = b"no gzip"
    with pytest.raises(OSError, match="list of files"):
        sources.fetch_commoncrawl(tmp_path, url(server), url(server))
    del server.files["/crawl-data/CC-MAIN-2026-21/warc.paths.gz"]
    with pytest.raises(OSError, match="404"):
        sources.fetch_commoncrawl(tmp_path, url(server), url(server))


def test_a_machine_without_a_network_moves_on_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Name or service not known|nodename nor servname|Temporary failure"):
        sources.fetch_commoncrawl(tmp_path, "http://no-such-host.invalid", "http://127.0.0.1:9")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(OSError, match="refused"):
        sources.fetch_commoncrawl(tmp_path, address, address)
