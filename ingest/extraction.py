"""HTML to the text of its main content and what the page says about itself, by one of two extractors."""

from corpusmill.ingest.config import ExtractionConfig
from corpusmill.ingest.page.extracted import Extracted
from corpusmill.pipeline.stage import load_object

#: Where each extractor stands. It counts for the code of a task that is configured with it (`pipeline/code.py`).
EXTRACTORS = {
    "lexbor": "corpusmill.ingest.page.blocks",
    "trafilatura": "corpusmill.ingest.page.trafilatura",
}


def extract_page(html: str, url: str | None, config: ExtractionConfig, utf8: bytes | None = None) -> Extracted:
    """The text of a page, with blank lines between its blocks, and its title, author, date and canonical address.

    `utf8` is `html` in UTF-8, where the caller has that already. Raises TooDeep where elements nest deeper than
    `config.max_nesting`, and InputError where the extractor is not installed.
    """
    page = html if config.extractor == "trafilatura" else html.encode() if utf8 is None else utf8
    found: Extracted = load_object(f"{EXTRACTORS[config.extractor]}:extract")(page, url, config)
    return found


def warm_up(config: ExtractionConfig) -> None:
    """Loads the extractor, so that no page is charged with that."""
    load_object(f"{EXTRACTORS[config.extractor]}:warm_up")()
