"""The crawler and its WARC files, against the server that it crawled and warcio's reading of them."""

import base64
import hashlib
import http.client
from pathlib import Path

import pytest
from warcio.archiveiterator import ArchiveIterator

from corpusmill.pipeline.crawl.crawler import Bounds, Response, Site, crawl, links, serve

PAGES = {
    "index.html": '<a href="b.html">b</a> <a href="sub">sub</a> <a href="missing.html">gone</a> <a href="x.png">no</a>',
    "b.html": '<p>Ünïcode</p><a href="/index.html#top">back</a><a href="http://other.test/">off</a><a href="a%20b.html">space</a>',
    "a b.html": "<p>space</p>",
    "sub/index.html": '<a href="../c.html">c</a><a href="http://[bad">bad</a>',
    "c.html": "<p>" + "long " * 50_000 + "</p>",
    "unlinked.html": "never seen",
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name, body in PAGES.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body)
    return tmp_path / "site"


def read(path: Path) -> list[tuple[str, str, str, bytes]]:
    """Type, URL, status and payload of every record, as warcio reads them, with their digests checked."""
    with open(path, "rb") as file:
        records = []
        for record in ArchiveIterator(file, check_digests="raise"):
            status = record.http_headers.get_statuscode() if record.rec_type == "response" else ""
            records.append((record.rec_type, record.rec_headers["WARC-Target-URI"], status, record.raw_stream.read()))
    return records


def test_pages_in_breadth_first_order_with_redirect_and_error(site: Path, tmp_path: Path) -> None:
    with serve({"a.test": site}) as port:
        counts = crawl([Site("a.test")], port, tmp_path / "out", Bounds())
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/c.html", headers={"Host": "a.test"})
        sent = connection.getresponse().read()
        connection.close()
    assert counts == {"a.test.warc.gz": 6}
    records = read(tmp_path / "out" / "a.test.warc.gz")
    assert records[0][0] == "warcinfo"
    responses = [(url.removeprefix("http://a.test"), status) for kind, url, status, _ in records if kind == "response"]
    assert responses == [
        ("/", "200"), ("/b.html", "200"), ("/sub", "301"), ("/missing.html", "404"), ("/index.html", "200"),
        ("/a%20b.html", "200"), ("/sub/", "200"), ("/c.html", "200"),
    ]  # fmt: skip
    bodies = {url: body for kind, url, _, body in records if kind == "response"}
    assert bodies["http://a.test/c.html"] == sent == PAGES["c.html"].encode()
    assert bodies["http://a.test/b.html"] == PAGES["b.html"].encode()
    assert sum(kind == "request" for kind, *_ in records) == len(responses)


def test_records_have_the_headers_of_the_standard(site: Path, tmp_path: Path) -> None:
    with serve({"a.test": site}) as port:
        crawl([Site("a.test", ("/c.html",))], port, tmp_path, Bounds())
    with open(tmp_path / "a.test.warc.gz", "rb") as file:
        records = [
            {"headers": dict(r.rec_headers.headers), "http": r.http_headers, "body": r.raw_stream.read()} for r in ArchiveIterator(file)
        ]
    info, response, request = records
    assert info["headers"]["WARC-Type"] == "warcinfo"
    assert request["headers"]["WARC-Concurrent-To"] == response["headers"]["WARC-Record-ID"]
    assert response["headers"]["WARC-Payload-Digest"] == "sha1:" + base64.b32encode(hashlib.sha1(response["body"]).digest()).decode()
    assert response["headers"]["Content-Type"] == "application/http; msgtype=response"
    assert response["http"].get_header("Content-Type") == "text/html"
    assert request["http"].get_header("Host") == "a.test"


def test_bounds_hold(site: Path, tmp_path: Path) -> None:
    sites = [Site("a.test", pages=2), Site("b.test"), Site("none.test")]
    with serve({"a.test": site, "b.test": site}) as port:
        assert crawl(sites, port, tmp_path / "pages", Bounds(pages=5)) == {"a.test.warc.gz": 2, "b.test.warc.gz": 2}
        assert crawl(sites[1:], port, tmp_path / "bytes", Bounds(bytes=100)) == {"b.test.warc.gz": 1}
        assert crawl(sites[1:], port, tmp_path / "time", Bounds(seconds=0)) == {}
    assert not (tmp_path / "pages" / "none.test.warc.gz").exists()


def test_only_links_below_the_start_are_followed(site: Path, tmp_path: Path) -> None:
    with serve({"a.test": site}) as port:
        assert crawl([Site("a.test", ("/sub/",))], port, tmp_path, Bounds()) == {"a.test.warc.gz": 1}


def test_links_of_hostile_pages() -> None:
    body = b'<a href="http://[x"><a href="//b.test/\xff y"><a href=" c.html "><a href="javascript:x()"><a href><a href="d.PDF">'
    page = Response(b"HTTP/1.0 200 OK\r\n\r\n" + body, 200, {"content-type": "text/html"})
    assert list(links("http://a.test/q/", page)) == ["http://b.test/%EF%BF%BD%20y", "http://a.test/q/c.html"]
