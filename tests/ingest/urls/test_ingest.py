"""Tests the URL filter in the stage: rows with their reasons, no useless extraction, and the inputs of a task's identity."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from corpusmill.pipeline.errors import ConfigError
from corpusmill.pipeline.recipe import validate_recipe
from corpusmill.report.answers.why import explain


@pytest.fixture
def options(tmp_path: Path, monkeypatch) -> dict:
    """Returns a filter with its own lists in its own cache."""
    monkeypatch.setenv("CORPUSMILL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "domains").write_text("bad.test.com\nworst.com\n")
    (tmp_path / "allow").write_text("fine.worst.com\n")
    return {
        "shipped_lists": False, "domains": [str(tmp_path / "domains")], "allow": [str(tmp_path / "allow")], "hard_words": ["vile"],
    }  # fmt: skip


def crawl(warcs) -> bytes:
    page, wet = warcs.page(1), {"type": "conversion", "warc_content_type": "text/plain", "body": b"some text"}
    return warcs.write(
        [
            {"url": "http://worst.com/a", "body": page},
            {"url": "http://worst.com/request", "type": "request", "body": b"", "headers": [("Host", "worst.com")]},
            {"url": "http://www.worst.com/VILE", "body": page, "status": "404 Not Found"},
            {"url": "http://fine.worst.com/b", "body": page},
            {"url": "http://good.com/c", "body": page},
            {"url": "http://x.bad.test.com/d", **wet},
            {"url": "http://good.com/e", **wet},
        ]
    )


def test_pages_are_dropped_by_their_urls_before_they_are_extracted(tmp_path: Path, warcs, ingest, options) -> None:
    (tmp_path / "a.warc.gz").write_bytes(crawl(warcs))
    found = ingest(tmp_path / "a.warc.gz", url_filter=options)
    rows = {row["url"]: (row["failed"], row["reason"]) for row in found.report}
    assert rows == {
        "http://worst.com/a": (["url_domain"], "the domain worst.com is listed"),
        "http://worst.com/request": (["record_type"], "a request record holds no page"),
        "http://www.worst.com/VILE": (
            ["status", "url_domain", "url_hard_word"],
            "HTTP status 404; the domain worst.com is listed; the URL has the word vile",
        ),
        "http://fine.worst.com/b": ([], "fine.worst.com is allowed, though the domain worst.com is listed"),
        "http://good.com/c": ([], None),
        "http://x.bad.test.com/d": (["url_subdomain"], "the host bad.test.com is listed"),
        "http://good.com/e": ([], None),
    }
    assert [row["url"] for row in found.report if row["encoding"]] == [row["url"] for row in found.data]  # the others were not even decoded
    assert len(found.data) == 3
    assert found.rows[0].failed["url_domain"] == 2
    console = Console(width=120, file=io.StringIO())
    explain(str(tmp_path / "run"), "http://www.worst.com/VILE").show(console)
    said = console.file.getvalue()
    assert "failed url_domain\n" in said and "failed url_hard_word\n" in said
    assert rows["http://www.worst.com/VILE"][1] in said
    # another content of a list is another result
    assert ingest(tmp_path / "a.warc.gz", url_filter=options).run.performed == 0
    Path(options["domains"][0]).write_text("worst.com\n")
    other = ingest(tmp_path / "a.warc.gz", url_filter=options)
    assert other.run.performed == 1 and len(other.data) == 4


def test_rows_of_collections_are_asked_too(tmp_path: Path, ingest, options) -> None:
    rows = [
        {"text": "some text", "url": url, "metadata": None} for url in ("http://worst.com/", "http://good.com/VILE", "http://good.com/")
    ]
    rows += [
        {"text": "some text", "url": None},
        {"text": "", "url": "http://worst.com/x"},
        {"text": "more", "metadata": {"url": "//worst.com"}},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    expected = [["url_domain"], ["url_hard_word"], [], [], ["empty_text", "url_domain"], ["url_domain"]]
    for name in ("rows.jsonl", "rows.parquet"):
        found = ingest(tmp_path / name, name=name + ".run", url_filter=options)
        assert [row["failed"] for row in found.report] == expected
        assert [row["chars_out"] for row in found.report] == [0, 0, 9, 9, 0, 0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preset": "c4"}, "ingest.url_filter.preset: input should be 'corpusmill' or 'datatrove', not 'c4'"),
        ({"lists": []}, "ingest.url_filter.lists: unknown key \\(expected one of preset, shipped_lists"),
        ({"hard_words": ["?"]}, "ingest.url_filter.hard_words.0: a word has letters a to z or digits"),
        ("datatrove", "ingest.url_filter: input should be"),
    ],
)
def test_options_that_do_not_fit_are_one_sentence(given: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate_recipe({"ingest": {"url_filter": given}}, "r.yaml")
