"""Tests the whole stage: tables, tasks, damaged and refused files, and records found again by their place."""

import gzip
import json
import os
import random
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpusmill.ingest import inputs
from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.original import read_record
from corpusmill.ingest.rows import INGEST_DOCUMENTS, INGEST_REPORT
from corpusmill.ingest.stage import IngestWorker
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import file_ref
from corpusmill.pipeline.stage import Task
from corpusmill.pipeline.storage import Storage


def crawl(warcs) -> bytes:
    return warcs.write(
        [
            {"type": "warcinfo", "body": b"software: test\r\n"},
            *warcs.mixed(3),
            {"url": "http://x.test/404", "status": "404 Not Found", "body": warcs.page(9)},
            {"url": "http://x.test/png", "headers": [("Content-Type", "image/png")], "status": "403 No", "body": b"PNG"},
            {"url": "http://x.test/empty", "body": b"<html><body></body></html>"},
            {"url": "http://x.test/untyped", "headers": [], "body": b"<!DOCTYPE html><p>some text without a type"},
            {"url": "http://x.test/binary", "headers": [], "body": b"\0\1\2"},
            {
                "url": "http://x.test/zipped",
                "headers": [("Content-Type", "text/html"), ("Content-Encoding", "gzip")],
                "body": gzip.compress(warcs.page(5)),
            },
            {"url": "http://x.test/lie", "headers": [("Content-Type", "text/html"), ("Content-Encoding", "gzip")], "body": warcs.page(6)},
            {
                "url": "http://x.test/bomb",
                "headers": [("Content-Type", "text/html"), ("Content-Encoding", "gzip")],
                "body": gzip.compress(b"a" * 5_000_000),
            },
            {"url": "http://x.test/deep", "body": b"<div>" * 5000 + b"x"},
            {"url": "http://x.test/wet", "type": "conversion", "body": "Plain téxt\n".encode(), "warc_content_type": "text/plain"},
        ]
    )


def test_every_record_has_a_row_with_its_reasons(tmp_path: Path, warcs, ingest) -> None:
    path = tmp_path / "crawl.warc.gz"
    path.write_bytes(crawl(warcs))
    found = ingest(path)
    rows = {row["url"]: row for row in found.report if row["record_type"] in ("response", "conversion")}
    failed = {url.rsplit("/", 1)[1]: row["failed"] for url, row in rows.items()}
    assert failed == {
        "0": [], "1": [], "2": [], "404": ["status"], "png": ["status", "content_type"], "empty": ["empty_text"], "untyped": [],
        "binary": ["content_type"], "zipped": [], "lie": [], "bomb": ["too_large"], "deep": ["too_deep"], "wet": [],
    }  # fmt: skip
    assert [row["failed"] for row in found.report if row["record_type"] in ("request", "warcinfo")] == [["record_type"]] * 4
    assert rows["http://x.test/lie"]["reason"] == "says gzip but is not"
    assert rows["http://x.test/untyped"]["content_type"] == "text/html"
    assert all(row["reason"] for row in found.report if not row["kept"])
    texts = {row["url"]: row["text"] for row in found.data}
    assert texts["http://x.test/wet"] == "Plain téxt" and texts["http://x.test/zipped"].startswith("word5x0 word5x1")
    assert {row["url"]: row["chars_out"] for row in found.report if row["kept"]} == {u: len(t) for u, t in texts.items()}
    assert found.tables["data"].schema == INGEST_DOCUMENTS and found.tables["report"].schema == INGEST_REPORT
    assert found.data[0]["title"] == "Title 0" and found.data[0]["timestamp"] == "2024-05-01T00:00:00Z"
    counts = found.rows[0].counts
    assert counts["type:request"] == 3 and found.rows[0].failed["status"] == 2
    assert sum(r.rows_in for r in found.rows) == len(found.report) and sum(r.kept for r in found.rows) == len(found.data)
    again = ingest(path, name="again")
    assert [row.outputs for row in again.rows] == [row.outputs for row in found.rows]  # no times, nothing by chance


