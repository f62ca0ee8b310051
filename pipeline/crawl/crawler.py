"""A breadth-first crawler of servers on this machine, one site after another, bounded in pages, bytes and time; it writes WARC files."""

import base64
import gzip
import hashlib
import io
import re
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from html.parser import HTMLParser
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import corpusmill

AGENT = f"corpusmill/{corpusmill.__version__} (loopback crawl)"
#: Files that hold no page, by the ending of their name.
NO_PAGE = re.compile(r"\.(png|jpe?g|gif|svg|ico|css|js|json|xml|txt|pdf|epub|gz|zip|xz|woff2?|ttf)$", re.IGNORECASE)
SECONDS_A_PAGE = 10.0
#: The type of what a WARC file says about itself.
FIELDS = "application/warc-fields"


@dataclass(frozen=True)
class Site:
    """A site to crawl: its host name, where to begin, and how many pages to take at most.

    Only links to the same host below the folder of a start path are followed.
    """

    host: str
    starts: tuple[str, ...] = ("/",)
    pages: int = 1000


@dataclass
class Bounds:
    """What a whole crawl may take; `take` counts down and says whether there is more to spend."""

    pages: int = 2500
    bytes: int = 200_000_000
    seconds: float = 60.0

    def __post_init__(self) -> None:
        self.end = time.monotonic() + self.seconds

    def take(self, size: int) -> None:
        self.pages -= 1
        self.bytes -= size

    @property
    def left(self) -> bool:
        return self.pages > 0 and self.bytes > 0 and time.monotonic() < self.end


@dataclass(frozen=True)
class Response:
    """An HTTP response: all of its bytes, and what the crawler needs of them."""

    raw: bytes
    status: int
    headers: dict[str, str]

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def is_page(self) -> bool:
        return self.status == 200 and self.headers.get("content-type", "").startswith("text/html")


def crawl(sites: Sequence[Site], port: int, folder: Path, bounds: Bounds) -> dict[str, int]:
    """Crawls the server on 127.0.0.1:`port`, which tells sites by the Host header, to `folder`/HOST.warc.gz.

    Returns the number of pages by file name; a site without a page has no file.
    """
    counts: dict[str, int] = {}
    folder.mkdir(parents=True, exist_ok=True)
    for site in sites:
        path = folder / f"{site.host}.warc.gz"
        with open(path, "wb") as file:
            writer = WarcWriter(file, AGENT)
            pages = 0
            for url, request, response in visit(site, port, bounds):
                writer.exchange(url, request, response.raw)
                pages += response.is_page
        if pages:
            counts[path.name] = pages
        else:
            path.unlink()
    return counts


def visit(site: Site, port: int, bounds: Bounds) -> Iterator[tuple[str, bytes, Response]]:
    """The exchanges of one site in breadth-first order: URL, request as sent, response."""
    urls = deque(f"http://{site.host}{start}" for start in site.starts)
    folders = tuple(url.rpartition("/")[0] + "/" for url in urls)
    seen = set(urls)
    pages = 0
    while urls and bounds.left and pages < site.pages:
        url = urls.popleft()
        request = request_bytes(url)
        try:
            response = exchange(port, request)
        except OSError:
            continue  # a page on which the server fails or hangs is left out; the others count
        bounds.take(len(response.raw))
        pages += response.is_page
        yield url, request, response
        for link in links(url, response):
            if link not in seen and link.startswith(folders):
                seen.add(link)
                urls.append(link)


def request_bytes(url: str) -> bytes:
    parts = urlsplit(url)
    target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
    lines = (f"GET {target} HTTP/1.1", f"Host: {parts.netloc}", f"User-Agent: {AGENT}", "Accept: text/html", "Connection: close")
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")


def exchange(port: int, request: bytes) -> Response:
    """Sends a request and reads the response to its end, byte for byte."""
    deadline = time.monotonic() + SECONDS_A_PAGE
    chunks = []
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS_A_PAGE) as connection:
        connection.sendall(request)
        while chunk := connection.recv(1 << 16):
            chunks.append(chunk)
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
    raw = b"".join(chunks)
    head = raw.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    status = re.match(r"HTTP/\d\.\d (\d{3})", head[0])
    if not status:
        raise ConnectionError("the server closed the connection without an answer")
    fields = (line.partition(":") for line in head[1:])
    return Response(raw, int(status[1]), {name.strip().lower(): value.strip() for name, _, value in fields})


class LinkFinder(HTMLParser):
    """Collects the targets of `<a href>` in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]


def links(url: str, response: Response) -> Iterator[str]:
    """Where a response leads: its redirection, or the links of its page in their order, without fragments."""
    if 300 <= response.status < 400 and "location" in response.headers:
        targets = [response.headers["location"]]
    elif response.is_page:
        finder = LinkFinder()
        finder.feed(response.body.decode("utf-8", "replace"))
        targets = finder.found
    else:
        return
    for target in targets:
        try:
            parts = urlsplit(urljoin(url, target.strip()))
        except ValueError:
            continue  # `href` may hold anything
        if parts.scheme == "http" and not NO_PAGE.search(parts.path):
            yield urlunsplit(
                (parts.scheme, parts.netloc, quote(parts.path, "/%~:@!$&'()*+,;="), quote(parts.query, "/%~:@!$&'()*+,;=?"), "")
            )


# ---- WARC/1.1: one gzip member a record, digests as in the standard, the bytes exactly as they went over the wire ----


class WarcWriter:
    """Writes the records of one site to an open binary file."""

    def __init__(self, file: IO[bytes], software: str):
        self.file = file
        self._write("warcinfo", f"software: {software}\r\nformat: WARC File Format 1.1\r\n".encode(), {"Content-Type": FIELDS})

    def exchange(self, url: str, request: bytes, response: bytes) -> None:
        """The records of one HTTP exchange; both messages with their headers, as sent and received."""
        common = {"WARC-Target-URI": url, "WARC-IP-Address": "127.0.0.1"}
        answered = self._write("response", response, {**common, "Content-Type": "application/http; msgtype=response"})
        self._write("request", request, {**common, "Content-Type": "application/http; msgtype=request", "WARC-Concurrent-To": answered})

    def _write(self, kind: str, block: bytes, headers: dict[str, str]) -> str:
        from fastwarc.warc import WarcRecord, WarcRecordType

        record = WarcRecord()
        record.init_headers(getattr(WarcRecordType, kind))
        name = f"<urn:uuid:{uuid.uuid4()}>"
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for key, value in {"WARC-Record-ID": name, "WARC-Date": date, **headers}.items():
            record.headers[key] = value
        if kind != "warcinfo":
            record.headers["WARC-Payload-Digest"] = sha1(block.partition(b"\r\n\r\n")[2])
        record.set_bytes_content(block)
        plain = io.BytesIO()
        record.write(plain, checksum_data=True)
        self.file.write(gzip.compress(plain.getvalue(), mtime=0))
        return name


def sha1(content: bytes) -> str:
    """A digest as WARC writes it."""
    return "sha1:" + base64.b32encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode()


# ---- a server to crawl ------------------------------------------------------------------------------


@contextmanager
def serve(sites: Mapping[str, Path]) -> Iterator[int]:
    """Serves folders as sites, each under its host name, for the time of the block; gives the port, on 127.0.0.1 alone."""

    class Handler(SimpleHTTPRequestHandler):
        def send_head(self) -> Any:
            folder = sites.get(self.headers.get("Host", "").partition(":")[0])
            if folder is None:
                self.send_error(HTTPStatus.NOT_FOUND, "No such site")
                return None
            self.directory = str(folder)
            return super().send_head()

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing of each request."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
