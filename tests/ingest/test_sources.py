"""Tests inputs as users give them, formats by content, and one sentence for each unusable input."""

import gzip
import io
from pathlib import Path

import lz4.frame
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from corpusmill.ingest.archive_walk import examine
from corpusmill.ingest.inputs import discover
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import expand, file_ref
from corpusmill.pipeline.formats.detect import Ignored, InputFile, Refused

JSONL = b'{"text": "a"}\n{"text": "b"}\n'


def put(folder: Path, name: str, content: bytes) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


def parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"text": ["a"]}), out)
    return out.getvalue()


def test_formats_are_known_by_content(tmp_path: Path, warcs) -> None:
    plain = warcs.write(warcs.mixed(2), gzip=False)
    arc = warcs.arc([("http://x.test/", "text/html", b"hello")])

    cases = {
        "a.warc": (plain, "warc", "plain"),
        "a.warc.gz": (warcs.write(warcs.mixed(2)), "warc", "gzip-frames"),
        "whole.warc.gz": (gzip.compress(plain), "warc", "gzip"),
        "a.warc.zst": (zstandard.ZstdCompressor().compress(plain), "warc", "zstd"),
        "no-suffix": (plain, "warc", "plain"),
        "frames.warc.lz4": (
            b"".join(lz4.frame.compress(warcs.write([record], gzip=False)) for record in warcs.mixed(2)),
            "warc",
            "lz4-frames",
        ),
        "a.arc": (b"".join(arc), "arc", "plain"),
        "frames.arc.gz": (b"".join(map(gzip.compress, arc)), "arc", "gzip-frames"),
        "a.jsonl": (JSONL, "jsonl", "plain"),
        "a.csv": (b"id,text\n1,hello\n", "csv", "plain"),
        "a.tsv.gz": (gzip.compress(b"id\ttext\n"), "csv", "gzip"),
        "page.html": (b"<p>hello", "html", "plain"),
        "notes.txt": (b"hello", "text", "plain"),
        "looks-like.md": (JSONL, "text", "plain"),
        "really-a-warc.txt": (plain, "warc", "plain"),
        "bad-first-line.jsonl": (b"rubbish\n" + JSONL, "jsonl", "plain"),
        "a.ndjson.zst": (zstandard.ZstdCompressor().compress(JSONL), "jsonl", "zstd"),
        "long.jsonl": (b'{"text": "' + b"a" * 100_000 + b'"}', "jsonl", "plain"),
        "a.parquet": (parquet(), "parquet", "plain"),
    }
    for name, (content, format_, layout) in cases.items():
        found = examine(file_ref(put(tmp_path, name, content)))
        assert isinstance(found, InputFile) and (found.format, found.layout) == (format_, layout), name


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (
            "a.warc.gz",
            b"<Error>AccessDenied</Error>",
            "not a WARC file, though its name says so (it begins with '<Error>AccessDenied</Error>').",
        ),
        ("a.warc.gz", gzip.compress(b"hello\x1b[31m", mtime=0), "not a WARC file, though its name says so (it begins with 'hello?[31m')."),
        ("a.json", b'{\n "text": "one"\n}\n', "not a JSONL file"),
        ("a.parquet", b"PAR1...", "not a readable Parquet file"),
        ("a.jsonl", b"", "there is nothing in it."),
        ("a.warc", b"filedesc://x 0.0.0.0 2024 text/plain 76\n", "not a WARC file, though its name says so (it holds ARC)."),
        ("a.csv", JSONL, "not a CSV file, though its name says so (it holds JSONL)."),
        ("a.csv", b"id,text\0", "not a CSV file, though its name says so (it begins with 'id,text?')."),
        ("a.txt", b"%PDF-1.4\n1 0 obj", "not a text file, though its name says so (it begins with '%PDF-1.4?1 0 obj')."),
        ("a.html.gz", gzip.compress(b"\x89PNG\r\n\x1a\n", mtime=0), "not an HTML file, though its name says so (it begins with '"),
        ("a.arc.gz", gzip.compress(JSONL, mtime=0), "not an ARC file, though its name says so (it holds JSONL)."),
    ],
)
def test_what_a_file_is_not_is_one_sentence(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    path = put(tmp_path, name, content)
    found = examine(file_ref(path))
    assert isinstance(found, Refused) and found.reason.startswith(f"{path}: {sentence}"), found
    assert "\n" not in found.reason
    with pytest.raises(InputError, match="nothing in it" if "nothing" in sentence else "not an? "):
        discover([path])


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        (b"id,body\n1,x\n", "no column 'text' (ingest.text_key) in its first line; it has id, body; --set ingest.text_key=NAME."),
        (b"text,text\n", "its first line names no columns ('text' is there twice)."),
        (b'"text\n', "its first line names no columns (a quote is not closed)."),
    ],
)
def test_a_csv_whose_first_line_does_not_name_the_text_is_one_sentence(tmp_path: Path, header: bytes, sentence: str) -> None:
    path = put(tmp_path, "a.csv", header)
    found = examine(file_ref(path))
    assert isinstance(found, InputFile) and found.fault == f"{path}: {sentence}"


