"""Counts how much of the structure of real pages comes out in Markdown, against other parsers.

    pip install html5lib pandas markdown-it-py
    python benchmarks/formats.py PAGES...

PAGES are WARC files, HTML files and folders of these. Every <pre> of the kept pages, as html5lib reads it, must stand in a fence, as
markdown-it reads it, byte for byte. Tables with spans are compared with pandas.read_html, cell by cell without white space. Formulas are
compared with the LaTeX that lxml finds in the page: annotations, scripts, images and elements of class `math`.
"""

import argparse
import io
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

import html5lib
import lxml.html
import pandas
from fastwarc.warc import ArchiveIterator, WarcRecordType
from markdown_it import MarkdownIt

from corpusmill.ingest.charset import decode_text
from corpusmill.ingest.config import ExtractionConfig
from corpusmill.ingest.html import TooDeep
from corpusmill.ingest.pages import extract_page

XHTML = "{http://www.w3.org/1999/xhtml}"
NOT_TEXT = {XHTML + name for name in ["script", "style", "template", "button", "svg", "select", "noscript", "textarea"]}
READER = MarkdownIt("commonmark").enable("table")
#: XPath of the elements whose LaTeX is known, by what they are.
FORMULAS = {
    "MathML": "//math//annotation[@encoding='application/x-tex'][not(ancestor::*[contains(@class, 'katex')])]",
    "KaTeX": "//*[@class='katex']//annotation[@encoding='application/x-tex']",
    "MathJax script": "//script[starts-with(@type, 'math/tex')]",
    "image": "//img[@class='math' or @class='tex' or @class='latex' or starts-with(@class, 'formula')]/@alt",
    "class math": "//*[starts-with(@class, 'math notranslate') or starts-with(@class, 'math inline')]",
}


