"""A server with Common Crawl's layout that can be busy, cut connections, and give wrong sizes."""

import email.utils
import hashlib
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from corpusmill.pipeline.web import Patience


class CrawlServer(ThreadingHTTPServer):
    """Serves `files` by path. Each request takes one of `faults`, which replaces or changes the answer.

    A number cuts the body after that many bytes. `busy` is a 503 that asks for a pause, `wait` for a long one, `rubbish` for
    an unreadable one; `limit` is a 429 with a date, `fail` a bare 500, `stale` a bare 416. `long` is a wrong
    Content-Length, `nosize` is none, and `silent` stops in the middle without closing the connection.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[int | str]] = {}
        self.ranges = True
        self.etags = True
        self.requests: list[tuple[str, str | None]] = []
        self.agents: set[str] = set()
        self.sent: Counter[str] = Counter()
        self.open = self.most_open = 0
        self.lock = threading.Lock()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignores clients that close the connection."""

    def asked(self, path: str) -> list[str | None]:
        """Returns the Range headers of the requests for a path."""
        return [asked for name, asked in self.requests if name == path]


class Handler(BaseHTTPRequestHandler):
    server: CrawlServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        server = self.server
        with server.lock:
            server.open += 1
            server.most_open = max(server.most_open, server.open)
        self.inside = True
        try:
            self._answer()
        finally:
            self._leave()

    def _leave(self) -> None:
        """Counts the request as answered; called before the client can know, since then it may send its next one."""
        with self.server.lock:
            self.server.open -= self.inside
            self.inside = False

    def _answer(self) -> None:
        server, path = self.server, self.path
        server.requests.append((path, self.headers["Range"]))
        server.agents.add(self.headers["User-Agent"])
        fault = server.faults[path].pop(0) if server.faults.get(path) and self.command == "GET" else None
        body = server.files.get(path)
        if body is None:
            self._refuse(404)
        elif fault == "busy":
            self._refuse(503, "1")
        elif fault == "limit":
            self._refuse(429, email.utils.formatdate(usegmt=True))
        elif fault == "fail":
            self._refuse(500)
        elif fault == "wait":
            self._refuse(503, "60")
        elif fault == "rubbish":
            self._refuse(503, "soon")
        elif fault == "stale":
            self._refuse(416)
        else:
            self._send(body, fault)

    def _refuse(self, status: int, after: str | None = None) -> None:
        self.send_response(status)
        if after:
            self.send_header("Retry-After", after)
        self.send_header("Content-Length", "0")
        self._leave()
        self.end_headers()

    def _send(self, body: bytes, fault: int | str | None) -> None:
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        asked = re.match(r"bytes=(\d+)-(\d*)$", self.headers["Range"] or "")
        start, end = 0, len(body)
        if asked and self.server.ranges and self.headers.get("If-Range", tag) == tag:
            start, end = int(asked[1]), min(int(asked[2]) + 1 if asked[2] else end, end)
            self.send_response(206 if start < len(body) else 416)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(body)}" if start < len(body) else f"bytes */{len(body)}")
        else:
            self.send_response(200)
        length = end - start + (100 if fault == "long" else 0)
        if fault == "nosize":
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(length))
        if self.server.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if self.server.etags:
            self.send_header("ETag", tag)
        if self.command == "HEAD":
            self._leave()
        self.end_headers()
        if self.command == "HEAD":
            return
        part = body[start:end][: fault if isinstance(fault, int) else length]
        if fault == "silent":
            part = part[: len(part) // 2]
        self.server.sent[self.path] += len(part)  # before the client can know
        self.wfile.write(part[:-1])
        self._leave()
        self.wfile.write(part[-1:])
        if fault is not None:
            self.wfile.flush()
            time.sleep(1.0 if fault == "silent" else 0.0)
            self.close_connection = True


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CrawlServer]:
    """Yields the server, with a new cache for each test."""
    monkeypatch.setenv("CORPUSMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CORPUSMILL_CC_BASE", raising=False)
    with CrawlServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def patience() -> Patience:
    """Keeps the real patience, but shortens the pauses."""
    return Patience(tries=5, connects=2, pause=0.01, longest=0.05)
