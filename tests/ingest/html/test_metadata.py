"""Tests title, author, date and canonical address, by hand and against trafilatura's own."""

import json
import re
from itertools import islice
from pathlib import Path

import pytest
import trafilatura
from fastwarc.warc import ArchiveIterator, WarcRecordType

from corpusmill.ingest.html.main_text import blocks_of
from corpusmill.ingest.html.metadata import Metadata, read_head, read_metadata
from corpusmill.ingest.html.tree import Tree

URL = "http://site.test/2019/11/18/story.html"


def read(head: str, body: str = "", url: str | None = None) -> Metadata:
    return of(f"<html><head>{head}</head><body>{body}</body></html>", url)


def of(html: str, url: str | None) -> Metadata:
    with Tree(html.encode()) as tree:
        page = blocks_of(tree, 1000)
        return read_metadata(tree, page, read_head(tree, page), url)


def test_metas_go_first() -> None:
    found = read(
        "<title>Story - Site</title><meta property='og:title' content='A &amp; story'><meta name='Author' content=' Jane  Doe '>"
        "<meta property='article:published_time' content='2021-03-04T10:00:00Z'><link rel='canonical' href='/story'>",
        url=URL,
    )
    assert found == ("A & story", "Jane Doe", "2021-03-04", "http://site.test/story")


def test_linked_data_comes_next() -> None:
    data = {"@graph": [{"@type": "WebSite"}, {"author": [{"name": "A. B."}, {"name": "C. D."}], "datePublished": "2020-01-02"}]}
    script = f'<script type="application/ld+json">{json.dumps(data)}</script>'
    for found in (read(script), read("", script), read('<script type="application/ld+json">{broken</script>', script)):
        assert found[1:3] == ("A. B., C. D.", "2020-01-02")


def test_marked_elements_and_the_url_come_last() -> None:
    assert read("", '<p class="byline">By Jane</p><time datetime="2018-05-06T01:00">x</time>')[1:3] == ("Jane", "2018-05-06")
    assert read("", '<p class="date">Stand: 7. 5. 2017</p>').date == "2017-05-07"
    assert read("", "", URL).date == "2019-11-18" and read("", "", "http://site.test/2019/13/18/").date is None


def test_marked_authors() -> None:
    for mark in ("class='x author'", "class=byline", "itemprop='name author'", "rel=author"):
        assert read("", f"<p>a</p><span {mark}>Jane <b>Doe</b></span><p class=author>other</p>").author == "Jane Doe"
    assert read("", "<meta itemprop=author content='Jane'><p class=author>x</p>").author == "Jane"
    assert read("", "<p class='authors author-box' id=author rel=byline>x</p>").author is None
    assert of("<body class=author><p>x</p>", None).author is None, "what is said of the whole page says nothing about its parts"


@pytest.mark.parametrize(
    ("texts", "author", "date"),
    [
        (["By Jane Doe", "May 6, 2018"], "Jane Doe", "2018-05-06"),
        (["Written by: Jane Doe, CEO of Site"], "Jane Doe", None),
        (["Published August 7, 2023 by Jane Doe"], "Jane Doe", "2023-08-07"),
        (["by jdoe", "6 May 2018 • 8 minutes"], "jdoe", "2018-05-06"),
        (["Jane Doe•Oct 20, 2025"], "Jane Doe", "2025-10-20"),
        (["Jane van Doe", "Travel", "Oct 20, 2025"], None, "2025-10-20"),
        (["Thread starter jdoe"], "jdoe", None),
        (["By the way, this is a sentence."], None, None),
        (["Jane Doe"], None, None),
        (["On 6 May 2018 the council met, and what it said there was heard in all the land. " * 2], None, None),
    ],
)
def test_short_texts_around_the_heading_come_last(texts: list[str], author: str | None, date: str | None) -> None:
    body = "<p>Friday, December 19, 2025</p><p>menu</p><p>home</p><p>search</p><h1>A story that is told here</h1>" + "".join(
        f"<p>{text}</p>" for text in texts
    )
    found = read("<meta property=og:site_name content='The Site'><meta name=author content='the site'>", body)
    assert found[1:3] == (author or "the site", date or "2025-12-19")
    assert read("<meta name=author content=Jim><meta name=date content=2001-02-03>", body)[1:3] == ("Jim", "2001-02-03")


@pytest.mark.parametrize("name", ["@handle", "https://site.test/jane", "x" * 600, "Author", "jane@site.test", "May 6, 2018"])
def test_what_is_no_name(name: str) -> None:
    assert read(f"<meta name=author content='{name}'>").author is None


@pytest.mark.parametrize("href", ["", "javascript:x", "http://[broken"])
def test_what_is_no_address(href: str) -> None:
    assert read(f"<link rel=canonical href='{href}'>").canonical_url is None


def plain(text: str | None) -> str:
    return re.sub(r"\W+", " ", text or "").strip().lower()


def test_titles_and_canonical_addresses_agree_with_trafilatura(shared_data: Path) -> None:
    titles = addresses = count = 0
    with open(shared_data / "realweb" / "scrapinghub.warc.gz", "rb") as file:
        for record in islice(ArchiveIterator(file, record_types=WarcRecordType.response), 60):
            body, url = record.reader.read(), record.headers["WARC-Target-URI"]
            ours = of(body.decode("utf-8", "replace"), url)
            theirs = trafilatura.extract_metadata(body, default_url=url)
            count += 1
            titles += plain(ours.title) in plain(theirs.title) or plain(theirs.title) in plain(ours.title)
            addresses += ours.canonical_url is None or plain(ours.canonical_url) == plain(theirs.url)
    assert titles > 0.95 * count and addresses > 0.9 * count
