"""Extraction by blocks: lexbor parses, a walk over its tree gives blocks, a scorer weighs them, the good ones are kept."""

import subprocess
import sys
from functools import cache

import numpy as np
from numpy.typing import NDArray

from corpusmill.ingest.config import ExtractionConfig
from corpusmill.ingest.page.extracted import Extracted, TooDeep
from corpusmill.ingest.page.features import context_of
from corpusmill.ingest.page.lexbor import CHUNK, Tree, api, tag_ids
from corpusmill.ingest.page.metadata import read_metadata
from corpusmill.ingest.page.render import render
from corpusmill.ingest.page.scorer import load_trees, scores_of
from corpusmill.ingest.page.selection import keep
from corpusmill.ingest.page.tags import build_tags, build_words
from corpusmill.ingest.page.walk import NO_MEMORY, TOO_DEEP, Page, walk
from corpusmill.pipeline.kernel import kernel

#: What lies above the body, and below the deepest element: the document, <html>, text.
ABOVE = 3


@cache
def tables() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """What the walk looks things up in: `lexbor.api`, and the tables of elements and words."""
    return api(), build_tags(tag_ids), build_words()


def blocks_of(tree: Tree, max_nesting: int) -> Page:
    """The blocks of what is shown of a page. Raises TooDeep and MemoryError."""
    page: Page = walk(tree.root, *tables(), max_nesting)
    if page.end == NO_MEMORY:
        raise MemoryError
    if page.end == TOO_DEEP:
        raise TooDeep
    return page


def main_text(page: Page, config: ExtractionConfig) -> str:
    """The text of the blocks that are main content; of all blocks where the configuration wants more than that."""
    if config.main_content and len(page.blocks):
        text = render_main(page, load_trees(), config.keep_score, config.comments)
    else:
        text = render(page, np.ones(len(page.blocks), np.bool_))
    return str(memoryview(text), "utf-8").strip()


@kernel
def render_main(page, trees, threshold, comments):  # type: ignore[no-untyped-def]
    """UTF-8 of the main content of a page that has blocks, uint8: all in one kernel, since each call of one costs some microseconds."""
    context = context_of(page)
    return render(page, keep(page, context, scores_of(page, context, trees), threshold, comments))


def extract(html: bytes, url: str | None, config: ExtractionConfig) -> Extracted:
    """The main text of a page in UTF-8, and what it says of itself. Raises TooDeep and MemoryError."""
    with Tree(html, config.max_nesting + ABOVE) as tree:
        page = blocks_of(tree, config.max_nesting)
        return Extracted(main_text(page, config), *read_metadata(tree, page, url))


def warm_up() -> None:
    """Has the kernels ready, from the cache where they are in it. To compile them takes 15 seconds and 150 MB that a process
    does not give back, so another one does it, once for all workers of a machine."""
    if not walk.is_cached():
        compiling = f"from {__name__} import run_kernels; run_kernels()"
        subprocess.run([sys.executable, "-P", "-c", compiling], check=False)  # if that fails, so does what follows, and says why
    run_kernels()


def run_kernels() -> None:
    extract(b"<p>Some text." + b" " * CHUNK, None, ExtractionConfig())
