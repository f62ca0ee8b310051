# mypy: disallow-untyped-defs=False
"""Extracts the main text of a page: lexbor parses it, a walk cuts it into blocks, boosted trees score these, and the good ones are kept."""

import json
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corpusmill.ingest.config import ExtractionConfig
from corpusmill.ingest.html import Extracted, TooDeep
from corpusmill.ingest.html.features import ALL, NAMES, PROSE, context_of, features
from corpusmill.ingest.html.formulas import write_formulas
from corpusmill.ingest.html.markdown import Markdown
from corpusmill.ingest.html.metadata import read_metadata
from corpusmill.ingest.html.tags import HINT_NAMES, NAME, build_tags, build_words
from corpusmill.ingest.html.tree import Tree, api, tag_ids
from corpusmill.ingest.html.walk import CHARS, END, FIRST, HINTS, ITEM, LAST, NO_MEMORY, NODE, PARENT, ROW, START, TAG, TOO_DEEP, Page, walk
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.buffers import borrowed

MODEL = Path(__file__).with_name("scorer.json")

#: Blocks that are scored at a time. The features of a block take 1 kB.
AT_A_TIME = 4096
#: Levels of every tree. The trees are symmetric, as CatBoost makes them: all nodes of a level compare the same feature with the same cut.
#: So the number of a block's leaf has LEVELS bits, and each level is computed for all blocks at once.
LEVELS = 6

#: `feature` (int32) and `cut` (float32), of shape (trees, LEVELS): bit i of a leaf's number is set where the i-th feature is greater than
#: the i-th cut. `values` (float64), of shape (trees, 2**LEVELS): the log-odds of each leaf.
Trees = tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float64]]


@cache
def load_trees(path: Path = MODEL) -> Trees:
    """Loads the trees of a model file. Raises CorpusmillError if it was made for other features."""
    model = json.loads(path.read_text())
    if model["features"] != list(NAMES):
        raise CorpusmillError(f"{path}: it was made for other features; make it anew with benchmarks/fit_extraction.py.")
    feature, cut, values = (np.array(model["trees"][name]) for name in ("feature", "cut", "values"))
    return feature.astype(np.int32), cut.astype(np.float32), values.astype(np.float64)


@kernel
def scores_of(page, context, trees):
    """Returns for each block of a page the probability that it is main text, float64."""
    scores = np.empty(len(page.blocks))
    for first in range(0, len(scores), AT_A_TIME):
        last = min(first + AT_A_TIME, len(scores))
        scores[first:last] = score(features(page, context, first, last), trees)
    return scores


@kernel
def score(columns, trees):
    """Returns the probabilities (float64, length n) for n blocks. `columns`: their features, float32 of shape (features, n)."""
    odds = np.zeros(columns.shape[1])
    leaves = np.empty(columns.shape[1], np.int32)
    _add_trees(columns, trees, leaves, odds)
    for row in range(len(odds)):
        odds[row] = 1.0 / (1.0 + np.exp(-odds[row]))
    return odds


@kernel
def _add_trees(columns, trees, leaves, odds):
    feature, cut, values = borrowed(trees[0]), borrowed(trees[1]), borrowed(trees[2])
    columns, leaves, odds = borrowed(columns), borrowed(leaves), borrowed(odds)
    for tree in range(len(feature)):
        leaves[:] = 0
        for level in range(LEVELS):
            column, limit = columns[feature[tree, level]], cut[tree, level]
            for row in range(len(leaves)):
                leaves[row] |= np.int32(column[row] > limit) << np.int32(level)
        for row in range(len(leaves)):
            odds[row] += values[tree, leaves[row]]


COMMENT = 1 << HINT_NAMES.index("comment")
#: Comments are dropped only if the other blocks have at least this many characters; else the page is a forum.
ENOUGH_CHARS = 250
#: The body of a page is the innermost node around the core that has CORE_SHARE of the page's characters. A page of LONG_CHARS characters
#: is a long document if PROSE_SHARE of its body is paragraphs. The scorer was not fitted to manuals and books on one page, and nearly all
#: of their body is main text. So a block of the body is kept with any score of at least DOUBTFUL.
LONG_CHARS, CORE_SHARE, PROSE_SHARE, DOUBTFUL = 20_000, 0.6, 0.3, 0.1


@kernel
def keep(page, context, scores, threshold, comments):
    """Returns for each block whether it is main text.

    A block needs a score of at least `threshold`; in the body of a long document, DOUBTFUL is enough, and code needs none. Blocks that are
    named as comments are dropped, unless `comments`.
    """
    kept = scores >= threshold
    first, last = _most_of_it(page.nodes, context)
    if _is_long(context.sums, first, last):
        for block in range(first, last):
            kept[block] |= scores[block] >= min(threshold, DOUBTFUL)
    _keep_code(page, kept, first, last)
    if not comments:
        _leave_comments_out(page, kept)
    return kept


@kernel
def _keep_code(page, kept, first, last):
    """Keeps each <pre> whole that lies in the body or between kept blocks: code seldom looks like the text around it."""
    nodes = page.nodes
    for block in range(len(kept)):
        if kept[block]:
            first, last = min(first, block), max(last, block + 1)
    for node in range(len(nodes)):
        if nodes[node, TAG] == PRE and first <= nodes[node, FIRST] and nodes[node, LAST] <= last:
            kept[nodes[node, FIRST] : nodes[node, LAST]] = True


