# mypy: disallow-untyped-defs=False
"""The walk over a page: one pass over the serialised tree that gives its text in blocks.

A parser has repaired the markup (`extraction.py`), so here it is well formed: tags nest, attributes are quoted with
`"`, text is escaped. A block is a run of text without a block element or an empty line in it: a paragraph, a heading,
an item, a cell, a `pre`. Blocks lie in nodes, which are the block elements.
"""

from collections import namedtuple

import numba
import numpy as np

from corpusmill.pipeline.ingest.page.scan import (
    AMP,
    BANG,
    GT,
    LT,
    NEWLINE,
    SLASH,
    SPACE,
    attributes,
    behind_comment,
    behind_end_tag,
    entity,
    find,
    invisible,
    name,
    next_tag,
    skip_attributes,
)
from corpusmill.pipeline.ingest.page.tags import BLOCK, BOLD, BREAK, DROP, INLINE, LINK, NAME, RAW, VOID
from corpusmill.pipeline.text.addresses import borrowed

#: Columns of `Page.blocks`: int32. `START`, `END`: bytes of `text`; `NODE`: the innermost node; `CHARS`: characters but spaces, and
#: how many of them lie in links (`LINKED`) and in bold (`BOLDED`); `ANCHORS`: links that begin in it; `BREAKS`: single line breaks;
#: `ITEM`: 1 where it is the first of a list item; `ROW`: the table row's node where its node is a cell, else -1.
START, END, NODE, CHARS, LINKED, BOLDED, ANCHORS, BREAKS, ITEM, ROW = range(10)
BLOCK_COLUMNS = 10
#: Columns of `Page.nodes`: int64. `FIRST`, `LAST`: the blocks below it, `[FIRST, LAST)`; `TAG`: a number of `tags.NAMES`; `OWN`, `HINTS`:
#: the hints of its own names (bits of `tags.HINTS`), and with those of the nodes around it; `ALIKE`: equal for equal names and classes.
PARENT, TAG, FIRST, LAST, DEPTH, OWN, HINTS, ALIKE = range(8)
NODE_COLUMNS = 8

#: A page in blocks: `text` uint8, `blocks` (n, 10) int32, `nodes` (m, 8) int64; `deep`: it nests too deeply and was not walked to its end.
Page = namedtuple("Page", "text blocks nodes deep")

TAG_LI, TAG_TD, TAG_TH, TAG_PRE, TAG_BODY, TAG_HTML = (NAME[n] for n in ("li", "td", "th", "pre", "body", "html"))

#: The state of a walk, int64 by these places. `WRITTEN`: bytes of text so far, of which the open block begins at `BEGIN`; `OWED_SPACE`
#: and `OWED_LINES` come before the block's next character; the others count open elements or belong to the open block.
DEPTH_NOW, NODE_NOW, NODE_COUNT, LINKS, BOLDS, PRES, DROPS, WRITTEN, COUNT, OWED_SPACE, OWED_LINES, BEGIN = range(12)
IN_CHARS, IN_LINKED, IN_BOLDED, IN_ANCHORS, IN_BREAKS, IN_ITEM = range(12, 18)

#: Columns of the stack of open elements, int64.
KEY, KIND, BEFORE, IS_PRE = range(4)


