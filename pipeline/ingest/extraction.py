"""HTML to the text of its main content and what the page says about itself, by one of two extractors."""

from collections.abc import Callable
from typing import Any

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.ingest.charset import fit
from corpusmill.pipeline.ingest.config import ExtractionConfig
from corpusmill.pipeline.ingest.page.extracted import Extracted, TooDeep


def extract_page(html: str, url: str | None, config: ExtractionConfig, utf8: bytes | None = None) -> Extracted:
    """The text of a page, with blank lines between its blocks, and its title, author, date and canonical address.

    `utf8` is `html` in UTF-8, where the caller has that already. Raises TooDeep where elements nest deeper than
    `config.max_nesting`, and InputError where the extractor is not installed.
    """
    return EXTRACTORS[config.extractor](html, utf8, url, config)


def warm_up(config: ExtractionConfig) -> None:
    """Loads the extractor, so that no page is charged with that."""
    if config.extractor == "lexbor":
        from corpusmill.pipeline.ingest.page import blocks

        blocks.warm_up()
    else:
        extract_page("<p>Some text.", None, config)


def with_lexbor(html: str, utf8: bytes | None, url: str | None, config: ExtractionConfig) -> Extracted:
    """Lexbor's tree, and the blocks of it that our scorer takes for main content (`page/`)."""
    from corpusmill.pipeline.ingest.page import blocks

    return blocks.extract(utf8 if utf8 is not None else html.encode(), url, config)


def with_trafilatura(html: str, utf8: bytes | None, url: str | None, config: ExtractionConfig) -> Extracted:
    """Trafilatura: ten times slower, another opinion. It has no way to keep more than what it takes for main content."""
    try:
        import trafilatura
    except ImportError as error:
        raise InputError("extraction.extractor: trafilatura is not installed here; pip install 'corpusmill[trafilatura]'.") from error

    tree = trafilatura.load_html(html)
    if tree is None:
        return Extracted("")
    if _depth(tree) > config.max_nesting:
        raise TooDeep
    found: Any = trafilatura.bare_extraction(
        tree, url=url, include_comments=config.comments, favor_recall=not config.main_content, with_metadata=True, deduplicate=False
    )
    if found is None:
        return Extracted("")
    return Extracted(tidy(found.text or ""), found.title or None, found.author or None, found.date or None, found.url or None)


def _depth(tree: Any) -> int:
    """The deepest nesting of a tree of lxml."""
    from lxml import etree

    depth = deepest = 0
    for event, _ in etree.iterwalk(tree, events=("start", "end")):
        depth += 1 if event == "start" else -1
        deepest = max(deepest, depth)
    return deepest


def tidy(text: str) -> str:
    """Text without NULs, trailing spaces, more than one blank line in a row, and blank ends."""
    text = "\n".join([line.rstrip() for line in fit(text).split("\n")])
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.strip()


EXTRACTORS: dict[str, Callable[[str, bytes | None, str | None, ExtractionConfig], Extracted]] = {
    "lexbor": with_lexbor,
    "trafilatura": with_trafilatura,
}
