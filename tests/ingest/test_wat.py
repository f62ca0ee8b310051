"""Tests WAT files: rows of their own, and their data joined to the documents of WET files. The records have the layout of
Common Crawl's (ia-web-commons), with values of real ones.
"""

import json
from collections import Counter
from pathlib import Path

import pytest

from corpusmill.ingest import inputs, stage
from corpusmill.ingest.wat import pairs_of
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.formats.detect import InputFile
from corpusmill.pipeline.manifest import FileRef

DATE = "2024-05-18T01:58:10Z"


def envelope(number: int, **head: object) -> dict:
    return {
        "Container": {"Filename": "x.warc.gz", "Compressed": True, "Offset": "423"},
        "Envelope": {
            "Format": "WARC/1.0",
            "WARC-Header-Metadata": {
                "WARC-Type": "response", "WARC-Date": DATE, "WARC-Record-ID": f"<urn:uuid:page-{number}>",
                "WARC-Target-URI": f"http://x.test/{number}",
            },
            "Payload-Metadata": {
                "Actual-Content-Type": "application/http; msgtype=response",
                "HTTP-Response-Metadata": {
                    "Response-Message": {"Status": "200", "Version": "HTTP/1.1", "Reason": "OK"},
                    "Headers": {"content-type": "text/html; charset=utf-8"},
                    "HTML-Metadata": {"Head": {"Title": f" Page\n {number}", **head}, "Links": [{"path": "A@/href", "url": "/a"}]},
                },
            },
        },
    }  # fmt: skip


HEAD = {
    "Link": [
        {"path": "LINK@/href", "url": "/style.css", "rel": "stylesheet"},
        {"path": "LINK@/href", "url": "http://x.test/c", "rel": "canonical"},
    ],
    "Metas": [
        {"name": "Description", "content": "What it is about"}, {"property": "og:title", "content": "OG"},
        {"name": "description", "content": "again"}, {"http-equiv": "x-ua-compatible", "content": "ie=edge"}, {"name": "empty"},
    ],
}  # fmt: skip


def record(kind: str, number: int, body: bytes, refers_to: str | None, content_type: str, date: str = DATE) -> bytes:
    refers = f"WARC-Refers-To: {refers_to}\r\n" if refers_to else ""
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: http://x.test/{number}\r\nWARC-Date: {date}\r\n"
        f"WARC-Record-ID: <urn:uuid:{kind}-{number}>\r\n{refers}Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


def wat(numbers: list[int], refers: bool = True) -> bytes:
    said = [(n, envelope(n, **HEAD)) for n in numbers]
    return b"".join(
        record(
            "metadata", n, json.dumps(e).encode(), f"<urn:uuid:page-{n}>" if refers else None, "application/json", "2024-06-01T00:00:00Z"
        )
        for n, e in said
    )


def wet(numbers: list[int], refers: bool = True) -> bytes:
    return b"".join(
        record("conversion", n, b"Text of page %d." % n, f"<urn:uuid:page-{n}>" if refers else None, "text/plain") for n in numbers
    )


def put(folder: Path, **files: bytes) -> Path:
    for name, content in files.items():
        path = folder / name / f"CC-{name[3:] or 0}.warc.{name[:3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def test_what_wat_says_goes_into_the_documents_of_the_wet_of_its_name(tmp_path: Path, ingest) -> None:
    """Pages are found by the record that they refer to, and where they refer to none, by their address."""
    response = {"Headers": 5, "HTML-Metadata": {"Head": {"Metas": [3]}}}
    odd: list[object] = [
        {}, [], None, {"Envelope": []}, {"Envelope": {"Payload-Metadata": {"HTTP-Response-Metadata": response}}},
        {"Envelope": {"Payload-Metadata": {"HTTP-Request-Metadata": {"Headers": {}}}}},
    ]  # fmt: skip
    bodies = [json.dumps(o).encode() for o in odd] + [b"no json", b"[" * 100_000, b'{"Envelope": "\xff"}']
    nothing = b"".join(record("metadata", 1, body, "<urn:uuid:page-1>", "application/json") for body in bodies)
    files = {"wat0": wat([1, 2, 3]), "wet0": wet([1, 3, 4]), "wat1": wat([2, 3]), "wet1": wet([1, 3], refers=False),
             "wat2": nothing + wat([2]), "wet2": wet([1, 2]), "wet3": wet([3])}  # fmt: skip
    found = ingest(put(tmp_path / "in", **files))
    rows = {(row["source"][-10], row["url"][-1]): row for row in found.data}
    assert {place: row["title"] for place, row in rows.items()} == {
        ("0", "1"): "Page 1", ("0", "3"): "Page 3", ("0", "4"): None, ("1", "1"): None, ("1", "3"): "Page 3",
        ("2", "1"): None, ("2", "2"): "Page 2", ("3", "3"): None,
    }  # fmt: skip
    for place in (("0", "3"), ("1", "3")):
        assert json.loads(rows[place]["metadata"]) == {
            "canonical": "http://x.test/c", "content_type": "text/html; charset=utf-8", "http_status": 200,
            "metas": {"description": "What it is about", "og:title": "OG", "x-ua-compatible": "ie=edge"},
        }  # fmt: skip
    assert rows["0", "4"]["metadata"] is None and rows["2", "1"]["metadata"] == "{}" and rows["0", "1"]["text"] == "Text of page 1."
    kinds = Counter((row["record_type"], row["http_status"], *row["failed"]) for row in found.report)
    assert kinds == {("metadata", None, "record_type"): 6 + len(bodies), ("conversion", 200): 4, ("conversion", None): 4}


