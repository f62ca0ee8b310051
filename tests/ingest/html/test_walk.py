"""Tests the walk over serialised HTML, against lxml's tree and by hand."""

import re
from pathlib import Path

import lxml.html
import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from hypothesis import given
from page_blocks import MARKUP, texts, walked

from corpusmill.ingest.html.main_text import tables
from corpusmill.ingest.html.tags import DROP, HINT_NAMES, KINDS, NAMES, RAW
from corpusmill.ingest.html.tree import Tree
from corpusmill.ingest.html.walk import (
    BOLDED,
    CHARS,
    HINTS,
    ITEM,
    LINKED,
    NODE,
    OWN_HINTS,
    PARENT,
    ROW,
    TAG,
    Page,
    walk,
)

LEFT_OUT = {name for kind in (RAW, DROP) for name in KINDS[kind].split()}
INVISIBLE = re.compile("[\\s\u00ad\u200b\ufeff\x00-\x20\x85\xa0]")


def seen(text: str) -> str:
    return INVISIBLE.sub("", text)


def text_of(element) -> str:
    """Returns all text of an lxml element except in elements that the walk leaves out."""
    parts = [element.text or ""] if isinstance(element.tag, str) and element.tag not in LEFT_OUT else []
    if parts:
        for child in element:
            parts += [text_of(child), child.tail or ""]
    return "".join(parts)


def walked_and_serialised(html: bytes) -> tuple[Page, str]:
    """Returns a page in blocks, and its body as lexbor writes it."""
    with Tree(html) as tree:
        return walk(tree.root, *tables(), 1000, False), tree.serialised(tree.root).decode()


def test_blocks_are_paragraphs_headings_items_and_cells() -> None:
    page = walked(
        "<h1>One &amp; <b>two</b></h1>loose <a href='x'>link</a><p>a<br>b<br><br>c</p>tail"
        "<ul><li>first<li><p>second</p><p>more</p></ul><table><tr><td>x<th>y</table><pre>\n  if a:\n\tb</pre>end"
    )
    tags = [NAMES[page.nodes[block[NODE], TAG]] for block in page.blocks]
    assert list(zip(tags, texts(page))) == [
        ("h1", "One & two"), ("body", "loose link"), ("p", "a\nb"), ("p", "c"), ("body", "tail"), ("li", "first"), ("p", "second"),
        ("p", "more"), ("td", "x"), ("th", "y"), ("pre", "  if a:\n\tb"), ("body", "end"),
    ]  # fmt: skip
    assert page.blocks[:, ITEM].tolist() == [0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
    assert page.blocks[0, [CHARS, LINKED, BOLDED]].tolist() == [7, 0, 3] and page.blocks[1, [CHARS, LINKED]].tolist() == [9, 4]
    assert page.blocks[8, ROW] == page.blocks[9, ROW] >= 0 and set(page.blocks[:8, ROW]) == {-1}


@pytest.mark.parametrize(
    ("attributes", "hints"),
    [
        ('class="sideBar x"', {"sidebar"}),
        ('role="navigation"', {"nav"}),
        ('itemprop="articleBody"', {"article", "body"}),
        ('style="color:red;display : none"', {"hidden"}),
        ('aria-hidden="true"', {"hidden"}),
        ('aria-hidden="false" data-class="comment" title="a > b"', set()),
    ],
)
def test_hints_of_names(attributes: str, hints: set[str]) -> None:
    page = walked(f"<div {attributes}><p>text</p></div>")
    found = page.nodes[page.blocks[0, NODE]]
    assert {name for bit, name in enumerate(HINT_NAMES) if found[HINTS] >> bit & 1} == hints and found[OWN_HINTS] == 0


def test_what_is_said_of_the_whole_page_is_no_hint() -> None:
    page = walked("<body class='comment'><p class='share'>text</p>")
    assert page.nodes[page.blocks[0, NODE], HINTS] == 1 << HINT_NAMES.index("share")


def test_what_follows_a_rule_lies_below_it() -> None:
    page = walked("<div><p>a</p><hr><p>b</p></div><p>c</p>")
    paragraphs = page.nodes[page.blocks[:, NODE]]
    assert texts(page) == ["a", "b", "c"]
    assert [NAMES[page.nodes[parent, TAG]] for parent in paragraphs[:, PARENT]] == ["div", "hr", "body"]


def test_elements_that_the_parser_does_not_know() -> None:
    assert texts(walked("<math><mi>x</mi><annotation>\\alpha</annotation></math><my-card>y</my-card>")) == ["xy"]


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>a<script>if (1 < 2) '</p>'</script>b</p>", "ab"),
        ("<p>a<!-- <b> -- > -->b<!----><!-->c</p>", "abc"),
        ("<p>a&lt;b&gt;c&amp;lt;&quot;&nbsp;d</p>", 'a<b>c&lt;" d'),
        ('<p title="</p><p>">a<b "x=1 ">b</b></p>', "ab"),
        ("<iframe><p>x</p></iframe><svg><text>y</text></svg><select><option>z</select>rest", "rest"),
        ("<p></p><noscript><img src=x><p>b</p></noscript>", "b"),
        ("so\u00adft \u200bhidden\ufeff", "soft hidden"),
        ("<p>a\x01\x0bb</p>", "a b"),
    ],
)
def test_escapes_comments_and_content_that_is_left_out(html: str, text: str) -> None:
    assert texts(walked(html)) == [text]


@given(MARKUP)
def test_no_text_is_lost_or_made_up(parts: list[str]) -> None:
    page, body = walked_and_serialised("".join(parts).encode())
    assert seen("".join(texts(page))) == seen(text_of(lxml.html.document_fromstring(f"<html>{body}</html>").find("body")))


def test_no_text_of_real_pages_is_lost(shared_data: Path) -> None:
    """Compares with lxml's text of the same serialised tree, which lxml's parser takes unchanged."""
    with open(shared_data / "realweb" / "scrapinghub.warc.gz", "rb") as file:
        pages = [record.reader.read() for record in ArchiveIterator(file, record_types=WarcRecordType.response)]
    different = []
    for body in pages[::3]:
        page, html = walked_and_serialised(body.decode("utf-8", "replace").encode())
        ours = seen("".join(texts(page)))
        theirs = seen(text_of(lxml.html.document_fromstring(f"<html>{html}</html>").find("body")))
        if ours != theirs:
            different.append((len(ours), len(theirs)))
    assert len(different) == 0, different
