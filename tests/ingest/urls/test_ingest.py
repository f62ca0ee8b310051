"""Tests the URL filter in the stage: rows with their reasons, no useless extraction, and the inputs of a task's identity."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from corpusmill.ingest import pages
from corpusmill.ingest.archive_walk import Raw
from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.pages import extract_page
from corpusmill.ingest.stage import IngestStage
from corpusmill.ingest.urls.filter import make_url_filter
from corpusmill.ingest.warc import parse_record
from corpusmill.pipeline.errors import ConfigError, InputError
from corpusmill.pipeline.recipe import validate_recipe
from corpusmill.report.answers.why import why


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
    assert found.rows[0].counts["failed:url_domain"] == 2


def test_a_page_that_is_dropped_by_its_url_is_never_parsed(options, monkeypatch) -> None:
    parsed = []
    monkeypatch.setattr(pages, "extract_page", lambda *given: parsed.append(given) or extract_page(*given))
    config = IngestConfig(url_filter=options)
    urls = make_url_filter(config.url_filter)
    urls.setup()
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>some text</p>"
    for url, failed in (("http://worst.com/", ["url_domain"]), ("http://good.com/", []), (None, [])):
        address = f"WARC-Target-URI: {url}\r\n" if url else ""
        head = f"WARC/1.0\r\nWARC-Type: response\r\n{address}Content-Type: application/http\r\nContent-Length: {len(block)}\r\n\r\n"
        record = parse_record(Raw(0, 9, head.encode(), block, len(block)), "warc", 1000)
        assert pages.record_row("a.warc", record, config, urls).failed == failed
    assert len(parsed) == 2


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


def test_another_list_is_another_result(tmp_path: Path, warcs, ingest, options) -> None:
    (tmp_path / "a.warc.gz").write_bytes(crawl(warcs))

    def kept(**config: object) -> tuple[int, int]:
        found = ingest(tmp_path / "a.warc.gz", **config)
        return found.run.performed, len(found.data)

    assert kept() == (1, 5)
    assert kept(url_filter=options) == (1, 3)
    assert kept(url_filter=options) == (0, 3)
    Path(options["domains"][0]).write_text("worst.com\n")
    assert kept(url_filter=options) == (1, 4)
    assert kept(url_filter={**options, "allow": []}) == (1, 3)


def test_a_missing_list_is_one_sentence(tmp_path: Path, warcs, ingest, options) -> None:
    (tmp_path / "a.warc.gz").write_bytes(crawl(warcs))
    with pytest.raises(InputError, match="none.txt: no such file"):
        ingest(tmp_path / "a.warc.gz", url_filter={**options, "urls": [str(tmp_path / "none.txt")]})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preset": "c4"}, "ingest.url_filter.preset: input should be 'corpusmill' or 'datatrove', not 'c4'"),
        ({"lists": []}, "ingest.url_filter.lists: unknown key, expected one of preset, shipped_lists, domains"),
        ({"hard_words": ["?"]}, "ingest.url_filter.hard_words.0: a word has letters a to z or digits"),
        ("datatrove", "ingest.url_filter: input should be"),
    ],
)
def test_options_that_do_not_fit_are_one_sentence(given: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate_recipe({"ingest": {"url_filter": given}}, "r.yaml")


def test_the_filter_is_off_unless_a_recipe_has_it() -> None:
    assert IngestStage.Config().url_filter is None
    assert IngestStage.Config.model_validate({"url_filter": {}}).url_filter["preset"] == "corpusmill"


def test_why_says_what_it_was(tmp_path: Path, warcs, ingest, options) -> None:
    (tmp_path / "a.warc.gz").write_bytes(crawl(warcs))
    found = ingest(tmp_path / "a.warc.gz", url_filter=options)
    console = Console(width=120, file=io.StringIO())
    why(str(Path(found.storage.root).parent), "http://www.worst.com/VILE", console)
    said = console.file.getvalue()
    assert "failed url_domain\n" in said and "failed url_hard_word\n" in said
    assert "HTTP status 404; the domain worst.com is listed; the URL has the word vile" in said
