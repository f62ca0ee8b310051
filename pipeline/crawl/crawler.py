"""A breadth-first crawler of servers on this machine, one site after another, bounded in pages, bytes and time."""

import re
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import corpusmill
from corpusmill.pipeline.crawl.warc import WarcWriter

AGENT = f"corpusmill/{corpusmill.__version__} (loopback crawl)"
#: Files that hold no page, by the ending of their name.
NO_PAGE = re.compile(r"\.(png|jpe?g|gif|svg|ico|css|js|json|xml|txt|pdf|epub|gz|zip|xz|woff2?|ttf)$", re.IGNORECASE)
SECONDS_A_PAGE = 10.0


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
