"""Shows what the extraction of a page kept: its blocks in order, each kept or left out. Only for readers; ingest does not use it."""

import numpy as np

from corpusmill.ingest.config import ExtractionConfig
from corpusmill.ingest.html.main_text import ABOVE, blocks_of, judge
from corpusmill.ingest.html.metadata import read_head
from corpusmill.ingest.html.page_type import stated_values
from corpusmill.ingest.html.scorer import load_net
from corpusmill.ingest.html.tree import Tree
from corpusmill.ingest.html.walk import END, START


def page_blocks(html: bytes, url: str | None, config: ExtractionConfig) -> list[tuple[str, bool]]:
    """Returns the text of each block of a page's body, and whether it is main text (`html`: UTF-8). Raises TooDeep and MemoryError."""
    with Tree(html, config.max_nesting + ABOVE) as tree:
        page = blocks_of(tree, config.max_nesting)
        head = read_head(tree, page)
    kept = np.ones(len(page.blocks), np.bool_)
    if config.main_content and len(kept):
        stated = stated_values(url, head.metas, head.title, head.linked_data)
        kept, _ = judge(page, stated, load_net(), config.keep_score, config.comments)
    text = page.text.tobytes()
    return [(text[block[START] : block[END]].decode(), bool(good)) for block, good in zip(page.blocks, kept, strict=True)]