@numba.njit(cache=True, nogil=True)
def walk(html, tags, words, limit):
    """`html`, uint8 of serialised HTML, as a `Page`. `tags` and `words` are the tables of `tags.build_tables`; a page with
    elements that lie deeper than `limit` is not walked to its end: it is `deep`."""
    opened, ended = _count_tags(html)
    text = np.empty(len(html) + 2, np.uint8)
    blocks = np.empty((min(opened + ended, len(html) // 2) + 2, BLOCK_COLUMNS), np.int32)
    nodes = np.zeros((opened + 1, NODE_COLUMNS), np.int64)
    nodes[0, PARENT] = -1
    stack, state = np.empty((limit, 4), np.int64), np.zeros(18, np.int64)
    state[NODE_COUNT] = 1
    deep = _walk(html, tags, words, text, blocks, nodes, stack, state)
    return Page(text[: state[WRITTEN]], blocks[: state[COUNT]], nodes[: state[NODE_COUNT]], deep)


@numba.njit(cache=True, nogil=True)
def _count_tags(html):
    """How many start tags (and comments) and end tags there are at most."""
    opened = ended = 1
    for place in range(len(html) - 1):
        if html[place] == LT:
            opened += html[place + 1] != SLASH
            ended += html[place + 1] == SLASH
    return opened, ended


@numba.njit(cache=True, nogil=True)
def _walk(html, tags, words, text, blocks, nodes, stack, state):
    """Fills the arrays that the caller holds; returns whether the page is too deep."""
    html, tags, words = borrowed(html), borrowed(tags), borrowed(words)
    text, blocks, nodes, stack, state = borrowed(text), borrowed(blocks), borrowed(nodes), borrowed(stack), borrowed(state)
    place = 0
    while place < len(html):
        if html[place] != LT:
            place = _text(html, text, blocks, nodes, state, place)
        elif place + 1 < len(html) and html[place + 1] == SLASH:
            place = _end_tag(html, text, blocks, nodes, stack, state, place + 2)
        elif place + 1 < len(html) and html[place + 1] == BANG:
            place = behind_comment(html, place)
        elif state[DEPTH_NOW] < len(stack):
            place = _start_tag(html, tags, words, text, blocks, nodes, stack, state, place + 1)
        else:
            break
    _close(text, blocks, nodes, state)
    _climb(nodes, state, -1)
    return place < len(html)


@numba.njit(cache=True, nogil=True, inline="always")
def _text(html, text, blocks, nodes, state, place):
    """Past the text at `place`, which is added to the open block."""
    size = len(html)
    if state[DROPS]:
        return next_tag(html, place)
    pre = state[PRES] > 0
    if not pre:  # between tags there is mostly nothing but space
        first = place
        while place < size and (html[place] == SPACE or 9 <= html[place] <= 13):
            place += 1
        if place > first:
            state[OWED_SPACE] = 1
        if place < size and html[place] == LT:
            return place
    written, chars = state[WRITTEN], state[IN_CHARS]
    owed, lines = state[OWED_SPACE] > 0, state[OWED_LINES]
    before = chars
    while place < size and html[place] != LT:
        byte, length = html[place], 1
        if byte == AMP:
            byte, length = entity(html, place)
        elif byte >= 0xC2:
            length = invisible(html, place)
            if length:
                place += length
                continue
            length = 1
        if byte <= SPACE:
            place += length
            if pre and (byte == SPACE or byte == NEWLINE or byte == 9):
                if written > state[BEGIN] or byte != NEWLINE:  # a line break right behind <pre> is none
                    text[written] = byte
                    written += 1
            elif byte == SPACE or (9 <= byte <= 13):
                owed = True
            continue
        if lines > 1 and chars:  # an empty line ends the block
            state[WRITTEN], state[IN_CHARS] = written, chars
            _count_chars(state, chars - before)
            _close(text, blocks, nodes, state)
            written, chars, before = state[WRITTEN], 0, 0
        elif lines and chars:
            text[written] = NEWLINE
            written += 1
            state[IN_BREAKS] += 1
        elif owed and chars and not pre:
            text[written] = SPACE
            written += 1
        owed, lines = False, 0
        text[written] = byte
        written += 1
        chars += byte < 0x80 or byte >= 0xC0
        place += length
    _count_chars(state, chars - before)
    state[WRITTEN], state[IN_CHARS], state[OWED_SPACE], state[OWED_LINES] = written, chars, owed, lines
    return place


@numba.njit(cache=True, nogil=True)
def _count_chars(state, chars):
    state[IN_LINKED] += chars * (state[LINKS] > 0)
    state[IN_BOLDED] += chars * (state[BOLDS] > 0)


@numba.njit(cache=True, nogil=True, inline="always")
def _start_tag(html, tags, words, text, blocks, nodes, stack, state, place):
    """Past the start tag whose name begins at `place`."""
    key, place = name(html, place)
    found = find(tags, key)
    kind = tags[found, 1] if found >= 0 else INLINE
    hints, classes = 0, 0
    if kind == BLOCK and state[DROPS] == 0:
        place, hints, classes = attributes(html, place, words)
    else:
        place = skip_attributes(html, place)
    if kind == RAW:
        return behind_end_tag(html, place, key)
    if kind == VOID:
        return place
    if kind == BREAK:
        _break(text, state)
        return place
    depth = state[DEPTH_NOW]
    stack[depth, KEY], stack[depth, KIND], stack[depth, BEFORE], stack[depth, IS_PRE] = key, kind, state[NODE_NOW], 0
    state[DEPTH_NOW] = depth + 1
    if kind == BLOCK and state[DROPS] == 0:
        tag = tags[found, 2]
        _close(text, blocks, nodes, state)
        stack[depth, IS_PRE] = tag == TAG_PRE
        state[PRES] += tag == TAG_PRE
        _open_node(nodes, state, tag, hints | tags[found, 3], classes ^ key)
        if tag == TAG_LI:
            state[IN_ITEM] = 1
    elif kind == DROP:
        state[DROPS] += 1
    elif kind == LINK:
        state[LINKS] += 1
        state[IN_ANCHORS] += 1
    elif kind == BOLD:
        state[BOLDS] += 1
    return place


@numba.njit(cache=True, nogil=True, inline="always")
def _break(text, state):
    if state[DROPS]:
        return
    if state[PRES]:
        text[state[WRITTEN]] = NEWLINE
        state[WRITTEN] += 1
    else:
        state[OWED_LINES] += 1


@numba.njit(cache=True, nogil=True, inline="always")
def _end_tag(html, text, blocks, nodes, stack, state, place):
    """Past the end tag whose name begins at `place`; ends all elements up to the one that it names."""
    key, place = name(html, place)
    while place < len(html) and html[place] != GT:
        place += 1
    level = state[DEPTH_NOW]
    while level > 0 and stack[level - 1, KEY] != key:
        level -= 1
    if level == 0:  # an end without a beginning
        return place + 1
    while state[DEPTH_NOW] >= level:
        state[DEPTH_NOW] -= 1
        depth = state[DEPTH_NOW]
        kind = stack[depth, KIND]
        if kind == BLOCK and state[DROPS] == 0:
            _close(text, blocks, nodes, state)
            _climb(nodes, state, stack[depth, BEFORE])
        state[DROPS] -= kind == DROP
        state[LINKS] -= kind == LINK
        state[BOLDS] -= kind == BOLD
        state[PRES] -= stack[depth, IS_PRE]
    return place + 1


@numba.njit(cache=True, nogil=True, inline="always")
def _open_node(nodes, state, tag, own, alike):
    parent, node = state[NODE_NOW], state[NODE_COUNT]
    nodes[node, PARENT], nodes[node, TAG], nodes[node, FIRST] = parent, tag, state[COUNT]
    nodes[node, DEPTH] = nodes[parent, DEPTH] + 1
    over = nodes[parent, TAG]
    # what is said of the whole page says nothing about its parts
    nodes[node, HINTS] = own if over == TAG_BODY or over == TAG_HTML else own | nodes[parent, HINTS]
    nodes[node, OWN], nodes[node, ALIKE] = own, alike
    state[NODE_NOW], state[NODE_COUNT] = node, node + 1


@numba.njit(cache=True, nogil=True, inline="always")
def _climb(nodes, state, target):
    """Ends nodes until `target` is the current one (-1: all)."""
    node = state[NODE_NOW]
    while node > target:
        nodes[node, LAST] = state[COUNT]
        node = nodes[node, PARENT]
    state[NODE_NOW] = node


@numba.njit(cache=True, nogil=True, inline="always")
def _close(text, blocks, nodes, state):
    """Ends the open block, if it has characters; the next one begins."""
    state[OWED_SPACE] = state[OWED_LINES] = 0
    begin, end = state[BEGIN], state[WRITTEN]
    if state[IN_CHARS] == 0:
        state[WRITTEN] = begin
        return
    while text[end - 1] <= SPACE:
        end -= 1
    node = state[NODE_NOW]
    tag = nodes[node, TAG]
    block = blocks[state[COUNT]]
    block[START], block[END], block[NODE] = begin, end, node
    block[CHARS], block[LINKED], block[BOLDED] = state[IN_CHARS], state[IN_LINKED], state[IN_BOLDED]
    block[ANCHORS], block[BREAKS], block[ITEM] = state[IN_ANCHORS], state[IN_BREAKS], state[IN_ITEM]
    block[ROW] = nodes[node, PARENT] if tag == TAG_TD or tag == TAG_TH else -1
    state[COUNT] += 1
    state[BEGIN] = state[WRITTEN] = end
    for place in range(IN_CHARS, IN_ITEM + 1):
        state[place] = 0
