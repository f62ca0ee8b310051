"""Compares the blocks of real pages that are shown as kept with the text that ingest extracts."""

from pathlib import Path

import pytest
from warcio.archiveiterator import ArchiveIterator

from corpusmill.ingest.config import ExtractionConfig
from corpusmill.ingest.html.blocks import page_blocks
from corpusmill.ingest.html.main_text import extract

CONFIGS = (ExtractionConfig(), ExtractionConfig(main_content=False), ExtractionConfig(comments=True, keep_score=0.9))


def words(text: str) -> list[str]:
    """Returns the words of a text without the signs that stand before items and between cells."""
    return [word for word in text.split() if word not in ("-", "|")]


@pytest.mark.parametrize("config", CONFIGS)
def test_the_kept_blocks_are_the_text(shared_data: Path, config: ExtractionConfig) -> None:
    with open(shared_data / "realweb" / "scrapinghub.warc.gz", "rb") as file:
        bodies = [record.content_stream().read() for record in ArchiveIterator(file) if record.rec_type == "response"][:80]
    some = left = 0
    for body in bodies:
        html = body.decode("utf-8", "replace").encode()
        blocks = page_blocks(html, None, config)
        assert words(" ".join(text for text, kept in blocks if kept)) == words(extract(html, None, config).text)
        some, left = some + len(blocks), left + sum(not kept for _, kept in blocks)
    assert some > 1000 and (left > 100 or not config.main_content)


def test_a_page_without_blocks() -> None:
    assert page_blocks(b"<html><body></body></html>", None, ExtractionConfig()) == []
