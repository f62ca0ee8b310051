"""HTML to the text of its main content, with limits that keep native code from running away."""

from dataclasses import dataclass
from typing import Any

from corpusmill.pipeline.ingest.charset import fit


class TooDeep(ValueError):
    """A page nests its elements deeper than the limit."""


@dataclass(frozen=True)
class Page:
    text: str
    title: str | None


def extract_page(html: str, main_content: bool, max_nesting: int) -> Page:
    """The text of a page: blocks on lines of their own, trailing spaces and runs of blank lines removed.

    Raises TooDeep: extraction takes quadratic time in the depth, so such a page would hold a worker for minutes.
    """
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    tree = HTMLTree.parse(html)
    if nests_deeper(html, tree, max_nesting):
        raise TooDeep
    text = extract_plain_text(
        tree, main_content=main_content, alt_texts=False, links=False, form_fields=False, noscript=False, comments=False, post_meta=False
    )
    return Page(tidy(text), " ".join(fit(tree.title or "").split()) or None)


def tidy(text: str) -> str:
    """Text without NULs, trailing spaces, more than one blank line in a row, and blank ends."""
    text = "\n".join([line.rstrip() for line in fit(text).split("\n")])
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.strip()


def nests_deeper(html: str, tree: Any, limit: int) -> bool:
    """Whether any element lies under `limit` others, asked of the parsed tree by a selector that native code matches."""
    return html.count("<") > limit and tree.document.query_selector("*" + ">*" * limit) is not None
