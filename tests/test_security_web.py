"""Tests that hostile servers can't redirect requests or fill the memory; and the addresses that the package's servers listen on."""

import gzip
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from corpusmill.pipeline import redirects
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.files import expand, file_ref, open_file
from corpusmill.pipeline.redirects import RedirectRefusedError, check_redirect, is_internal, opener
from corpusmill.pipeline.web import Patience, download, gunzip
from corpusmill.report.explore import server as explorer_server

PUBLIC = "https://93.184.215.14/file"


class Server(ThreadingHTTPServer):
    """Redirects requests for /to to `target`; every other path is a small file. `asked` are the paths."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.target = ""
        self.asked: list[str] = []

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path.startswith("/to"):
            self.send_response(302)
            self.send_header("Location", self.server.target)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        first, last = map(int, self.headers.get("Range", "bytes=0-3").removeprefix("bytes=").split("-"))
        part = b"text"[first : last + 1]
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {first}-{last}/4")
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(part)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("CORPUSMILL_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = Server()
    threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("http://93.184.215.14/file", "nobody can tell"),
        ("file:///etc/passwd", "no web server"),
        ("https:///x", "no web server"),
        ("https://127.0.0.1/x", "this machine"),
        ("https://169.254.169.254/latest/meta-data", "this machine"),
        ("https://[::ffff:127.0.0.1]/", "this machine"),
        ("https://2130706433/", "this machine"),
        ("https://[fe80::1%25eth0]/", "this machine"),
        ("https://[64:ff9b::7f00:1]/", "this machine"),
        ("https://[64:ff9b::a9fe:a9fe]/", "this machine"),
        ("https://[64:ff9b:1::a00:1]/", "this machine"),
        ("https://[::7f00:1]/", "this machine"),
        ("https://[::ffff:0:7f00:1]/", "this machine"),
        ("https://[2002:7f00:1::1]/", "this machine"),
        ("https://[2001:0:5db8:d70e:0:0:80ff:fffe]/", "this machine"),
    ],
)
def test_where_a_public_server_may_not_send_a_request(target: str, why: str) -> None:
    with pytest.raises(RedirectRefusedError, match=why):
        check_redirect(PUBLIC, target)


@pytest.mark.parametrize(
    ("origin", "target"),
    [
        (PUBLIC, "https://93.184.215.15/other"),
        ("http://93.184.215.14/", "https://93.184.215.14/"),
        ("http://127.0.0.1:1/", "http://127.0.0.1:2/"),
        (PUBLIC, "https://[64:ff9b::5db8:d70e]/x"),
    ],
)
def test_where_a_server_may_send_a_request(origin: str, target: str) -> None:
    check_redirect(origin, target)


def test_a_refusal_does_not_show_what_may_be_signed() -> None:
    with pytest.raises(RedirectRefusedError) as refused:
        check_redirect(PUBLIC, "https://user:word@10.0.0.1/x?X-Amz-Signature=abc")
    assert "word" not in str(refused.value) and "abc" not in str(refused.value)


@pytest.mark.parametrize("host", ["", "no such host.invalid", "x" * 300, "\ud800"])
def test_names_that_can_not_be_looked_up(host: str) -> None:
    assert host == "" or not is_internal(host)


def whole_file(url: str) -> bytes:
    download([url], patience=Patience(tries=1, connects=1))
    return open_file(url).read()


def in_ranges(url: str) -> bytes:
    file_ref(url)
    with open_file(url) as file:
        return file.read()


def by_the_standard_library(url: str) -> bytes:
    with opener().open(url, timeout=5) as answer:
        return bytes(answer.read())


@pytest.mark.parametrize("read", [whole_file, in_ranges, by_the_standard_library])
@pytest.mark.parametrize("place", ["file:///etc/passwd", "http://localhost:{port}/secret"])
def test_no_reader_follows(read, place: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """Here the server's address stands for a public one, and its name for one of this machine."""
    monkeypatch.setattr(redirects, "is_internal", lambda host: host == "localhost")
    server.target = place.format(port=server.server_port)
    with pytest.raises((InputError, OSError, ValueError)):
        read(f"{server.base}/to")
    assert "/secret" not in server.asked and "/to" in server.asked


@pytest.mark.parametrize("read", [whole_file, in_ranges, by_the_standard_library])
def test_every_reader_follows_what_may_be_followed(read, server: Server) -> None:  # type: ignore[no-untyped-def]
    server.target = f"{server.base}/file"
    assert read(f"{server.base}/to") == b"text"


def test_a_request_is_not_sent_on_for_ever(server: Server) -> None:
    server.target = f"{server.base}/to"
    with pytest.raises(CorpusmillError, match="sent on more than 5 times"):
        download([f"{server.base}/to"], patience=Patience(tries=1, connects=1))
    assert len(server.asked) == redirects.MOST + 1
    server.asked.clear()
    with pytest.raises((CorpusmillError, OSError)):
        in_ranges(f"{server.base}/to")
    assert len(server.asked) <= 2 * (redirects.MOST + 1)  # for the size, and for the content


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes the certificate")
@pytest.mark.parametrize("read", [whole_file, in_ranges, expand])
def test_a_certificate_that_fails_is_named(read, server: Server, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    key, made = tmp_path / "key.pem", tmp_path / "made.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run([*command.split(), "-keyout", str(key), "-out", str(made)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with pytest.raises(CorpusmillError, match="certificate"):
        read(f"https://localhost:{server.server_port}/file")


def test_a_small_file_that_decompresses_to_a_large_one() -> None:
    assert gunzip(gzip.compress(b"list")) == b"list"
    with pytest.raises(OSError, match="decompresses to more than 1,000 bytes"):
        gunzip(gzip.compress(bytes(1_000_000)), 1000)
    for damaged in (b"x", gzip.compress(bytes(1000))[:15]):
        with pytest.raises(OSError, match=r"gzip|Not a gzipped"):
            gunzip(damaged)


def test_the_explorer_listens_on_loopback_alone() -> None:
    listening = explorer_server.listen(0)
    try:
        assert listening.getsockname()[0] == "127.0.0.1"
        other = socket.gethostbyname(socket.gethostname())
        if other not in ("127.0.0.1", "127.0.1.1"):
            with pytest.raises(OSError, match=r"refused|timed out|unreachable"):
                socket.create_connection((other, listening.getsockname()[1]), timeout=2)
    finally:
        listening.close()
