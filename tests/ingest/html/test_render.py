"""Tests the text form of blocks."""

import numpy as np
from page_blocks import walked

from corpusmill.ingest.html.main_text import render


def rendered(html: str) -> str:
    page = walked(html)
    return render(page, np.ones(len(page.blocks), np.bool_)).tobytes().decode()


def test_paragraphs_headings_and_lines() -> None:
    assert rendered("<h2>Head</h2><p>one<br>two</p><blockquote>three</blockquote>") == "Head\n\none\ntwo\n\nthree"


def test_lists() -> None:
    assert rendered("before<ul><li>a<li>b<ol><li>c</ol></ul>after") == "before\n\n- a\n- b\n- c\n\nafter"
    assert rendered("<ul><li><p>a</p><p>a2</p><li>b</ul>") == "- a\n\na2\n\n- b"
    assert rendered("<dl><dt>term<dd>what it is<dt>other</dl>") == "term\nwhat it is\nother"


def test_tables_have_a_line_a_row_with_bars_between_cells() -> None:
    html = "<p>x</p><table><caption>title</caption><tr><th>a<th>b<tr><td>1<td><b>2</b></table><p>y</p>"
    assert rendered(html) == "x\n\ntitle\n\na | b\n1 | 2\n\ny"


def test_code_keeps_its_lines() -> None:
    assert rendered("<p>Do:</p><pre><code>for x in y:\n    print(x)\n\n    done()\n</code></pre>") == (
        "Do:\n\nfor x in y:\n    print(x)\n\n    done()"
    )


def test_only_kept_blocks_are_written() -> None:
    page = walked("<p>a</p><p>b</p><p>c</p>")
    assert render(page, np.array([True, False, True])).tobytes() == b"a\n\nc"
    assert render(page, np.zeros(3, np.bool_)).tobytes() == b""
