"""Tests `corpusmill raw` by the command line: the original of every record, from every kind of file."""

import gzip
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import zstandard
from inline_run import run_inline
from warcio.archiveiterator import ArchiveIterator
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from corpusmill.pipeline.schemas import document_id
from corpusmill.report.query.run import Run

PAGES = [f"<html><body><p>{'A page about milling. ' * 20}Number {number}.</p></body></html>".encode() for number in range(3)]
LINES = [json.dumps({"url": f"http://lines.test/{n}", "text": f"Line {n}. " + "Grain to flour. " * 9}).encode() + b"\n" for n in range(2)]
LARGE, BOMB = b"<p>" + bytes(range(256)) * 6000, gzip.compress(b"\0" * 40_000_000, 9)


def warc(host: str, gzipped: bool) -> tuple[bytes, list[bytes]]:
    """Returns a WARC with a request and a gzip-encoded, chunked response for each page, and its records as warcio wrote them."""
    records = []
    for number, page in enumerate(PAGES):
        packed = gzip.compress(page, mtime=0)
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(packed), packed)
        fields = [("Content-Type", "text/html"), ("Content-Encoding", "gzip"), ("Transfer-Encoding", "chunked"), ("X-Sly", "\x1b[31mred")]
        for kind, payload, http in (
            ("request", b"", StatusAndHeaders("GET / HTTP/1.1", [("Host", host)], is_http_request=True)),
            ("response", body, StatusAndHeaders("200 OK", fields, protocol="HTTP/1.1")),
        ):
            one = io.BytesIO()
            writer = WARCWriter(one, gzip=False)
            record = writer.create_warc_record(
                f"http://{host}/{number}", kind, payload=io.BytesIO(payload), http_headers=http,
                warc_headers_dict={"WARC-Date": "2026-01-01T00:00:00Z"},
            )  # fmt: skip
            writer.write_record(record)
            records.append(one.getvalue())
    return b"".join(gzip.compress(r, mtime=0) if gzipped else r for r in records), records