def test_pieces_of_files_equal_the_whole_even_of_damaged_ones(tmp_path: Path, warcs, ingest, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, random_ = tmp_path / "in", random.Random(4)
    folder.mkdir()
    frames = [gzip.compress(warcs.write([record], gzip=False)) for record in warcs.mixed(30)]
    arc = warcs.arc([(f"http://x.test/{n}", "text/html", b"HTTP/1.1 200 OK\r\n\r\n" + warcs.page(n)) for n in range(30)])
    for name, content in {
        "a.warc.gz": b"".join(frames),
        "b.warc": warcs.write(warcs.mixed(30), gzip=False),
        "c.arc": b"".join(arc),
    }.items():
        damaged = bytearray(content)
        for place in random_.sample(range(300, len(content)), 12):
            damaged[place] ^= 0xFF
        (folder / name).write_bytes(damaged[:-150])
    (folder / "d.jsonl").write_text("".join(json.dumps({"text": f"line {n} " * 20}) + "\n" for n in range(100)))
    pq.write_table(pa.table({"text": [f"row {n} " * 20 for n in range(100)]}), folder / "e.parquet", row_group_size=10, compression="none")
    whole = ingest(folder, name="whole")
    monkeypatch.setattr(inputs, "SMALLEST", 2000)
    tasks = ingest(folder, name="pieces")
    assert len([row for row in whole.report if row["record_type"] == "damage"]) > 10
    assert len(whole.rows) == 1 and len(tasks.rows) > 12 and max(row.bytes_in for row in tasks.rows) < 40_000
    assert [row.task for row in tasks.rows] == [f"part-{n:05d}" for n in range(len(tasks.rows))]
    assert all(tasks.tables[kind].equals(whole.tables[kind]) for kind in ("data", "report"))
    with pytest.raises(InputError, match="it is not the file that was ingested"):
        read_record(str(folder / "b.warc"), (folder / "b.warc").stat().st_size, 10)


def test_a_page_that_holds_a_warc_does_not_change_where_files_are_cut(
    tmp_path: Path, warcs, ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index of a range begins where a record seems to begin: inside such a page that is wrong, and must be noticed."""
    path = tmp_path / "a.warc"
    evil = {"url": "http://evil.test/", "body": b"<p>" + warcs.write(warcs.mixed(90), gzip=False) + random.Random(1).randbytes(20_000)}
    path.write_bytes(warcs.write([*warcs.mixed(20), evil, *warcs.mixed(60)], gzip=False))
    whole = ingest(path, name="whole")
    assert len(whole.report) == 2 * 80 + 1
    monkeypatch.setattr(inputs, "SMALLEST", 2000)
    monkeypatch.setattr(inputs, "TASKS", 100)
    tasks = ingest(path, name="pieces")
    assert all(tasks.tables[kind].equals(whole.tables[kind]) for kind in ("data", "report"))
    keys = [row.task for row in tasks.run.manifest.rows()]
    assert len(tasks.rows) > 16 and sum(key.startswith("index-") for key in keys) > 6 and "whole-00000-0000" in keys


@pytest.mark.parametrize("damage", [0, 9])
def test_gzip_members_are_cut_without_an_index_even_where_a_page_holds_members(
    damage: int, tmp_path: Path, warcs, ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is stored without compression (level 0), so the members of the archive in it stand in the file as they are."""
    path, random_ = tmp_path / "a.warc.gz", random.Random(damage)

    def pages(host: str, count: int) -> bytes:
        return warcs.write([{"url": f"http://{host}/{n}", "body": b"<p>" + random_.randbytes(1500).hex().encode()} for n in range(count)])

    evil = warcs.write([{"url": "http://evil.test/", "body": b"<p>" + pages("inner.test", 150)}], gzip=False)
    content = bytearray(pages("a.test", 120) + gzip.compress(evil, 0) + pages("b.test", 120))
    for place in random_.sample(range(300, len(content)), damage):
        content[place] ^= 0xFF
    path.write_bytes(content)
    whole = ingest(path, name="whole")
    assert {row["url"] and row["url"][7:11] for row in whole.report} >= {"a.te", "b.te"}
    monkeypatch.setattr(inputs, "SMALLEST", 5000)
    monkeypatch.setattr(inputs, "TASKS", 200)
    tasks = ingest(path, name="pieces")
    assert all(tasks.tables[kind].equals(whole.tables[kind]) for kind in ("data", "report"))
    assert {row.task[:5] for row in tasks.run.manifest.rows()} == {"part-"}
    assert sum(row.rows_in > 0 for row in tasks.rows) > 40


def test_a_file_that_is_not_what_its_name_says_is_a_row_among_others(tmp_path: Path, warcs, ingest) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.warc.gz").write_bytes(warcs.write(warcs.mixed(2)))
    (folder / "b.warc.gz").write_bytes(b"<html>not found</html>")
    (folder / "c.jsonl").write_bytes(b"")
    (folder / "d.cdx").write_bytes(b" CDX")
    (folder / ".done").touch()
    found = ingest(folder)
    assert [(row["record_type"], row["failed"]) for row in found.report[-2:]] == [("file", ["wrong_format"]), ("file", ["empty_file"])]
    assert len(found.data) == 2 and len(found.warnings) == 3
    assert found.warnings[0].startswith("left out 2 files without documents: 1 .cdx, 1 hidden (such as")
    assert "d.cdx" in found.warnings[0]
    with pytest.raises(InputError, match="b.warc.gz: not a WARC file, though its name says so"):
        ingest(folder / "b.warc.gz", name="alone")


def test_a_parquet_file_without_the_column_ends_the_run(tmp_path: Path, ingest) -> None:
    pq.write_table(pa.table({"content": ["some text"], "n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="a.parquet: no column 'text'"):
        ingest(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="a.parquet: column 'n' .*holds int64, not text"):
        ingest(tmp_path / "a.parquet", text_key="n")
    assert ingest(tmp_path / "a.parquet", name="other", text_key="content").data[0]["text"] == "some text"


def test_a_link_to_nothing_costs_its_file_and_no_other(tmp_path: Path, ingest) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/good.jsonl").write_text('{"text": "a line"}\n')
    (tmp_path / "in/gone.jsonl").symlink_to(tmp_path / "nowhere")
    found = ingest(tmp_path / "in")
    assert [row["source"] for row in found.data] == [f"{tmp_path}/in/good.jsonl"]
    (row,) = [row for row in found.report if not row["kept"]]
    assert row["failed"] == ["unreadable"] and row["reason"] == f"{tmp_path}/in/gone.jsonl: can't be read (No such file or directory)."


def test_a_name_that_is_not_utf_8_costs_its_file_and_no_other(tmp_path: Path, ingest, corpusmill) -> None:
    folder = os.fsencode(tmp_path / "in")
    (tmp_path / "in").mkdir()
    for name in (b"good.jsonl", b"caf\xe9.jsonl"):
        try:
            with open(folder + b"/" + name, "wb") as file:
                file.write(b'{"text": "a line"}\n')
        except OSError:
            pytest.skip("this file system takes no such name")
    found = ingest(tmp_path / "in")
    assert [row["source"] for row in found.data] == [f"{tmp_path}/in/good.jsonl"]
    (row,) = [row for row in found.report if not row["kept"]]
    assert row["source"] == f"{tmp_path}/in/caf\\xe9.jsonl" and row["failed"] == ["unreadable"] and "is not UTF-8" in row["reason"]
    assert any("caf\\xe9.jsonl: its name is not UTF-8" in warning for warning in found.warnings)
    alone = os.fsdecode(folder + b"/caf\xe9.jsonl")
    code, _, said = corpusmill("run", "fineweb", alone, "--output", tmp_path / "run", "--engine", "inline", "--to", "ingest")
    assert code == 2 and "caf\\xe9.jsonl: this name is not UTF-8" in said and "Traceback" not in said


def test_a_file_that_changed_since_it_was_listed_is_a_sentence(tmp_path: Path, ingest) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "old"}\n')
    listed = file_ref(str(path))
    path.write_text('{"text": "new"}\n')
    os.utime(path, ns=(0, 0))
    worker = IngestWorker(IngestConfig(), Storage(str(tmp_path / "run")), {"pages": False})
    worker.setup()
    segment = asdict(inputs.Segment("jsonl", "plain", 0, listed.bytes, listed.bytes))
    with closing(worker), pytest.raises(InputError, match=r"a\.jsonl: was changed or replaced since the run listed it"):
        list(worker.process(Task("part-00000", (listed,), {"segments": [segment]})))


@pytest.mark.long
def test_a_footer_that_takes_too_much_memory_costs_its_file_alone(tmp_path: Path, ingest) -> None:
    """The reader process reads the footer under its memory limit and may be killed; the process that runs the stage does not read it."""
    (tmp_path / "in").mkdir()
    wide = pa.table({f"column_{number}_{'x' * 20}": pa.array([1], pa.int8()) for number in range(40_000)})
    pq.write_table(wide, tmp_path / "in" / "wide.parquet", compression="none", use_dictionary=False, write_statistics=False)
    (tmp_path / "in" / "good.jsonl").write_text('{"text": "a line"}\n')
    found = ingest(tmp_path / "in", extraction={"max_memory_mb": 64})
    assert [row["text"] for row in found.data] == ["a line"]
    (refused,) = [row for row in found.report if not row["kept"]]
    assert refused["source"].endswith("wide.parquet") and refused["failed"][0] in ("unreadable", "out_of_memory")


def test_page_types_are_columns_and_a_rule(tmp_path: Path, warcs, ingest) -> None:
    sentence = "It has a headline, a day, and some sentences that end with a full stop. "
    story = f"<title>Story</title><body><article><h1>Story</h1>{f'<p>{sentence * 3}</p>' * 9}</article>"
    bodies = {
        "http://x.test/news/2024/05/a-story-of-some-days": story.encode(),
        "http://x.test/app": b"<body><div id=app></div><script src=x></script>",
        "http://x.test/nav": b"<body><footer class=footer><a href=/>Terms</a> <a href=/p>Privacy</a></footer>",
    }
    path = tmp_path / "crawl.warc.gz"
    path.write_bytes(warcs.write([{"url": url, "body": body} for url, body in bodies.items()]))
    for number, (options, first) in enumerate(
        [({}, []), ({"page_types": ["forum"]}, ["page_type"]), ({"page_types": ["article"], "page_type_score": 1}, ["page_type"])]
    ):
        found = ingest(path, name=str(number), **options)
        rows = [row for row in found.report if row["record_type"] == "response"]
        assert [row["failed"] for row in rows] == [first, ["only_scripts"], ["no_main_text"]]
        assert [row["page_type"] for row in rows] == ["article", None, None] and 0.5 < rows[0]["page_type_score"] < 1
        assert [(row["page_type"], row["page_type_score"]) for row in found.data] == [("article", rows[0]["page_type_score"])] * (not first)
