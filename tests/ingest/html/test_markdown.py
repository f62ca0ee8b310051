"""Tests Markdown by hand and against markdown-it, html5lib and pandas, and that verdicts do not depend on the format."""

import io
import re
from collections import Counter
from itertools import islice
from pathlib import Path

import html5lib
import pandas
import pytest
import yaml
from fastwarc.warc import ArchiveIterator, WarcRecordType
from hypothesis import given
from inline_run import run_inline
from markdown_it import MarkdownIt
from page_blocks import MARKUP

from corpusmill.ingest.charset import decode_text
from corpusmill.ingest.config import ExtractionConfig
from corpusmill.ingest.pages import extract_page
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.storage import Storage

READER = MarkdownIt("commonmark").enable("table").disable(["emphasis", "html_inline", "html_block", "link", "image", "autolink", "entity"])
XHTML = "{http://www.w3.org/1999/xhtml}"


def marked(html: str, **options: object) -> str:
    return extract_page(html, "http://x.test/a/", ExtractionConfig(format="markdown", **{"main_content": False, **options})).text


def pages(path: Path, count: int) -> list[str]:
    with open(path, "rb") as file:
        return [decode_text(record.reader.read(), None).text for record in islice(ArchiveIterator(file, WarcRecordType.response), count)]


def words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text)


@pytest.mark.parametrize(
    ("html", "markdown"),
    [
        ("<h1>One <b>two</b></h1><h3><div>Three</div></h3><p>a<br>b", "# One two\n\n### Three\n\na\nb"),
        ("<blockquote><p>q<p>r<ul><li>x<li>y</ul></blockquote>z", "> q\n>\n> r\n>\n> - x\n> - y\n\nz"),
        ("<ol start=3><li>a<p>b</p><pre>\n\n c\n</pre><li>d<ul><li>e</ul></ol>", "3. a\n\n   b\n\n   ```\n\n    c\n   ```\n\n4. d\n   - e"),
        ("<p>use <code>a`b</code> and <kbd> x  y </kbd></p>", "use ``a`b`` and `x y`"),
        ("<p># no<br>---<br>``` x<br>#yes</p>", "\\# no\n\\---\n\\``` x\n#yes"),
        ("<div class='highlight-sh notranslate'><div><pre>$ <i>ls</i>\n</pre></div></div>", "```sh\n$ ls\n```"),
        ("<pre><code class='hljs language-C++'>a ```\n</code></pre>", "````c++\na ```\n````"),
        ("<pre><div> a</div><div>b\n</div>c<br>d\xa0\u200be\t\n\n</pre>", "```\n a\nb\nc\nd\xa0\u200be\t\n\n```"),
        (
            "<table><caption>C</caption><tfoot><tr><td>z</tfoot><tr><th rowspan=2>A<th colspan=2>B<tr><td>1<td>2|3<tr><td>x<td><p>p<p>q<td>"
            "</table>r",
            "C\n\n| A | B | B |\n| --- | --- | --- |\n| A | 1 | 2\\|3 |\n| x | p<br>q |  |\n| z |\n\nr",
        ),
        ("<pre>\n  <p>a</p> \n\t<p>b</p>c<p> </p> <p>d</p></pre>", "```\n  a \n\tb\nc  \nd\n```"),
        ("<table><tr><td>menu<td>text</table>", "menu\n\ntext"),
        ("<ul><li><table><tr><th>a<th><ul><li>b</ul></table></ul><pre><ul><li>c</ul></pre>", "- | a | b |\n  | --- | --- |\n\n```\nc\n```"),
        ("<table role=presentation><tr><th>a<th>b<tr><td>c<td>d</table>", "a\n\nb\n\nc\n\nd"),
        ("<table><tr><th>a<th>b<tr><td>c<td><pre>d</pre></table>", "a\n\nb\n\nc\n\n```\nd\n```"),
    ],
)
def test_forms(html: str, markdown: str) -> None:
    assert marked(html) == markdown


def test_links_are_optional() -> None:
    html = "<p>See <a href='b?c=(1)'>the <code>b</code></a>, <a href='#x'>here</a> and <a name=y></a>there."
    assert marked(html) == "See the `b`, here and there."
    assert marked(html, links=True) == "See [the `b`](http://x.test/a/b?c=%281%29), here and there."


