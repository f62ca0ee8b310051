"""Trafilatura as the extractor: a second opinion, ten times slower than ours."""

from typing import Any

from corpusmill.ingest.config import ExtractionConfig
from corpusmill.ingest.html import Extracted, TooDeep
from corpusmill.text.damage import storable


def extract(html: str, url: str | None, config: ExtractionConfig) -> Extracted:
    """Returns the main text and the metadata of a page. Trafilatura has no way to keep more than the main content.

    Raises TooDeep.
    """
    import trafilatura

    tree = trafilatura.load_html(html)
    if tree is None:
        return Extracted("")
    if _depth(tree) > config.max_nesting:
        raise TooDeep
    found: Any = trafilatura.bare_extraction(
        tree, url=url, include_comments=config.comments, favor_recall=not config.main_content, with_metadata=True, deduplicate=False
    )
    if found is None or not (found.text or "").strip():
        shown = tree.xpath("boolean(//body//text()[normalize-space() and not(ancestor::script or ancestor::style or ancestor::noscript)])")
        return Extracted("", empty_by="no_main_text" if shown else "only_scripts" if tree.xpath("boolean(//script)") else None)
    return Extracted(tidy(found.text or ""), found.title or None, found.author or None, found.date or None, found.url or None)


def _depth(tree: Any) -> int:
    """Returns the deepest nesting in a tree of lxml."""
    from lxml import etree

    depth = deepest = 0
    for event, _ in etree.iterwalk(tree, events=("start", "end")):
        depth += 1 if event == "start" else -1
        deepest = max(deepest, depth)
    return deepest


def tidy(text: str) -> str:
    """Returns the text without NULs and trailing spaces, with at most one blank line in a row, and none at its ends."""
    text = "\n".join([line.rstrip() for line in storable(text).split("\n")])
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.strip()
