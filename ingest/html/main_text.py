# mypy: disallow-untyped-defs=False
"""Extracts the main text of a page: lexbor parses it, a walk cuts it into blocks, a net scores these, and the good ones are kept."""

from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from corpusmill.ingest.config import ExtractionConfig
from corpusmill.ingest.html import Extracted, TooDeep
from corpusmill.ingest.html.data_text import from_data
from corpusmill.ingest.html.features import context_of, expected_f1
from corpusmill.ingest.html.formulas import write_formulas
from corpusmill.ingest.html.markdown import Markdown
from corpusmill.ingest.html.metadata import read_head, read_metadata
from corpusmill.ingest.html.page_type import PAGE_NAMES, TYPES, stated_values
from corpusmill.ingest.html.repeated import ALL, PROSE
from corpusmill.ingest.html.scorer import load_net, page_types, read_page
from corpusmill.ingest.html.tags import HINT_NAMES, NAME, SIGNATURE, build_tags, build_words
from corpusmill.ingest.html.thread import Thread, thread_of
from corpusmill.ingest.html.tree import Tree, api, tag_ids
from corpusmill.ingest.html.walk import CHARS, END, FIRST, HINTS, ITEM, LAST, NO_MEMORY, NODE, PARENT, ROW, START, TAG, TOO_DEEP, Page, walk
from corpusmill.pipeline.kernel import kernel

COMMENT, NOSCRIPT = (1 << HINT_NAMES.index(name) for name in ("comment", "in_noscript"))
SIGNED = 1 << SIGNATURE
#: Comments are dropped only if the other blocks have at least this many characters and the page is hardly a forum.
ENOUGH_CHARS, FORUM_PROBABILITY, FORUM = 250, 0.1, TYPES.index("forum")
#: Articles have clear borders: their share is higher by up to this factor.
ARTICLE, DOCUMENTATION, ARTICLE_PURER = TYPES.index("article"), TYPES.index("documentation"), 0.2
#: A block below this score is no main text, however little the page holds.
LEAST_SCORE = 0.08
#: The body of a page is the innermost node around the core that has CORE_SHARE of the page's characters. A page of LONG_CHARS characters
#: is a long document if PROSE_SHARE of its body is paragraphs. Few books on one page were there to learn from, and nearly all of their
#: body is main text. So, in articles and documentation, a block of the body is kept with any score of at least DOUBTFUL.
LONG_CHARS, CORE_SHARE, PROSE_SHARE, DOUBTFUL = 20_000, 0.6, 0.3, 0.1


@kernel
def keep(page, context, types, scores, share, comments):
    """Returns for each block whether it is main text.

    A block needs a score of at least `share` times the best expected F1 of the page: with the share .5 no other choice has a higher
    expected F1. In the body of a long document, DOUBTFUL is enough, and code needs none. Blocks that are named as comments are dropped,
    unless `comments`, signatures in a forum, and those for browsers without JavaScript, unless most of the page is.
    """
    share *= 1 + ARTICLE_PURER * types[ARTICLE]
    threshold = max(share * expected_f1(page.blocks[:, CHARS] + 2.0, scores), min(share, LEAST_SCORE))
    kept = scores >= threshold
    first, last = _most_of_it(page.nodes, context)
    if types[ARTICLE] + types[DOCUMENTATION] > 0.5 and _is_long(context.sums, first, last):
        for block in range(first, last):
            kept[block] |= scores[block] >= min(threshold, DOUBTFUL)
    _keep_code(page, kept, first, last)
    if types[FORUM] >= FORUM_PROBABILITY:
        _leave_out(page, kept, SIGNED)
    elif not comments:
        _leave_out(page, kept, COMMENT)
    _leave_notes_out(page, kept)
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
def _leave_out(page, kept, hint):
    """Drops the blocks with a hint, unless hardly anything would be left."""
    others = 0
    for block in range(len(kept)):
        if kept[block] and page.nodes[page.blocks[block, NODE], HINTS] & hint == 0:
            others += page.blocks[block, CHARS]
    if others >= ENOUGH_CHARS:
        for block in range(len(kept)):
            if page.nodes[page.blocks[block, NODE], HINTS] & hint != 0:
                kept[block] = False


