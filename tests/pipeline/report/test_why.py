import io
import re
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from rich.console import Console

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.report.why import why


def explain(run: Path, document: str) -> str:
    console = Console(file=io.StringIO(), width=80)
    why(str(run), document, console)
    return re.sub(r"\s+", " ", console.file.getvalue())  # type: ignore[attr-defined]


def identifier(run: Path, url: str) -> str:
    return str(ds.dataset(run / "ingest" / "report").to_table(filter=ds.field("url") == url)["id"][0])


def test_a_dropped_document_shows_all_failed_rules(run_folder: Path) -> None:
    text = explain(run_folder, "http://host2.test/page-14.html")
    assert "ingest: kept" in text and "from crawl-0.warc.gz, offset 14000, length 900" in text
    assert "filter: dropped" in text
    assert "failed short: words is 3, and fails if < 20 (by 17)" in text
    assert "failed symbols: symbol_ratio is 0.2, and fails if > 0.1 (by 0.1)" in text
    assert "language_score 0.9 < 0.65 (language)" in text
    assert "dedup" not in text
    assert "word14x0 word14x1 word14x2" in text


def test_a_copy_names_the_one_that_was_kept(run_folder: Path) -> None:
    text = explain(run_folder, "http://host2.test/page-41.html")
    kept = identifier(run_folder, "http://host1.test/page-43.html")
    assert "in a cluster of 4 documents" in text
    assert f"a copy of {kept}, which was kept: http://host1.test/page-43.html similarity 0.82, verified: exact_jaccard" in text
    removed = identifier(run_folder, "http://host2.test/page-41.html")
    assert f"the two word by word: corpusmill clusters {run_folder} --id {removed}" in text
    assert f"its copies: corpusmill clusters {run_folder} --id {kept}" in explain(run_folder, kept)


def test_a_document_that_went_all_the_way_has_tokens(run_folder: Path) -> None:
    text = explain(run_folder, "http://host1.test/page-4.html")
    assert re.search(r"its tokens: \d+, in split train, shard 0\b", text)


@pytest.mark.parametrize("length", [32, 12])
def test_by_id_and_its_beginning(run_folder: Path, length: int) -> None:
    url = "http://host2.test/page-14.html"
    assert explain(run_folder, identifier(run_folder, url)[:length]) == explain(run_folder, url)


def test_hostile_text_is_harmless(run_folder: Path, hostile_url: str) -> None:
    text = explain(run_folder, hostile_url)
    assert "before<script>alert(1)</script>" in text
    assert not any(c in text for c in "\x1b\u202e\x07")


def test_what_is_not_there(run_folder: Path, tmp_path: Path, builder: Any) -> None:
    for document in ("http://nowhere.test/", "ffffffffffff", "[a-z]", "\x1b[2J"):
        with pytest.raises(InputError, match="no document has the URL or id") as caught:
            explain(run_folder, document)
        assert "\x1b" not in str(caught.value)
    builder(tmp_path / "run", ())
    with pytest.raises(InputError, match="no stage of this run has a report"):
        explain(tmp_path / "run", "x")


def test_a_beginning_of_several_ids_is_refused(tmp_path: Path, builder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from corpusmill.pipeline.report import why_find as module

    builder(tmp_path / "run", ("ingest",))
    monkeypatch.setattr(module, "_ID", re.compile(r"[0-9a-f]{1,32}"))
    ids = sorted(ds.dataset(tmp_path / "run" / "ingest" / "report").to_table()["id"].to_pylist())
    first = next(c for c in "0123456789abcdef" if sum(i.startswith(c) for i in ids) > 1)
    with pytest.raises(InputError, match="documents have an id that begins so"):
        explain(tmp_path / "run", first)


def test_half_a_run_says_so(tmp_path: Path, builder: Any) -> None:
    builder(tmp_path / "run", ("ingest", "filter"))
    manifest = tmp_path / "run" / "filter" / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes().splitlines(keepends=True)[0])
    assert "Note: filter not finished" in explain(tmp_path / "run", "http://host1.test/page-10.html")
