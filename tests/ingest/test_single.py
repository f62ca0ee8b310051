"""Tests folders of pages and texts."""

import gzip
from pathlib import Path

import lz4.frame
import zstandard

from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.original import original_of

TEXT = "# Title\n\nSome text, naïve.\n"


def test_each_file_is_a_document(tmp_path: Path, warcs, ingest) -> None:
    files = {
        "a/page.html": warcs.page(1),
        "a/latin.htm": "<meta charset=iso-8859-1><title>L</title><p>caf\xe9 au lait".encode("latin-1"),
        "a/page.xhtml.gz": gzip.compress(warcs.page(2)),
        "blank.html": b"<p></p>",
        "cut.txt.gz": gzip.compress(bytes(range(256)) * 400)[:-9],
        "image.png": b"\x89PNG",
        "large.txt": b"a" * ((1 << 20) + 1),
        "notes.md": TEXT.encode(),
        "notes.txt": b"\xef\xbb\xbf" + TEXT.encode(),
        "notes.text.zst": zstandard.ZstdCompressor().compress(TEXT.encode()),
        "notes.text.lz4": lz4.frame.compress(b"other " + TEXT.encode()),
    }
    for name, content in files.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    found = ingest(tmp_path / "in", extraction={"max_record_mb": 1})
    rows = {Path(row["source"]).name: row for row in found.data}
    assert {name: row["title"] for name, row in rows.items()} == {
        "page.html": "Title 1", "latin.htm": "L", "page.xhtml.gz": "Title 2",
        "notes.md": None, "notes.txt": None, "notes.text.zst": None, "notes.text.lz4": None,
    }  # fmt: skip
    assert rows["latin.htm"]["text"] == "café au lait" and rows["page.html"]["text"].startswith("word1x0 word1x1")
    assert rows["notes.md"]["text"] == rows["notes.txt"]["text"] == TEXT.strip()
    assert all(row["url"] is None and row["offset"] == 0 for row in found.data)
    assert rows["notes.md"]["id"] == rows["notes.text.zst"]["id"] != rows["notes.text.lz4"]["id"]
    kept = [row for row in found.report if row["kept"]]
    assert {row["record_type"]: row["content_type"] for row in kept} == {"html": "text/html", "text": "text/plain"}
    for row in kept:
        body = original_of(row, IngestConfig()).body
        assert len(body) == row["length"] and (row["record_type"] == "html") == body.startswith(b"<")
    failed = {Path(row["source"]).name: (row["record_type"], row["failed"]) for row in found.report if not row["kept"]}
    assert failed == {"large.txt": ("text", ["too_large"]), "blank.html": ("html", ["empty_text"]), "cut.txt.gz": ("damage", ["truncated"])}
