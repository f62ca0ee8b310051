"""Tests hostile pages and files: each is a row with its reason, within the limits of time and memory, and its neighbours stay."""

import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import brotli
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.guard import ReaderGuard
from corpusmill.ingest.inputs import Segment

MIB = 1 << 20
HTML = ("Content-Type", "text/html; charset=utf-8")
#: A page's default memory limit (`extraction.max_memory_mb`), and the memory of its record.
ROOM_MB = 224 + 48


def gzip_zeros(gigabytes: int = 1) -> bytes:
    """Builds a gzip stream of zeros from copies of one compressed block; its checksum is wrong."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = compressor.compress(bytes(16 * MIB)) + compressor.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + block * (gigabytes * 64) + zlib.compress(b"", wbits=-15) + bytes(8)


def zstd_zeros(gigabytes: int = 1) -> bytes:
    return zstandard.compress(bytes(16 * MIB)) * (gigabytes * 64)


def chunked(body: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(body[i : i + 4096]), body[i : i + 4096]) for i in range(0, len(body), 4096)) + b"0\r\n\r\n"


def numbered(template: bytes, count: int) -> bytes:
    return b"".join(template % number for number in range(count))


N = 100_000
LINKED = b"<body><script type='application/ld+json'>"
#: A description of each page, and the rule that it fails; None where the page is harmless at its size.
PAGES: dict[str, tuple[Callable[[], bytes], str | None]] = {
    "div": (lambda: b"<div>" * N + b"x" + b"</div>" * N, "too_deep"),
    # the list of active formatting elements of HTML's tree builder
    "formatting": (lambda: numbered(b"<font color=a%d><p>", N), "out_of_memory"),
    "fostered": (lambda: b"<table>x<b>" * N, None),
    "attributes": (lambda: b"<div" + numbered(b" a%d=1", 1_000_000) + b">x</div>", "timeout"),
    "nuls": (lambda: bytes(15 * MIB), "empty_text"),
    "one line": (lambda: b"x" * (15 * MIB), None),
    "comment": (lambda: b"<!--" * (3 * MIB), "empty_text"),
    "siblings": (lambda: numbered(b"<p class=a%d>x", 200_000) + b"<p>x" * 200_000, "out_of_memory"),
    "noscript": (lambda: b"<body><noscript><div>" * N + b"x", "too_deep"),
    "nested data": (lambda: LINKED + b'{"comment":[' * N + b"]}" * N + b"</script>", "only_scripts"),
    "large data": (lambda: LINKED + b'{"text":"' + b"word " * (2 * MIB) + b'"}</script>', "only_scripts"),
    "wrong data": (lambda: LINKED + b'[{"text":7,"author":[{}],"mainEntity":[[{"text":[{}]}]]},[[3]],null]</script>', "only_scripts"),
    "too long": (lambda: b"x" * (17 * MIB), "too_large"),
    "math": (lambda: b"<p>x<math>" + b"<msqrt>" * 10_000 + b"<mi>y</mi>", "too_deep"),
    "maths": (lambda: b"<p>x" + b"<math><msup><mi>y</mi><mn>2</mn></msup></math>" * 2000, None),
    "asciimath": (lambda: b"<p>x<script type=math/asciimath>" + b"(" * MIB + b"</script>", None),
    "spans": (lambda: b"<table><tr><th colspan=1000000 rowspan=1000000>" + b"x" * 1000 + b"<th>y" + b"<tr><td>z" * 1000, None),
    "wide row": (lambda: b"<table><tr>" + b"<th>x" * 10_000 + b"<tr><td>z" * 10_000, None),
    "code": (lambda: b"<p>x<pre>" + b" \n`" * (MIB // 3), None),
    "quotes": (lambda: b"<blockquote>" * 900 + b"<p>x" * 1000, None),
}


def by_url(found: SimpleNamespace) -> dict[str, dict]:
    return {row["url"]: row for row in found.report if row["record_type"] == "response"}


def crawl(warcs: SimpleNamespace, pages: dict[str, dict]) -> bytes:
    """Makes a crawl with each page between two ordinary ones."""
    records = [{"url": "http://x.test/0", "body": warcs.page(0)}]
    for number, (name, page) in enumerate(pages.items(), 1):
        records += [{"url": name, **page}, {"url": f"http://x.test/{number}", "body": warcs.page(number)}]
    return warcs.write(records, gzip=False)


def neighbours_are_there(found: SimpleNamespace, count: int) -> None:
    assert [row["url"] for row in found.data if row["url"].startswith("http://x.test/")] == [f"http://x.test/{n}" for n in range(count + 1)]


@pytest.fixture
def shared_readers() -> None:
    """Starts readers for each run: their memory is measured."""


@pytest.fixture(scope="module")
def idle_mb(tmp_path_factory: pytest.TempPathFactory, warcs) -> int:
    """Returns the memory of a process that reads a harmless page: mostly mapped files, of which the kernel maps any amount
    (60 MB more where it holds them in larger pages).
    """
    path = tmp_path_factory.mktemp("sound") / "sound.warc"
    path.write_bytes(warcs.write(warcs.mixed(1), gzip=False))
    size = path.stat().st_size
    with closing(ReaderGuard(IngestConfig(), {})) as guard:
        assert len(list(guard.read([(str(path), size, asdict(Segment("warc", "plain", 0, size, size)))]))) == 1
        return guard.peak_mb


@pytest.mark.parametrize(
    ("names", "format"),
    [
        pytest.param(("div", "attributes", "nuls", "nested data", "math", "spans", "code"), "markdown", id="some, markdown"),
        pytest.param(tuple(PAGES), "text", id="all, text", marks=pytest.mark.long),
        pytest.param(tuple(PAGES), "markdown", id="all, markdown", marks=pytest.mark.long),
    ],
)
def test_hostile_pages(tmp_path: Path, warcs, ingest, idle_mb: int, names: tuple[str, ...], format: str) -> None:
    path, pages = tmp_path / "hostile.warc", {name: PAGES[name] for name in names}
    path.write_bytes(crawl(warcs, {name: {"body": body()} for name, (body, _) in pages.items()}))
    seconds = 1 if format == "text" else 3
    found = ingest(path, extraction={"max_page_seconds": seconds, "format": format})
    rows = by_url(found)
    for name, (_, rule) in pages.items():
        assert rows[name]["failed"] == ([rule] if rule else []), (name, rows[name])
        assert rows[name]["kept"] or rows[name]["reason"]
    assert rows["attributes"]["reason"] == f"its extraction took more than {seconds} seconds (extraction.max_page_seconds)"
    if "formatting" in rows:
        assert rows["formatting"]["reason"] == "its extraction took more than 224 MB (extraction.max_memory_mb)"
    neighbours_are_there(found, len(pages))
    assert found.reader_mb < idle_mb + ROOM_MB


def test_decompression_bombs(tmp_path: Path, warcs, ingest, idle_mb: int) -> None:
    zeros = gzip_zeros()
    bombs = {
        "zstd": ([("Content-Encoding", "zstd")], zstd_zeros()),
        "brotli": ([("Content-Encoding", "br")], brotli.compress(bytes(64 * MIB), quality=1)),
        "chunked": ([("Content-Encoding", "gzip"), ("Transfer-Encoding", "chunked")], chunked(zeros)),
        "thrice": ([("Content-Encoding", "gzip, br, zstd")], zstandard.compress(brotli.compress(zeros, quality=5))),
    }
    path = tmp_path / "bombs.warc"
    path.write_bytes(crawl(warcs, {name: {"headers": [HTML, *headers], "body": body} for name, (headers, body) in bombs.items()}))
    found = ingest(path, extraction={"max_page_seconds": 2})
    rows = by_url(found)
    for name in bombs:
        assert rows[name]["failed"] == ["too_large"] and "decompress to more than" in rows[name]["reason"], rows[name]
    neighbours_are_there(found, len(bombs))
    assert found.reader_mb < idle_mb + ROOM_MB


@pytest.mark.long
def test_a_page_of_200_mb_where_the_limit_lets_it_in(tmp_path: Path, warcs, ingest, idle_mb: int) -> None:
    path = tmp_path / "large.warc"
    path.write_bytes(crawl(warcs, {"large": {"body": b"x" * 200_000_000}}))
    found = ingest(path, extraction={"max_record_mb": 256, "max_decoded_mb": 256})
    assert [row["failed"] for row in found.report if not row["kept"]] == [["out_of_memory"]]
    neighbours_are_there(found, 1)
    assert found.reader_mb < idle_mb + ROOM_MB


def test_a_line_of_80_mb(tmp_path: Path, ingest, idle_mb: int) -> None:
    path = tmp_path / "large.jsonl"
    path.write_bytes(b'{"text": "before"}\n{"text": "' + b"x" * 80_000_000 + b'"}\n{"text": "after"}\n')
    found = ingest(path)
    assert [row["failed"] for row in found.report] == [[], ["too_large"], []] and found.report[1]["length"] > 80_000_000
    assert found.reader_mb < idle_mb


@pytest.mark.long
def test_a_line_that_json_makes_gigabytes_of(tmp_path: Path, ingest, idle_mb: int) -> None:
    path = tmp_path / "objects.jsonl"
    path.write_bytes(b'{"text": "before"}\n{"text": "x", "rest": [' + b"{}," * 5_000_000 + b'{}]}\n{"text": "after"}\n')
    found = ingest(path)
    assert [row["failed"] for row in found.report] == [[], ["out_of_memory"], []]
    assert found.report[1]["reason"] == "its extraction took more than 224 MB (extraction.max_memory_mb)"
    assert found.reader_mb < idle_mb + ROOM_MB


def test_a_stream_that_never_comes_to_its_next_line_is_given_up(tmp_path: Path, ingest) -> None:
    path = tmp_path / "endless.jsonl.zst"
    path.write_bytes(zstandard.compress(b'{"text": "before"}\n') + zstd_zeros(20))
    found = ingest(path, extraction={"max_page_seconds": 0.05})
    before, rest = found.report
    assert before["kept"] and (rest["failed"], rest["record_type"], rest["offset"]) == (["timeout"], "damage", 19)
    assert found.warnings == [f"{path}: reading it took more than 0.5 seconds (extraction.max_page_seconds)."]


def test_a_header_that_does_not_end(tmp_path: Path, warcs, ingest, idle_mb: int) -> None:
    sound = warcs.write(warcs.mixed(1), gzip=False)
    (tmp_path / "in").mkdir()
    for name, line in {"lines": b"X-Header: value\r\n" * 2_000_000, "line": b"X-Header: " + b"x" * 32_000_000}.items():
        (tmp_path / "in" / f"{name}.warc").write_bytes(sound + b"WARC/1.0\r\nWARC-Type: response\r\n" + line + b"\r\n" + sound)
    found = ingest(tmp_path / "in")
    assert [row["failed"] for row in found.report] == [["record_type"], [], ["corrupt"], ["record_type"], []] * 2
    assert {row["reason"] for row in found.report if row["failed"] == ["corrupt"]} == {f"the header does not end (byte {len(sound)})"}
    assert found.reader_mb < idle_mb + 100


@pytest.mark.long
@pytest.mark.parametrize("name", ["large", pytest.param("small", marks=pytest.mark.long)])
def test_records_that_are_bombs(tmp_path: Path, warcs, ingest, idle_mb: int, name: str) -> None:
    """One record declares its large size, and one declares a small size."""
    header = b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://bomb.test/\r\nWARC-Date: 2024-05-01T00:00:00Z\r\n"
    header += b"WARC-Record-ID: <urn:uuid:b7e2b7e2-0000-0000-0000-000000000000>\r\nContent-Type: application/http; msgtype=response\r\n"
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
    sound = warcs.write(warcs.mixed(1))
    declared = len(page) + ((2 << 30) if name == "large" else 0)
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    beginning = compressor.compress(header + b"Content-Length: %d\r\n\r\n" % declared + page) + compressor.flush(zlib.Z_FULL_FLUSH)
    path = tmp_path / f"{name}.warc.gz"
    path.write_bytes(sound + beginning + gzip_zeros(2)[10:] + sound)
    found = ingest(path)
    assert [row["url"] for row in found.data] == ["http://example.test/0"] * 2
    (bomb,) = [row for row in found.report if row["record_type"] == "response" and not row["kept"]]
    assert bomb["failed"] == (["too_large"] if name == "large" else ["empty_text"])
    assert all(row["offset"] == len(sound) and row["length"] == path.stat().st_size - 2 * len(sound) for row in found.report[2:-2])
    assert found.report[-3]["failed"] == (["too_large"] if name == "large" else ["corrupt"])
    assert found.reader_mb < idle_mb + ROOM_MB - 100


@pytest.mark.long
def test_a_value_of_a_gigabyte_in_a_row_group_among_others(tmp_path: Path, ingest, idle_mb: int) -> None:
    path = tmp_path / "cell.parquet"
    schema = pa.schema([("text", pa.large_string())])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for texts in (["zero", "one"], ["two", "x" * 300_000_000, "four"], ["five"]):
            writer.write_table(pa.table({"text": texts}, schema=schema))
    found = ingest(path)
    assert [row["text"] for row in found.data] == ["zero", "one", "five"]
    (lost,) = [row for row in found.report if not row["kept"]]
    assert (lost["failed"], lost["offset"], lost["length"]) == (["out_of_memory"], 2, 3)
    assert lost["reason"].startswith("row group 1 from row 2 on: reading it took more than 224 MB")
    assert found.reader_mb < idle_mb + ROOM_MB
