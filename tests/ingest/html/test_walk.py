"""Tests the walk over serialised HTML, against lxml's tree and by hand."""

import re
from pathlib import Path

import lxml.html
import numpy as np
import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from hypothesis import given
from page_blocks import MARKUP, texts, walked

from corpusmill.ingest.html.main_text import tables
from corpusmill.ingest.html.tags import DROP, HINT_NAMES, KINDS, NAMES, RAW, fnv1a
from corpusmill.ingest.html.tree import Tree
from corpusmill.ingest.html.walk import (
    BOLDED,
    CHARS,
    FIRST,
    HINTS,
    ITEM,
    LAST,
    LINKED,
    NODE,
    OWN_HINTS,
    PARENT,
    ROW,
    TAG,
    TOO_DEEP,
    WHOLE,
    Page,
    hash_of,
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
        return walk(tree.root, *tables(), 1000), tree.serialised(tree.root).decode()


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


def test_nodes_hold_their_blocks() -> None:
    page = walked("<div><p>a</p><section><p>b</p>c</section></div><p>d</p>")
    for node in page.nodes[1:]:
        inside = [number for number, block in enumerate(page.blocks) if _is_below(page, block[NODE], node)]
        assert inside == list(range(node[FIRST], node[LAST]))


def _is_below(page, node: int, other) -> bool:
    while node >= 0:
        if page.nodes[node] is other or np.array_equal(page.nodes[node], other):
            return True
        node = page.nodes[node, PARENT]
    return False


@pytest.mark.parametrize(
    ("attributes", "hints"),
    [
        ('class="sideBar x"', {"sidebar"}),
        ('id="comments-12"', {"comment"}),
        ('role="navigation"', {"nav"}),
        ('itemprop="articleBody"', {"article", "body"}),
        ('style="color:red;display : none"', {"hidden"}),
        ("hidden", {"hidden"}),
        ('aria-hidden="true"', {"hidden"}),
        ('aria-hidden="false" data-class="comment" title="a > b"', set()),
        ('class="COMMENT"', {"comment"}),
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
        ("<iframe><p>x</p></iframe><noscript>no</noscript><svg><text>y</text></svg><select><option>z</select>rest", "rest"),
        ("so\u00adft \u200bhidden\ufeff", "soft hidden"),
        ("<p>a\x01\x0bb</p>", "a b"),
    ],
)
def test_escapes_comments_and_content_that_is_left_out(html: str, text: str) -> None:
    assert texts(walked(html)) == [text]


def test_deep_pages_are_marked() -> None:
    assert walked("<div>" * 60 + "x", 50).end == TOO_DEEP and walked("<div>" * 40 + "x", 50).end == WHOLE
    assert walked("<div></div>" * 500 + "x", 50).end == WHOLE


def test_the_kernel_hashes_as_the_tables() -> None:
    _, tags, words = tables()
    assert fnv1a(b"") == 0xCBF29CE484222325 and fnv1a(b"foobar") == 0x85944171F73967E8  # from the authors' test vectors
    assert hash_of(np.frombuffer(b"foobar", np.uint8)) == 0x85944171F73967E8
    assert {np.int64(np.uint64(fnv1a(name.encode()))) for name in NAMES if name} <= set(tags[:, 3])
    assert len(set(words[:, 0])) > 300


@given(MARKUP)
def test_no_text_is_lost_or_made_up(parts: list[str]) -> None:
    page, body = walked_and_serialised("".join(parts).encode())
    assert seen("".join(texts(page))) == seen(text_of(lxml.html.document_fromstring(f"<html>{body}</html>").find("body")))


def test_no_text_of_real_pages_is_lost(shared_data: Path) -> None:
    """Compares with lxml's text of the same serialised tree, which lxml's parser takes unchanged."""
    with open(shared_data / "realweb" / "scrapinghub.warc.gz", "rb") as file:
        pages = [record.reader.read() for record in ArchiveIterator(file, record_types=WarcRecordType.response)]
    different = []
    for body in pages:
        page, html = walked_and_serialised(body.decode("utf-8", "replace").encode())
        ours = seen("".join(texts(page)))
        theirs = seen(text_of(lxml.html.document_fromstring(f"<html>{html}</html>").find("body")))
        if ours != theirs:
            different.append((len(ours), len(theirs)))
    assert len(different) == 0, different