def beyond_limits() -> bytes:
    """Returns a WARC of a page larger than the record limit, and one that decompresses beyond the limit."""
    out = io.BytesIO()
    writer = WARCWriter(out, gzip=True)
    for name, body, fields in (("large", LARGE, []), ("bomb", BOMB, [("Content-Encoding", "gzip")])):
        http = StatusAndHeaders("200 OK", [("Content-Type", "text/html"), *fields], protocol="HTTP/1.1")
        writer.write_record(writer.create_warc_record(f"http://{name}.test/", "response", payload=io.BytesIO(body), http_headers=http))
    return out.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Makes a run over one file of each kind."""
    tmp_path = tmp_path_factory.mktemp("raw")
    folder = tmp_path / "in"
    folder.mkdir()
    records: dict[str, list[bytes]] = {}
    zipped, records["a.warc.gz"] = warc("a.test", True)
    plain, records["b.warc"] = warc("b.test", False)
    one, records["c.warc.gz"] = warc("c.test", False)
    _, records["d.warc.gz"] = warc("d.test", False)
    files = {
        "a.warc.gz": zipped,
        "b.warc": records["b.warc"][0] + b"\0broken\r\n" * 20 + plain,
        "c.warc.gz": gzip.compress(one, mtime=0),  # one stream
        "d.warc.gz": b"".join(gzip.compress(b"".join(records["d.warc.gz"][i : i + 2]), mtime=0) for i in range(0, 6, 2)),
        "e.jsonl": b"".join(LINES) + b"{no json\n",
        "f.jsonl.gz": gzip.compress(b"".join(LINES).replace(b"lines", b"zipped"), mtime=0),
        "g.jsonl.zst": zstandard.ZstdCompressor().compress(b"".join(LINES).replace(b"lines", b"squeezed")),
        "i.csv": b'url,text\n"http://csv.test/","One, of\ntwo lines"\n,"never closed\n',
        "j.tsv.gz": gzip.compress(b"text\turl\nA row between tabs\thttp://tsv.test/\n"),
        "bad.warc.gz": zipped[: len(zipped) - 100],
        "beyond.warc.gz": beyond_limits(),
        "none.jsonl": b"",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    table = pa.table({"id": [f"p{n}" for n in range(3)], "text": [f"Row {n}. " + "Sieves and stones. " * 5 for n in range(3)]})
    pq.write_table(table, folder / "h.parquet", row_group_size=2)
    made = run_inline(tmp_path, "ingest: {extraction: {max_record_mb: 1}}\n", folder)
    rows = ds.dataset(made / "ingest" / "report").to_table().to_pylist()
    return SimpleNamespace(folder=made, rows=rows, records=records, files=files, inputs=folder)


def of_file(run: SimpleNamespace, name: str, **where: object) -> list[dict]:
    return [r for r in run.rows if r["source"].endswith(f"/{name}") and all(r[key] == value for key, value in where.items())]


def test_a_request_is_no_document(run: SimpleNamespace) -> None:
    """In what a session of Python says of the run."""
    pages = sum("record_type" not in row["failed"] for row in run.rows)
    assert pages < len(run.rows) and f" of {pages} documents kept" in repr(Run(str(run.folder)))


@pytest.mark.parametrize("name", ["a.warc.gz", "b.warc", "c.warc.gz", "d.warc.gz"])
def test_every_record_of_a_warc_byte_for_byte(run: SimpleNamespace, corpusmill, name: str) -> None:
    """Includes dropped requests; the decoded payload gives the id again, and warcio reads the output as the same record."""
    rows = [row for row in of_file(run, name) if row["record_type"] in ("request", "response")]
    for row, record in zip(rows[-6:], run.records[name], strict=True):
        code, out, _ = corpusmill("raw", run.folder, row["id"])
        assert code == 0 and out == record
        if row["record_type"] == "response" and row["url"][-1] == "2":
            code, head, _ = corpusmill("raw", run.folder, row["id"], "--part", "head")
            body = corpusmill("raw", run.folder, row["id"], "--part", "body")[1]
            assert document_id(row["url"], body) == row["id"] and body in PAGES
            theirs = next(iter(ArchiveIterator(io.BytesIO(out))))
            assert theirs.content_stream().read() == body
            assert head.endswith(b"\r\n\r\n") and record.startswith(head) and b"X-Sly" in head and b"<p>" not in head
            text = corpusmill("raw", run.folder, row["id"], "--part", "text")[1].decode()
            assert text.startswith("A page about milling.") and len(text) == row["chars_out"]


@pytest.mark.parametrize(("name", "host"), [("e.jsonl", b"lines"), ("f.jsonl.gz", b"zipped"), ("g.jsonl.zst", b"squeezed")])
def test_every_line_of_jsonl(run: SimpleNamespace, corpusmill, name: str, host: bytes) -> None:
    rows = of_file(run, name)
    for row, line in zip(rows, LINES, strict=False):
        assert corpusmill("raw", run.folder, row["id"][:12])[:2] == (0, line.replace(b"lines", host))
        body = corpusmill("raw", run.folder, row["id"], "--part", "body")[1]
        assert document_id(row["url"], body) == row["id"]
        assert corpusmill("raw", run.folder, row["url"], "--part", "text")[1].decode() == json.loads(line)["text"]
    if name == "e.jsonl":
        assert corpusmill("raw", run.folder, rows[-1]["id"])[:2] == (0, b"{no json\n")
    code, _, err = corpusmill("raw", run.folder, rows[0]["id"], "--part", "head")
    assert code == 2 and "a line has no headers" in err


def test_every_row_of_csv(run: SimpleNamespace, corpusmill) -> None:
    good, bad = of_file(run, "i.csv")
    assert corpusmill("raw", run.folder, good["id"])[:2] == (0, b'"http://csv.test/","One, of\ntwo lines"\n')
    assert corpusmill("raw", run.folder, "http://csv.test/", "--part", "body")[1] == b"One, of\ntwo lines"
    assert corpusmill("raw", run.folder, "http://tsv.test/", "--part", "body")[1] == b"A row between tabs"
    assert corpusmill("raw", run.folder, bad["id"])[:2] == (0, b',"never closed\n') and bad["failed"] == ["not_csv"]
    (run.inputs / "i.csv").write_bytes(run.files["i.csv"].replace(b"two", b"too"))
    code, _, err = corpusmill("raw", run.folder, good["id"])
    assert code == 2 and "at byte 9 lies another record" in err


def test_every_row_of_parquet(run: SimpleNamespace, corpusmill) -> None:
    rows = of_file(run, "h.parquet")
    assert len(rows) == 3
    for number, row in enumerate(rows):
        fields = json.loads(corpusmill("raw", run.folder, row["id"])[1])
        assert fields["id"] == f"p{number}" and document_id(fields["id"], fields["text"].encode()) == row["id"]


def test_damaged_stretches_as_they_lie_in_the_file(run: SimpleNamespace, corpusmill) -> None:
    damage = [row for row in run.rows if row["record_type"] == "damage"]
    assert {Path(row["source"]).name for row in damage} == {"b.warc", "bad.warc.gz"}
    for row in damage:
        content = (run.inputs / Path(row["source"]).name).read_bytes()
        code, out, _ = corpusmill("raw", run.folder, row["id"])
        assert code == 0 and out == content[row["offset"] : row["offset"] + row["length"]] and out
        code, _, err = corpusmill("raw", run.folder, row["id"], "--part", "body")
        assert code == 2 and err.count("\n") == 1


def test_what_can_not_be_shown_is_one_sentence(run: SimpleNamespace, corpusmill, tmp_path: Path) -> None:
    request = of_file(run, "a.warc.gz", record_type="request")[0]
    file = of_file(run, "none.jsonl")[0]
    page = of_file(run, "a.warc.gz", record_type="response")[0]
    for arguments, sentence in {
        ("0123456789abcdef",): "nothing that was ingested has the id or URL '0123456789abcdef'",
        ("http://a.test/none",): "nothing that was ingested",
        (page["id"][:3],): "nothing that was ingested",  # too short for the beginning of an id
        (request["id"], "--part", "text"): "it was dropped, so it has no text (a request record holds no page)",
        (file["id"],): "there is nothing in it",
    }.items():
        code, out, err = corpusmill("raw", run.folder, *arguments)
        assert code == 2 and not out and err.startswith("corpusmill: ") and err.count("\n") == 1 and sentence in err, err
    assert "not a run, as it has no run.json" in corpusmill("raw", tmp_path, "0123")[2]


@pytest.fixture
def originals(run: SimpleNamespace) -> Iterator[None]:
    """Checks after each test that the run's inputs are unchanged."""
    contents = {path: path.read_bytes() for path in run.inputs.iterdir()}
    yield
    for path, content in contents.items():
        path.write_bytes(content)


