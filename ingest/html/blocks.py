"""Shows what the extraction of a page kept: its blocks in order, each kept or left out. Only for readers; ingest does not use it."""

import numpy as np

from corpusmill.ingest.config import ExtractionConfig
from corpusmill.ingest.html.features import context_of
from corpusmill.ingest.html.main_text import ABOVE, blocks_of, keep, load_trees, scores_of
from corpusmill.ingest.html.tree import Tree
from corpusmill.ingest.html.walk import END, START


def page_blocks(html: bytes, config: ExtractionConfig) -> list[tuple[str, bool]]:
    """Returns the text of each block of a page's body, and whether it is main text (`html`: UTF-8). Raises TooDeep and MemoryError."""
    with Tree(html, config.max_nesting + ABOVE) as tree:
        page = blocks_of(tree, config.max_nesting)
    kept = np.ones(len(page.blocks), np.bool_)
    if config.main_content and len(kept):
        context = context_of(page)
        kept = keep(page, context, scores_of(page, context, load_trees()), config.keep_score, config.comments)
    text = page.text.tobytes()
    return [(text[block[START] : block[END]].decode(), bool(good)) for block, good in zip(page.blocks, kept, strict=True)]