@kernel
def _most_of_it(nodes, context):
    """Returns `(first, last + 1)` of the blocks of the body. It is larger than the core in a book, where the core is one section."""
    node, sums = context.core, context.sums
    while nodes[node, PARENT] > 0 and sums[nodes[node, LAST], ALL] - sums[nodes[node, FIRST], ALL] < CORE_SHARE * sums[-1, ALL]:
        node = nodes[node, PARENT]
    return nodes[node, FIRST], nodes[node, LAST]


@kernel
def _is_long(sums, first, last):
    chars = sums[last, ALL] - sums[first, ALL]
    prose = sums[last, PROSE] - sums[first, PROSE]
    return sums[-1, ALL] >= LONG_CHARS and prose >= PROSE_SHARE * chars


@kernel
def _leave_comments_out(page, kept):
    others = 0
    for block in range(len(kept)):
        if kept[block] and page.nodes[page.blocks[block, NODE], HINTS] & COMMENT == 0:
            others += page.blocks[block, CHARS]
    if others >= ENOUGH_CHARS:
        for block in range(len(kept)):
            if page.nodes[page.blocks[block, NODE], HINTS] & COMMENT != 0:
                kept[block] = False


NEWLINE, SPACE, DASH, BAR = (np.uint8(ord(c)) for c in "\n -|")
LI, DT, DD, TD, TH, PRE = (NAME[name] for name in ("li", "dt", "dd", "td", "th", "pre"))


@kernel
def render(page, kept):
    """Returns the text of the kept blocks in UTF-8, uint8."""
    out = np.empty(len(page.text) + 4 * len(kept), np.uint8)
    size, last = 0, -1
    for block in range(len(kept)):
        if not kept[block]:
            continue
        if last >= 0:
            size = _separate(out, size, page, last, block)
        if page.blocks[block, ITEM]:
            out[size], out[size + 1] = DASH, SPACE
            size += 2
        start, end = page.blocks[block, START], page.blocks[block, END]
        out[size : size + end - start] = page.text[start:end]
        size += end - start
        last = block
    return out[:size]


@kernel
def _separate(out, size, page, last, block):
    start, end = page.blocks[block, START], page.blocks[last, END]
    if start > end and block == last + 1 and _pre_of(page, block) == _pre_of(page, last) != -1:
        out[size : size + start - end] = page.text[end:start]
        return size + start - end
    row = page.blocks[block, ROW]
    if row >= 0 and row == page.blocks[last, ROW] and page.blocks[block, NODE] != page.blocks[last, NODE]:
        out[size], out[size + 1], out[size + 2] = SPACE, BAR, SPACE
        return size + 3
    out[size] = NEWLINE
    if _is_tight(page, last) and _is_tight(page, block):
        return size + 1
    out[size + 1] = NEWLINE
    return size + 2


@kernel
def _pre_of(page, block):
    """Returns the outermost <pre> around a block, or -1."""
    node, found = page.blocks[block, NODE], -1
    while node >= 0:
        if page.nodes[node, TAG] == PRE:
            found = node
        node = page.nodes[node, PARENT]
    return found


@kernel
def _is_tight(page, block):
    """Whether a block is a list item or a cell; no blank line separates two of these."""
    tag = page.nodes[page.blocks[block, NODE], TAG]
    return page.blocks[block, ITEM] or tag == LI or tag == DT or tag == DD or tag == TD or tag == TH


#: The parser's levels that do not count as nesting: the document and <html> above the body, and text below the deepest element.
ABOVE = 3


@cache
def tables() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Returns the tables that the walk needs: the addresses of lexbor's functions (`tree.api`), elements, and words."""
    return api(), build_tags(tag_ids), build_words()


def blocks_of(tree: Tree, max_nesting: int, structure: bool = False) -> Page:
    """Returns the blocks of a page's body, with its formulas as LaTeX. `structure`: see `walk`. Raises TooDeep and MemoryError."""
    page = _walked(tree, max_nesting, structure)
    return _walked(tree, max_nesting, structure) if write_formulas(tree, page) else page


def _walked(tree: Tree, max_nesting: int, structure: bool) -> Page:
    page: Page = walk(tree.root, *tables(), max_nesting, structure)
    if page.end == NO_MEMORY:
        raise MemoryError
    if page.end == TOO_DEEP:
        raise TooDeep
    return page


@kernel
def render_main(page, trees, threshold, comments):
    """Returns the main content of a page in UTF-8, uint8, and for each block whether it is in it; the page must have blocks. One kernel
    does it all, since each call of a kernel takes some microseconds."""
    context = context_of(page)
    kept = keep(page, context, scores_of(page, context, trees), threshold, comments)
    return render(page, kept), kept


def extract(html: bytes, url: str | None, config: ExtractionConfig) -> Extracted:
    """Returns the main text and the metadata of a page (`html`: UTF-8). Raises TooDeep and MemoryError."""
    with Tree(html, config.max_nesting + ABOVE) as tree:
        page = blocks_of(tree, config.max_nesting, config.format == "markdown")
        if config.main_content and len(page.blocks):
            rendered, kept = render_main(page, load_trees(), config.keep_score, config.comments)
        else:
            kept = np.ones(len(page.blocks), np.bool_)
            rendered = render(page, kept)
        text = str(memoryview(rendered), "utf-8").strip()
        metadata = read_metadata(tree, page, url)
        if config.format == "text":
            return Extracted(text, *metadata)
        return Extracted(Markdown(tree, page, kept, (url or "") if config.links else None).write(), *metadata, plain=text)