def test_the_plain_text_keeps_code() -> None:
    text = "<p>x</p><pre>\n  a\n\n\tb</pre><pre><p>c</p><p> d</p></pre><p>e</p><pre> \n</pre><p>f</p>"
    assert extract_page(text, None, ExtractionConfig(main_content=False)).text == "x\n\n  a\n\n\tb\n\nc\n d\n\ne\n\nf"


def contents(markdown: str) -> str:
    """Returns the text that markdown-it reads: without marks, code and cells as they are."""
    return "\n".join(token.content for token in READER.parse(markdown) if token.content)


@given(MARKUP)
def test_marks_change_no_word(parts: list[str]) -> None:
    found = extract_page("".join(parts), None, ExtractionConfig(format="markdown", main_content=False))
    plain = extract_page("".join(parts), None, ExtractionConfig(main_content=False)).text
    assert found.plain == plain and words(found.text) == words(plain)


def test_real_pages(shared_data: Path) -> None:
    """No word is lost or moved but in tables, whose spans are repeated; every <pre> stands in a fence byte for byte."""
    codes, different = 0, []
    for html in pages(shared_data / "realweb/readability.warc.gz", 130):
        found = extract_page(html, None, ExtractionConfig(format="markdown"))
        if (
            words(re.sub(r"`\w+\n|<br>", "", contents(found.text))) != words((found.plain or "").replace("<br>", ""))
            and "| --- |" not in found.text
        ):
            different.append(found.text)
        fences = Counter(token.content for token in READER.parse(found.text) if token.type == "fence")
        for pre in html5lib.parse(html).iter(f"{XHTML}pre") if found.text and "<pre" in html else ():
            if "".join(pre.itertext()).strip() and not pre.findall(f".//{XHTML}br"):
                codes += 1
                fences["".join(pre.itertext()).removesuffix("\n") + "\n"] -= 1
        assert not -fences
    assert codes > 100 and not different


def test_tables_with_spans_as_pandas_reads_them(shared_data: Path) -> None:
    same = 0
    for html in pages(shared_data / "realweb/readability.warc.gz", 130):
        for table in re.findall(r"<table(?:(?!</?table).)*(?:row|col)span=.?[2-9](?:(?!</?table).)*</table>", html, re.DOTALL):
            table = re.sub(r"<(style|button|svg)\b.*?</\1>", "", table, flags=re.DOTALL)
            if "<pre" in table or re.search("<h[1-6]", table) or not (written := marked(table)).count("| --- |"):
                continue
            cells = pandas.read_html(io.StringIO(table), header=None, keep_default_na=False, displayed_only=False, thousands=None)[0]
            names = [re.sub(r"^Unnamed: .*|^\d+$|\.\d+$", "", str(name)) for name in cells.columns.to_frame().T.to_numpy().ravel()]
            theirs = Counter(re.sub(r"\W", "", str(cell)) for cell in [*names, *cells.astype(str).to_numpy().ravel()])
            lines = [line for line in written.split("\n") if line.startswith("| ") and set(line) - set("| -")]
            ours = Counter(re.sub(r"<br>|\W", "", cell) for line in lines for cell in re.split(r"(?<!\\)\|", line))
            assert {cell: count for cell, count in ours.items() if cell} == {cell: count for cell, count in theirs.items() if cell}
            same += 1
    assert same > 3


RECIPE = {
    "ingest": {"extraction": {"links": True}},
    "filter": {"steps": ["gopher_repetition", "gopher_quality", "fineweb_quality", "c4", "compression", "pii", "stop_words"]},
}


@pytest.mark.long
def test_verdicts_do_not_depend_on_the_format(tmp_path: Path, shared_data: Path) -> None:
    found = {}
    for format in ("text", "markdown"):
        RECIPE["ingest"]["extraction"]["format"] = format
        (tmp_path / format).mkdir()
        run = run_inline(tmp_path / format, yaml.safe_dump(RECIPE), shared_data / "realweb/readability.warc.gz", last="filter")
        found[format] = [read_table(Storage(str(run)), str(path.relative_to(run))).to_pylist() for path in sorted(run.glob("filter/*/*"))]
    (documents, *_), (marked_documents, *_) = found["text"], found["markdown"]
    reports = [[{**row, "chars_in": 0, "chars_out": 0} for row in tables[1]] for tables in found.values()]
    assert repr(reports[0]) == repr(reports[1]) and 10 < sum(row["kept"] for row in reports[0]) < len(reports[0])
    assert [row["id"] for row in documents] == [row["id"] for row in marked_documents]
    assert all("plain" not in row for row in marked_documents) and any("\n## " in row["text"] for row in marked_documents)