def pages(paths: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Yields address and HTML of each page."""
    for path in paths:
        if path.is_dir():
            yield from pages(sorted(path.rglob("*.html")))
        elif path.suffix == ".html":
            yield str(path), decode_text(path.read_bytes(), None).text
        else:
            with open(path, "rb") as file:
                for record in ArchiveIterator(file, record_types=WarcRecordType.response):
                    body = record.reader.read()
                    if b"<" in body[:4096]:
                        yield str(record.headers["WARC-Target-URI"]), decode_text(body, None).text


def codes(page: str) -> list[str]:
    """Returns the text of each <pre> of a page; of nested ones, the outer one's."""
    body = html5lib.parse(page).find(f"{XHTML}body")
    inner = {id(pre) for outer in body.iter(f"{XHTML}pre") for pre in outer.iter(f"{XHTML}pre") if pre is not outer}
    dropped = {id(pre) for element in body.iter() if element.tag in NOT_TEXT for pre in element.iter(f"{XHTML}pre")}
    texts = ["".join(text_of(pre)) for pre in body.iter(f"{XHTML}pre") if id(pre) not in inner | dropped]
    return [text + "\n" * (not text.endswith("\n")) for text in texts if text.strip()]


def text_of(element: object) -> Iterator[str]:
    for child in (element,):
        yield "\n" if child.tag == f"{XHTML}br" else child.text or "" if child.tag not in NOT_TEXT and isinstance(child.tag, str) else ""
        for grandchild in child if child.tag not in NOT_TEXT else ():
            yield from text_of(grandchild)
            yield grandchild.tail or ""


def bare(cell: object) -> str:
    """Returns the text of a cell without white space and marks."""
    return re.sub(r"\s|<br>|[`\\\xad\u200b\ufeff]", "", "" if cell is None or cell != cell else str(cell))


def grid(rows: Iterable[Iterable[object]]) -> tuple[tuple[str, ...], ...]:
    """Returns the cells of a table as texts, without empty rows and columns."""
    texts = [list(map(bare, row)) for row in rows]
    filled = [column for column in zip_longest(*texts, fillvalue="") if any(column)]
    return tuple(row for row in zip(*filled, strict=True) if any(row))


def tables_of(markdown: str) -> Counter[tuple[tuple[str, ...], ...]]:
    """Returns the tables of a text in Markdown."""
    found, rows = Counter[tuple[tuple[str, ...], ...]](), list[list[str]]()
    for token, following in zip(tokens := READER.parse(markdown), tokens[1:], strict=False):
        if token.type == "table_open":
            rows = []
        elif token.type == "tr_open":
            rows.append([])
        elif token.type in ("td_open", "th_open"):
            rows[-1].append(following.content)
        elif following.type == "table_close":
            found[grid(rows)] += 1
    return found


def spanned_tables(page: lxml.html.HtmlElement) -> Iterator[tuple[tuple[str, ...], ...]]:
    """Yields the tables of a page that have headers and spans, as pandas reads them."""
    for table in page.xpath("//table[.//th][.//*[@colspan>1 or @rowspan>1]][not(.//table or .//pre or .//h1 or .//h2 or .//h3 or .//h4)]"):
        for caption in table.xpath(".//caption | .//script | .//style | .//svg | .//button"):
            caption.drop_tree()
        try:
            markup = io.StringIO(lxml.html.tostring(table, encoding="unicode"))
            (frame,) = pandas.read_html(markup, keep_default_na=False, displayed_only=False, thousands=None)
        except (ValueError, IndexError):
            continue
        names = frame.columns.to_frame().T.to_numpy().tolist() if frame.columns.dtype != int else []
        names = [[re.sub(r"^Unnamed: .*|\.\d+$", "", str(name)) for name in row] for row in names]
        rows = grid([*names, *frame.astype(str).to_numpy().tolist()])
        if len(rows) and len(rows[0]) > 1:
            yield rows


def canonical(latex: str) -> str:
    """Returns LaTeX without white space, delimiters, the style of the whole, and braces around single characters."""
    latex = re.sub(r"%\s*<!\[CDATA\[|%\s*\]\]>", "", latex).strip()
    latex = re.sub(r"^(?:\$\$?|\\[(\[])(.*?)(?:\$\$?|\\[)\]])$", r"\1", latex, flags=re.DOTALL).strip()
    latex = re.sub(r"^\{\\displaystyle\b(.*)\}$", r"\1", latex, flags=re.DOTALL)
    latex = re.sub(r"^\\(?:display|text)style\b", "", latex.strip())
    return re.sub(r"\{(\w)\}", r"\1", re.sub(r"\s+", "", latex)).removesuffix("\\")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--show", type=int, default=3, help="how many failures of each kind are shown")
    options = parser.parse_args()
    counts, wrong = defaultdict[str, list[int]](lambda: [0, 0]), defaultdict[str, list[str]](list)

    def count(kind: str, place: str, wanted: Iterable[object], ours: Counter[object]) -> None:
        for item in wanted:
            good = ours[item] > 0
            ours[item] -= good
            counts[kind][0] += good
            counts[kind][1] += 1
            if not good:
                wrong[kind].append(f"{place}: {item!r}"[:700])

    whole, main_content = ExtractionConfig(format="markdown", main_content=False), ExtractionConfig(format="markdown")
    for address, page in pages(options.pages):
        has_code, has_table = re.search("<pre", page, re.IGNORECASE), re.search("(?:col|row)span", page, re.IGNORECASE)
        has_formula = re.search("math|latex|katex|formula", page, re.IGNORECASE)
        tree = lxml.html.document_fromstring(page.encode(), lxml.html.HTMLParser(encoding="utf-8")) if has_table or has_formula else None
        known = {kind: tree.xpath(path) for kind, path in FORMULAS.items()} if tree is not None else {}
        try:
            kept = extract_page(page, address, main_content).text if has_code else ""
            text = extract_page(page, address, whole).text if has_table or any(known.values()) else ""
        except TooDeep:
            continue
        if kept:
            count("<pre>", address, codes(page), Counter(token.content for token in READER.parse(kept) if token.type == "fence"))
        tables = tables_of(text)
        text = "\n".join(line.replace(r"\|", "|") if line.startswith("| ") else line for line in text.split("\n"))
        bare_text = canonical(text)
        for kind, elements in known.items():
            texts = [element if isinstance(element, str) else "".join(element.itertext()) for element in elements]
            wanted = [canonical(latex) for latex in texts if latex.strip()]
            count(kind, address, wanted, Counter({latex: bare_text.count(f"${latex}$") for latex in wanted}))
        if has_table and tree is not None:
            count("table with spans", address, spanned_tables(tree), tables)
    for kind, (good, all_of_them) in counts.items():
        print(f"{kind:18} {good:6,} of {all_of_them:6,} equal ({good / all_of_them:.1%})")
        print("".join(f"    {line}\n" for line in wrong[kind][: options.show]), end="")
    sys.exit(not counts)


if __name__ == "__main__":
    main()
