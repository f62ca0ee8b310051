# mypy: disallow-untyped-defs=False
"""The text of the blocks that are kept: paragraphs with an empty line between them, items with a dash, the cells of a
row with a bar between them, `pre` as it is."""

import numpy as np

from corpusmill.ingest.page.tags import NAME
from corpusmill.ingest.page.walk import END, ITEM, NODE, ROW, START, TAG
from corpusmill.pipeline.kernel import kernel

NEWLINE, SPACE, DASH, BAR = (np.uint8(ord(c)) for c in "\n -|")
LI, DT, DD, TD, TH = (NAME[name] for name in ("li", "dt", "dd", "td", "th"))


@kernel
def render(page, kept):
    """UTF-8 of the kept blocks, uint8."""
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
def _is_tight(page, block):
    """Whether it is a line among lines: an item or a cell."""
    tag = page.nodes[page.blocks[block, NODE], TAG]
    return page.blocks[block, ITEM] or tag == LI or tag == DT or tag == DD or tag == TD or tag == TH