@kernel
def _leave_notes_out(page, kept):
    """Drops the blocks in <noscript>, unless most of the page's text is there."""
    for_scripts = 0
    for block in range(len(kept)):
        in_note = page.nodes[page.blocks[block, NODE], HINTS] & NOSCRIPT != 0
        for_scripts += -page.blocks[block, CHARS] if in_note else page.blocks[block, CHARS]
    if for_scripts > 0:
        for block in range(len(kept)):
            if page.nodes[page.blocks[block, NODE], HINTS] & NOSCRIPT != 0:
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


def main_text(page: Page, stated: NDArray[np.float32], config: ExtractionConfig) -> tuple[str, NDArray[np.bool_], NDArray[np.float64]]:
    """Returns the text of the blocks that are main content, or of all blocks if the configuration does not limit it to these; whether each
    is in it; and the probabilities of the page's types. `stated`: see `page_type.stated_values`."""
    if not len(page.blocks):
        values = np.concatenate([np.zeros(len(PAGE_NAMES) - len(stated), np.float32), stated])
        return "", np.zeros(0, np.bool_), page_types(values, load_net())[1]
    text, kept, types = render_main(page, stated, load_net(), config.keep_score, config.comments, config.main_content)
    return str(memoryview(text), "utf-8").strip(), kept, types


@kernel
def render_main(page, stated, net, share, comments, main_content):
    """Returns the main content of a page in UTF-8, uint8, whether each block is in it, and the probabilities of the page's types; the page
    must have blocks. One kernel does it all, since each call of a kernel takes some microseconds."""
    kept, types = judge(page, stated, net, share, comments)
    if not main_content:
        kept[:] = True
    return render(page, kept), kept, types


@kernel
def judge(page, stated, net, share, comments):
    """Returns for each block whether it is main text, and the probabilities of the page's types."""
    context = context_of(page)
    scores, types = read_page(page, context, stated, net)
    return keep(page, context, types, scores, share, comments), types


#: Where main text and markup have fewer characters than this, the page's data are read, too.
SCANT = 200


def extract(html: bytes, url: str | None, config: ExtractionConfig) -> Extracted:
    """Returns the main text and the metadata of a page (`html`: UTF-8). Raises TooDeep and MemoryError."""
    markdown = config.format == "markdown"
    with Tree(html, config.max_nesting + ABOVE) as tree:
        page = blocks_of(tree, config.max_nesting, markdown)
        head = read_head(tree, page)
        metadata = read_metadata(tree, page, head, url)
        stated = stated_values(url, head.metas, head.title, head.linked_data)
        text, kept, types = main_text(page, stated, config)
        found, rule = Extracted(text, *metadata), None
        if markdown:
            thread = thread_of(tree, page, kept) if types.argmax() == FORUM else Thread()
            found = replace(found, text=Markdown(tree, page, kept, (url or "") if config.links else None, thread).write(), plain=text)
    if len(text) < SCANT:
        shown = int(page.blocks[:, CHARS][page.nodes[page.blocks[:, NODE], HINTS] & NOSCRIPT == 0].sum())
        if shown < SCANT:
            description = head.metas.get("og:description") or head.metas.get("description")
            data, origin = from_data(html, head, description, lambda fragment: whole_text(fragment, config))
            if len(data) > len(text):
                found = replace(found, text=data, plain=data if markdown else None, origin=origin)
            elif not shown:  # a note that asks for JavaScript
                found = replace(found, text="", plain="" if markdown else None)
        rule = "no_main_text" if shown else "only_scripts" if b"<script" in html.lower() else None
    if not found.text.strip():
        return replace(found, empty_by=rule)
    best = int(types.argmax())
    return replace(found, page_type=TYPES[best], page_type_score=float(types[best]))


def whole_text(html: bytes, config: ExtractionConfig) -> str:
    """Returns the text of all blocks of a page or a fragment. Raises TooDeep and MemoryError."""
    with Tree(html, config.max_nesting + ABOVE) as tree:
        page = blocks_of(tree, config.max_nesting)
    return str(memoryview(render(page, np.ones(len(page.blocks), np.bool_))), "utf-8").strip()
