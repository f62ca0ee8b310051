"""Tests ARC files: real forms of its lines, and damaged ones."""

import gzip
import io

import pytest

from corpusmill.ingest.archive_walk import Gap, parse_arc_line
from corpusmill.ingest.warc import Record, read_records

PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>hello"
RECORDS = [
    ("http://x.test/1", "text/html", PAGE),
    ("http://x.test/a page?q=1 2", "text/html; charset=utf-8", PAGE),
    ("dns:x.test", "text/dns", b"20140216050221\nx.test. 60 IN A 192.0.2.1\n"),
    ("http://x.test/data", "alexa/dat", b"alexa data\n\nmore"),
    ("https://x.test/2", "text/html", PAGE + b"\n\n"),
]


def read(content: bytes, layout: str = "plain", start: int = 0) -> list[Record | Gap]:
    return list(read_records(io.BytesIO(content), "arc", layout, start, len(content), 1 << 20))


@pytest.mark.parametrize("layout", ["plain", "gzip-frames", "gzip"])
def test_records_come_with_address_date_type_and_http(warcs, layout: str) -> None:
    records = warcs.arc(RECORDS)
    content = b"".join(map(gzip.compress, records)) if layout == "gzip-frames" else b"".join(records)
    parts = read(gzip.compress(content) if layout == "gzip" else content, layout)
    assert [p.type for p in parts] == ["arc_header", *["response"] * 5]
    assert [(p.url, p.block_type) for p in parts[1:]] == [(url, kind) for url, kind, _ in RECORDS]
    assert {p.timestamp for p in parts} == {"2014-02-16T05:02:21Z"}
    assert [p.status for p in parts[1:]] == [200, 200, None, None, 200]
    assert [p.body for p in parts[1:]] == [b"<p>hello", b"<p>hello", RECORDS[2][2], RECORDS[3][2], b"<p>hello\n\n"]
    assert [p.size for p in parts[1:]] == [len(block) for _, _, block in RECORDS]
    assert sum(p.length for p in parts) == len(content)
    if layout != "gzip":
        assert read(content, layout, parts[2].offset) == parts[2:]


def test_lines_of_both_versions_and_lines_that_are_none() -> None:
    line = parse_arc_line(b"http://x.test/ 192.0.2.1 19961115000000 text/html 200 - - 0 x.arc.gz 1234\r\n")
    assert line and (line.url, line.date, line.size) == (b"http://x.test/", b"19961115000000", 1234)
    line = parse_arc_line(b"http://x.test/ - 19961115 12\n")
    assert line and (line.type, line.size) == (b"", 12)
    for text in (
        b"http://x.test/ 192.0.2.1 20140216050221 text/html -1\n",
        b"no scheme 192.0.2.1 20140216050221 text/html 5\n",
        b"a:\n",
        b"\n",
    ):
        assert parse_arc_line(text) is None


def test_a_false_length_costs_its_record_and_no_other(warcs) -> None:
    content = b"".join(warcs.arc([(f"http://x.test/{n}", "text/html", PAGE) for n in range(4)]))
    whole = read(content)
    line = b"http://x.test/1 192.0.2.1 20140216050221 text/html "
    for length in (b"9999999", b"120", b"abc"):
        damaged = content.replace(line + b"%d\n" % len(PAGE), line + length + b"\n")
        parts = read(damaged)
        urls = [part.url for part in parts if isinstance(part, Record)]
        assert urls == [whole[0].url, "http://x.test/0", "http://x.test/2", "http://x.test/3"], length
        assert [p.offset for p in parts if isinstance(p, Gap)] == [whole[2].offset], length


def test_pages_of_an_arc_are_documents(tmp_path, warcs, ingest) -> None:
    path = tmp_path / "crawl.arc.gz"
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + warcs.page(1)
    path.write_bytes(b"".join(map(gzip.compress, warcs.arc([("http://x.test/1", "text/html", page), *RECORDS[2:4]]))))
    found = ingest(path)
    assert [(row["url"], row["title"], row["timestamp"]) for row in found.data] == [("http://x.test/1", "Title 1", "2014-02-16T05:02:21Z")]
    assert [(row["record_type"], row["failed"]) for row in found.report] == [
        ("arc_header", ["record_type"]), ("response", []), ("response", ["status"]), ("response", ["status"]),
    ]  # fmt: skip


def test_dates_that_are_none_are_no_timestamps() -> None:
    for date, timestamp in {"19961115": "1996-11-15T00:00:00Z", "199611150102": "1996-11-15T01:02:00Z", "20149916050221": None}.items():
        (record,) = read(f"http://x.test/ 192.0.2.1 {date} text/html 1\nx\n".encode())
        assert record.timestamp == timestamp