def test_another_wat_file_makes_exactly_the_tasks_of_its_wet_file_again(tmp_path: Path, ingest, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = put(tmp_path / "in", wat0=wat([1]), wet0=wet(list(range(60))), wat1=wat([2]), wet1=wet([1, 2]))
    whole = ingest(folder, name="whole")
    monkeypatch.setattr(inputs, "SMALLEST", 2000)
    pieces = ingest(folder, name="pieces")
    assert len(pieces.rows) > 4
    assert all(pieces.tables[kind].equals(whole.tables[kind]) for kind in ("data", "report"))
    before = {row.task: row.identity for row in pieces.run.manifest.rows()}
    (folder / "wat1" / "CC-1.warc.wat").write_bytes(wat([1]))
    again = ingest(folder, name="pieces")
    changed = [row.task for row in again.run.manifest.rows() if before.get(row.task) != row.identity]
    assert "wat-00001" in changed and "wat-00000" not in changed and 2 <= len(changed) <= 4
    assert {row["url"] for row in again.data if row["title"] and "CC-1" in row["source"]} == {"http://x.test/1"}


@pytest.mark.long
def test_a_record_that_the_process_which_reads_has_no_memory_for_costs_what_it_says_alone(tmp_path: Path, ingest) -> None:
    """The record has lists within a list: a few megabytes that become a hundred when parsed."""
    poison = record("metadata", 2, b"[" + b"[]," * 1_400_000 + b"0]", "<urn:uuid:page-2>", "application/json")
    folder = put(tmp_path / "in", wat=wat([1]) + poison + wat([3]), wet=wet([1, 2, 3]))
    found = ingest(folder, extraction={"max_memory_mb": 64})
    assert [row["title"] for row in found.data] == ["Page 1", None, "Page 3"]
    (row,) = [row for row in found.run.manifest.rows() if row.task == "wat-00000"]
    assert row.warnings == [
        f"{folder}/wat/CC-0.warc.wat: the description at byte {len(wat([1]))} is left out: its extraction took more than 64 MB "
        "(extraction.max_memory_mb)."
    ]


def test_a_wat_file_that_can_not_be_read_is_given_up_and_the_documents_come_without_it(
    tmp_path: Path, ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The WAT file disappears before it is read; the WET file is read, and once the other is back the same command joins it."""
    monkeypatch.setattr(inputs, "SMALLEST", len(wat([1])))  # a task for each file, none of them cut
    folder = put(tmp_path / "in", wat0=wat([1]), wet0=wet([1]))
    gone, kept = folder / "wat0" / "CC-0.warc.wat", tmp_path / "kept"
    look = stage.discover

    def discover(*given: object) -> object:
        found = look(*given)
        gone.rename(kept)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(stage, "discover", discover)
        found = ingest(folder)
    assert {row["url"]: row["title"] for row in found.data} == {"http://x.test/1": None}
    lost = found.run.manifest.quarantined
    assert len(lost) == 2 and {row.message for row in lost.values()} == {f"{gone}: no such file."}  # its records, and their data
    kept.rename(gone)
    whole = ingest(folder)
    assert {row["url"]: row["title"] for row in whole.data} == {"http://x.test/1": "Page 1"}
    assert not whole.run.manifest.quarantined and len(whole.report) == len(found.report) + 1


def test_where_no_index_of_a_file_can_be_made_it_is_read_whole(tmp_path: Path, ingest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "SMALLEST", 2000)
    path = put(tmp_path / "in", wet=wet(list(range(100)))) / "wet" / "CC-0.warc.wet"
    cut = ingest(path, name="cut")

    def process(self: object, piece: object) -> None:
        raise InputError("no index.")

    with monkeypatch.context() as patch:
        patch.setattr(stage.IndexWorker, "process", process)
        whole = ingest(path, name="whole")
    assert len(cut.rows) > 1 and len(whole.rows) == 1 and whole.data == cut.data
    assert {task.split("-")[0] for task in whole.run.manifest.quarantined} == {"index", "whole"}


def test_names_that_make_pairs() -> None:
    names = ["a/wat/X.warc.wat.gz", "a/wet/X.warc.wet.gz", "b/Y.wet", "b/Y.wat.zst", "b/Z.warc.wet", "b/X.warc.gz"]
    sources = [InputFile(FileRef(name, "", 1), "warc", "plain") for name in names]
    assert {wet: source.ref.path for wet, source in pairs_of(sources).items()} == {names[1]: names[0], names[2]: names[3]}