@pytest.mark.usefixtures("originals")
def test_a_source_that_changed_or_went_away(run: SimpleNamespace, corpusmill) -> None:
    warc_row = of_file(run, "a.warc.gz", record_type="response")[1]
    line = of_file(run, "e.jsonl")[1]
    (run.inputs / "e.jsonl").write_bytes(run.files["e.jsonl"].replace(b"Line 1", b"Lime 1"))
    (run.inputs / "h.parquet").unlink()
    code, _, err = corpusmill("raw", run.folder, line["id"])
    assert code == 2 and f"at byte {line['offset']} lies another record" in err
    code, _, err = corpusmill("raw", run.folder, of_file(run, "h.parquet")[0]["id"])
    assert code == 2 and "h.parquet: can't be read (No such file or directory)" in err
    other, _ = warc("other.test", True)
    (run.inputs / "a.warc.gz").write_bytes(other)
    code, out, err = corpusmill("raw", run.folder, warc_row["id"])
    assert code == 2 and not out and err.count("\n") == 1


def test_a_terminal_is_obeyed_in_nothing(run: SimpleNamespace, corpusmill) -> None:
    """On a real pseudo-terminal the server's escape sequence is removed; elsewhere it stays."""
    row = of_file(run, "a.warc.gz", record_type="response")[0]
    assert b"\x1b[31mred" in corpusmill("raw", run.folder, row["id"], "--part", "head")[1]
    command = [sys.executable, "-m", "corpusmill", "raw", str(run.folder), row["id"], "--part", "head"]
    master, slave = pty.openpty()
    subprocess.run(command, stdout=slave, check=True)
    os.close(slave)
    shown = os.read(master, 1 << 16)
    os.close(master)
    assert b"X-Sly: red" in shown and b"\x1b" not in shown


def test_records_beyond_the_limits_are_dropped_and_can_be_shown(run: SimpleNamespace, corpusmill, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = of_file(run, "beyond.warc.gz")
    assert [(row["url"], row["failed"]) for row in rows] == [("http://large.test/", ["too_large"]), ("http://bomb.test/", ["too_large"])]
    for row, body in zip(rows, (LARGE, BOMB), strict=True):
        whole = corpusmill("raw", run.folder, row["url"])[1]
        assert whole.startswith(b"WARC/1.0") and whole.endswith(b"\r\n\r\n" + body + b"\r\n\r\n")
    assert corpusmill("raw", run.folder, "http://large.test/", "--part", "body")[1] == LARGE
    code, out, err = corpusmill("raw", run.folder, "http://bomb.test/", "--part", "body")
    assert code == 2 and not out and "decompresses to more than ingest lets through" in err and err.count("\n") == 1
    monkeypatch.setattr("corpusmill.ingest.original.LARGEST", 100_000)
    code, _, err = corpusmill("raw", run.folder, "http://large.test/")
    assert code == 2 and "has more than 100000 bytes, too many to be shown" in err
