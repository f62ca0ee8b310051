"""Tests conditional writes on Google and Azure by the headers that their documentation names: x-goog-if-generation-match, If-Match."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from corpusmill.pipeline.lease import LEASE, SwapFile
from corpusmill.pipeline.storage import Storage


class Served(BaseHTTPRequestHandler):
    """Objects in memory, with a number that each write raises: Google's generation, and Azure's ETag."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, tuple[int, bytes]] = {}
    writes = 0

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"] or 0))
        now = Served.objects.get(self.path, (0, b""))[0]
        wanted = self.headers["x-goog-if-generation-match"] or (self.headers["If-Match"] or "").strip('"')
        new = self.headers["If-None-Match"] == "*"
        if (new and now) or (wanted and int(wanted) != now):
            return self.answer(409 if new else 412)
        Served.writes += 1
        Served.objects[self.path] = (Served.writes, content)
        self.answer(201)

    def do_GET(self) -> None:
        self.answer(200 if self.path in Served.objects else 404, Served.objects.get(self.path, (0, b""))[1])

    do_HEAD = do_GET

    def answer(self, status: int, content: bytes = b"") -> None:
        number = Served.objects.get(self.path, (0, b""))[0]
        self.send_response(status)
        for name, value in {"ETag": f'"{number}"', "x-goog-generation": str(number), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.send_header("Last-Modified", "Thu, 03 Dec 2026 05:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(params=["gs://bucket/run", "az://container/run"])
def storage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Served)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Served.objects = {}
    address = f"http://127.0.0.1:{server.server_port}"
    for name, value in {
        "GOOGLE_BASE_URL": address, "GOOGLE_BEARER_TOKEN": "token", "AZURE_STORAGE_ENDPOINT": address, "AZURE_STORAGE_ACCOUNT_NAME": "mill",
        "AZURE_STORAGE_ACCOUNT_KEY": "a2V5", "no_proxy": "127.0.0.1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    yield Storage(request.param)
    server.shutdown()
    server.server_close()


def test_a_lease_is_swapped_only_where_nobody_else_has_written_it(storage: Storage) -> None:
    file = SwapFile(storage, LEASE)
    assert file.read() is None
    one = file.write(b"one", None)
    assert one is not None and file.write(b"other", None) is None and file.read() == (b"one", one)
    two = file.write(b"two", one)
    assert two is not None and file.write(b"other", one) is None and file.read() == (b"two", two)
    assert storage.store.create("x", b"1") and not storage.store.create("x", b"2") and storage.read_bytes("x") == b"1"