def test_indexes_logs_and_markers_are_left_out(tmp_path: Path) -> None:
    for name, content in {"a.cdx": b" CDX N b a\n", "b.log": b"text", ".done": b"", "_SUCCESS": b"", "notes.pdf": b"hello"}.items():
        put(tmp_path, name, content)
    put(tmp_path, "c.jsonl", JSONL)
    put(tmp_path, "d.jsonl", b"")
    found = discover([str(tmp_path)])
    assert [Path(s.ref.path).name for s in found.sources] == ["c.jsonl"]
    assert [(Path(r.ref.path).name, r.rule) for r in found.refused] == [("d.jsonl", "empty_file")]
    assert [Path(i.path).name for i in found.ignored] == [".done", "_SUCCESS", "a.cdx", "b.log", "notes.pdf"]
    assert isinstance(examine(file_ref(str(tmp_path / "notes.pdf"))), Ignored)
    with pytest.raises(
        InputError, match="notes.pdf: not a WARC, ARC, JSONL, Parquet, CSV, TSV, HTML or text file; .* pdftotext .*notes.pdf .*notes.txt"
    ):
        discover([str(tmp_path / "notes.pdf")])


def test_files_folders_and_globs_in_sorted_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.jsonl", "a/2.jsonl", "a/1.jsonl", "a/[x].jsonl"):
        put(tmp_path, name, JSONL)
    monkeypatch.chdir(tmp_path)
    assert expand("a") == expand("a/") == ["a/1.jsonl", "a/2.jsonl", "a/[x].jsonl"]
    assert expand("**/*.jsonl") == ["a/1.jsonl", "a/2.jsonl", "a/[x].jsonl", "b.jsonl"]
    assert expand("a/[x].jsonl") == ["a/[x].jsonl"]
    assert [s.ref.path for s in discover(["b.jsonl", "*.jsonl", "a"]).sources] == ["b.jsonl", "a/1.jsonl", "a/2.jsonl", "a/[x].jsonl"]


def test_inputs_that_do_not_exist(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    put(tmp_path, "other/image.png", b"hello")
    for given, sentence in {
        str(tmp_path / "missing.warc.gz"): "no such file or folder.",
        str(tmp_path / "*.warc.gz"): "no file matches.",
        str(tmp_path / "empty"): "there is nothing in it.",
        str(tmp_path / "other"): "no WARC, ARC, JSONL, Parquet, CSV, TSV, HTML or text file in it (1 other files).",
        "nosuch://bucket/x": "this kind of URL can't be opened here",
    }.items():
        with pytest.raises(InputError) as caught:
            discover([given])
        assert str(caught.value).startswith(f"{given}: {sentence}") and caught.value.exit_code == 2
    with pytest.raises(InputError, match="no input was given"):
        discover([])


def test_folders_that_link_to_each_other_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "a/1.jsonl", JSONL)
    put(tmp_path, "a/deep/2.jsonl", JSONL)
    put(tmp_path, "b/3.jsonl", JSONL)
    for place, target in (("a/self", "../a"), ("a/dot", "."), ("a/deep/up", "../.."), ("a/b", "../b"), ("b/a", "../a")):
        (tmp_path / place).symlink_to(target)
    own = ["a/1.jsonl", "a/b/3.jsonl", "a/deep/2.jsonl", "a/deep/up/b/3.jsonl"]
    assert expand("a") == expand("a/**") == expand("a/**/*.jsonl") == own
    assert expand("a/**/[12].jsonl") == ["a/1.jsonl", "a/deep/2.jsonl"]
    assert expand("a/**/deep") == ["a/deep/2.jsonl", "a/deep/up/b/3.jsonl"]
    assert expand(f"{tmp_path}/**/2*") == [f"{tmp_path}/a/deep/2.jsonl", f"{tmp_path}/b/a/deep/2.jsonl"]


def test_no_wildcard_begins_a_hidden_name(tmp_path: Path) -> None:
    put(tmp_path, ".git/a.jsonl", JSONL)
    put(tmp_path, "b/.c.jsonl", JSONL)
    put(tmp_path, "b/d.jsonl", JSONL)
    assert expand(f"{tmp_path}/**/*.jsonl") == [f"{tmp_path}/b/d.jsonl"]
    assert expand(f"{tmp_path}/**/.*.jsonl") == [f"{tmp_path}/b/.c.jsonl"]
