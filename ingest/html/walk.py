# mypy: disallow-untyped-defs=False
"""The walk over a page: one pass over the parser's tree, which cuts the text into blocks.

A *block* is a run of text without a block element or an empty line in it: a paragraph, a heading, an item, a cell, a `pre`. A *node* is a
block element; nodes contain blocks and other nodes.
"""

from collections import namedtuple

import numpy as np

from corpusmill.ingest.html.tags import BLOCK, BOLD, BREAK, DROP, FNV_OFFSET, FNV_PRIME, LINK, NAME, RAW, UNNUMBERED, fnv1a
from corpusmill.ingest.html.tree import (
    ATTRIBUTE_NAME,
    ATTRIBUTE_VALUE,
    ELEMENT,
    ELEMENT_NAME,
    FIRST_ATTRIBUTE,
    FIRST_CHILD,
    NEXT,
    NEXT_ATTRIBUTE,
    TAG_ID,
    TEXT,
    TEXT_NODE,
    TYPE,
    call_1,
    call_2,
)
from corpusmill.ingest.html.tree import PARENT as PARENT_NODE
from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import array_at, borrowed

OFFSET, PRIME = np.uint64(FNV_OFFSET), np.uint64(FNV_PRIME)
#: An array with the type that `array_at` is to make.
BYTES = np.empty(0, np.uint8)
SPACE, NEWLINE = (np.uint8(ord(c)) for c in " \n")
#: Names of attributes.
CLASS, ID, ROLE, ITEMPROP, HIDDEN, ARIA_HIDDEN, STYLE, REL, SCRIPT_TYPE, DATETIME, ALT = (
    np.uint64(fnv1a(name.encode())) for name in "class id role itemprop hidden aria-hidden style rel type datetime alt".split()
)
NONE_WORD = np.uint64(fnv1a(b"none")).astype(np.int64)
AUTHOR, BYLINE, LINKED_DATA, TEX, LATEX, MATH = (
    np.uint64(fnv1a(name)) for name in (b"author", b"byline", b"application/ld+json", b"tex", b"latex", b"math")
)


@kernel(inline="always")
def _lower(byte):
    return byte | np.uint8(32) if np.uint8(65) <= byte <= np.uint8(90) else byte


@kernel
def find(table, key):
    """Returns the row of a hash table (with open addressing) whose first column is `key`, or -1."""
    mask = len(table) - 1
    place = key & mask
    while table[place, 0] != 0:
        if table[place, 0] == key:
            return place
        place = (place + 1) & mask
    return -1


@kernel
def words_of(text, words):
    """Returns the hints of the words in an attribute's value, and a hash of the value.

    A run of letters is a word, and so is each part of it that begins with a capital after a small letter: `sideBar` has the words
    `sidebar`, `side` and `bar`.
    """
    hints = 0
    value = OFFSET
    word = part = OFFSET
    small = False
    humps = False
    for place in range(len(text) + 1):
        byte = text[place] if place < len(text) else SPACE
        value = (value ^ np.uint64(byte)) * PRIME
        capital = np.uint8(65) <= byte <= np.uint8(90)
        letter = capital or np.uint8(97) <= byte <= np.uint8(122) or byte >= 128
        if capital and small:
            hints |= _hints(words, part)
            part, humps = OFFSET, True
        if letter:
            lower = np.uint64(_lower(byte))
            word, part = (word ^ lower) * PRIME, (part ^ lower) * PRIME
        elif word != OFFSET:
            hints |= _hints(words, word)
            if humps:
                hints |= _hints(words, part)
            word = part = OFFSET
            humps = False
        small = bool(letter and not capital)
    return hints, np.int64(value)


@kernel
def _hints(words, word):
    found = find(words, np.int64(word))
    return words[found, 1] if found >= 0 else 0


@kernel
def hides(style):
    """Whether a style contains `display: none`."""
    for place in range(len(style) - 3):
        if style[place] == 110 and style[place + 1] == 111 and style[place + 2] == 110 and style[place + 3] == 101:  # none
            back = place - 1
            while back > 0 and (style[back] == SPACE or style[back] == 58):
                back -= 1
            if back >= 6 and style[back] == 121 and style[back - 1] == 97 and style[back - 2] == 108:  # (disp)lay
                return True
    return False


@kernel
def hash_of(text):
    """Returns the 64-bit FNV-1a of a text (uint8)."""
    key = OFFSET
    for byte in text:
        key = (key ^ np.uint64(byte)) * PRIME
    return key


@kernel
def has_token(text, first, second):
    """Whether one of the words of a text, which are separated by spaces, has the hash `first` or `second`."""
    key = OFFSET
    for place in range(len(text) + 1):
        byte = text[place] if place < len(text) else SPACE
        if byte == SPACE or np.uint8(9) <= byte <= np.uint8(13):
            if key == first or key == second:
                return True
            key = OFFSET
        else:
            key = (key ^ np.uint64(byte)) * PRIME
    return False


@kernel
def invisible(text, place):
    """Returns the length of an invisible character at `place` (soft hyphen, zero width space, byte order mark), or 0."""
    left = len(text) - place
    if left >= 2 and text[place] == 0xC2 and text[place + 1] == 0xAD:
        return 2
    if left >= 3 and text[place] == 0xE2 and text[place + 1] == 0x80 and text[place + 2] == 0x8B:
        return 3
    if left >= 3 and text[place] == 0xEF and text[place + 1] == 0xBB and text[place + 2] == 0xBF:
        return 3
    return 0


#: Rows of `Page.marks`: the addresses of the first elements that are marked as an author's name, of scripts of JSON-LD, of <time> with an
#: attribute `datetime`, and of elements that may hold a formula (`formulas.py`). A row has MARKED addresses, 0 where there are fewer.
AUTHORS, SCRIPTS, TIMES, FORMULAS = range(4)
MARKS, MARKED = 4, 20
TAG_SCRIPT, TAG_TIME, TAG_IMG, TAG_MATH = NAME["script"], NAME["time"], NAME["img"], NAME["math"]


@kernel
def attributes(element, api, words, judged, tag, marks, is_root, length):
    """Reads the attributes of an element; returns `(hints, hash of the classes)`, or zeros unless the element is `judged`.

    Notes the element in `marks` where its attributes mark it. `length` (int64, length 1) is scratch memory.
    """
    hints, classes = 0, np.int64(0)
    attribute = call_1(api[FIRST_ATTRIBUTE], element)
    while attribute:
        data = call_2(api[ATTRIBUTE_NAME], attribute, length.ctypes.data)
        key = hash_of(array_at(np.uint64(data), length[0], BYTES))
        data = call_2(api[ATTRIBUTE_VALUE], attribute, length.ctypes.data)
        value = array_at(np.uint64(data), length[0] if data else 0, BYTES)
        if judged:
            if key == CLASS or key == ID or key == ROLE or key == ITEMPROP:
                found, whole = words_of(value, words)
                hints |= found
                if key == CLASS:
                    classes = whole
            elif key == HIDDEN or (key == ARIA_HIDDEN and len(value) == 4) or (key == STYLE and hides(value)):
                hints |= words[find(words, NONE_WORD), 1]
        if tag == TAG_IMG:
            if (key == ALT and _is_latex(value)) or (key == CLASS and (has_token(value, TEX, LATEX) or has_token(value, MATH, MATH))):
                _note(marks[FORMULAS], element)
        elif (key == CLASS or key == ITEMPROP or key == REL) and not is_root and marks[AUTHORS, 0] == 0:
            if has_token(value, AUTHOR, BYLINE if key == CLASS else AUTHOR):
                marks[AUTHORS, 0] = element
        elif tag == TAG_SCRIPT and key == SCRIPT_TYPE:
            if hash_of(value) == LINKED_DATA:
                _note(marks[SCRIPTS], element)
            elif len(value) > 5 and value[0] == 109 and value[4] == 47:  # math/
                _note(marks[FORMULAS], element)
        elif tag == TAG_TIME and key == DATETIME:
            _note(marks[TIMES], element)
        attribute = call_1(api[NEXT_ATTRIBUTE], attribute)
    return hints, classes


@kernel
def _is_latex(text):
    """Whether a text may be a formula: it begins with a dollar sign, or has a backslash or a circumflex."""
    if len(text) and text[0] == 36:
        return True
    for byte in text:  # noqa: SIM110 - numba knows no generators
        if byte == 92 or byte == 94:
            return True
    return False


@kernel
def _note(row, element):
    for place in range(len(row)):
        if row[place] == 0:
            row[place] = element
            return


#: Columns of `Page.blocks` (int32). `START`, `END`: bytes of `text`. `NODE`: the innermost node. `CHARS`: characters except spaces, of
#: which `LINKED` are in links and `BOLDED` in bold. `ANCHORS`: links that begin in the block. `BREAKS`: single line breaks. `ITEM`: 1 for
#: the first block of a list item. `ROW`: the node of the table row if the block's node is a cell, else -1.
START, END, NODE, CHARS, LINKED, BOLDED, ANCHORS, BREAKS, ITEM, ROW = range(10)
BLOCK_COLUMNS = 10
#: Columns of `Page.nodes` (int64). `PARENT`: the node around it. `TAG`: a number of `tags.NAMES`. `[FIRST, LAST)`: the blocks in the node.
#: `OWN_HINTS`: the hints of its own names (bits of `tags.HINTS`). `HINTS`: these with the hints of the nodes around it. `ALIKE`: a number
#: that is equal for nodes with equal element names and classes.
PARENT, TAG, FIRST, LAST, DEPTH, OWN_HINTS, HINTS, ALIKE = range(8)
NODE_COLUMNS = 8

#: How a walk ends: at the end of the page, or before it because elements are nested too deeply or memory runs out.
WHOLE, TOO_DEEP, NO_MEMORY = range(3)
#: A page in blocks: `text` uint8, `blocks` (n, 10) int32, `nodes` (m, 8) int64, `marks` (MARKS, MARKED) int64, `elements` (k, 4) int64,
#: `end`: how the walk ended. The text of a <pre> lies in `text` byte for byte, so there it has white space between blocks.
Page = namedtuple("Page", "text blocks nodes marks elements end")
#: Columns of `Page.elements`: nodes, inline code and links, in the order in which they begin. `ADDRESS`: the parser's element.
#: `[FROM, TO)`: bytes of `text`; a space before an inline element counts as in it. `WHICH`: the node, or CODE or ANCHOR.
ADDRESS, FROM, TO, WHICH = range(4)
CODE, ANCHOR = -1, -2
TAG_CODE, TAG_TT = NAME["code"], NAME["tt"]

TAG_LI, TAG_TD, TAG_TH, TAG_PRE, TAG_BODY, TAG_HTML, TAG_HR = (NAME[n] for n in ("li", "td", "th", "pre", "body", "html", "hr"))

#: The indexes of the state of a walk (int64). `WRITTEN`: bytes of text so far; the open block begins at `BEGIN`. `OWED_SPACE`,
#: `OWED_LINES`: space and line breaks to write before the block's next character. `PRE_BEGIN`: where the text of the last <pre> begins.
#: `ELEMENTS`: rows of `Page.elements` so far. `LATEX_TEXTS`: texts that begin as a formula. The others count open elements, or values of
#: the open block.
DEPTH_NOW, NODE_NOW, NODE_COUNT, LINKS, BOLDS, PRES, DROPS, WRITTEN, COUNT, OWED_SPACE, OWED_LINES, BEGIN = range(12)
IN_CHARS, IN_LINKED, IN_BOLDED, IN_ANCHORS, IN_BREAKS, IN_ITEM = range(12, 18)
PRE_BEGIN, ELEMENTS, LATEX_TEXTS = range(18, 21)
STATES = 21

#: Columns of the stack of open elements (int64). `BEFORE`: the node that was current before the element. `IS_RULE`: 1 for <hr>, which stays
#: open until the element around it ends: the scorer treats the blocks after a rule as if they were in it. `AT`: its row in `Page.elements`,
#: or -1.
KIND, BEFORE, IS_PRE, IS_RULE, AT = range(5)
UNNUMBERED_KEY = np.uint64(fnv1a(UNNUMBERED.encode()))


@kernel
def walk(root, api, tags, words, limit, structure):
    """Returns the element at the address `root` and its content as a `Page`.

    `api`: the addresses of lexbor's functions (`tree.api`). `tags`, `words`: the tables of `tags.py`. The walk stops where elements are
    nested more deeply than `limit`. Without `structure`, `Page.elements` stays empty.
    """
    count, size = _sizes(root, api)
    text = np.empty(max(size, 0) + 2 * count + 2, np.uint8)
    blocks = np.empty((2 * count + 2, BLOCK_COLUMNS), np.int32)
    nodes = np.zeros((count + 2, NODE_COLUMNS), np.int64)
    nodes[0, PARENT] = -1
    elements = np.empty((count + 2 if structure else 0, 4), np.int64)
    marks, stack, state = np.zeros((MARKS, MARKED), np.int64), np.empty((limit, 5), np.int64), np.zeros(STATES, np.int64)
    state[NODE_COUNT] = 1
    end = NO_MEMORY
    if size >= 0:
        end = _walk(root, api, tags, words, text, blocks, nodes, marks, elements, stack, state, np.zeros(1, np.int64))
    return Page(text[: state[WRITTEN]], blocks[: state[COUNT]], nodes[: state[NODE_COUNT]], marks, elements[: state[ELEMENTS]], end)


@kernel
def _sizes(root, api):
    """Returns the number of elements and the bytes of text; -1 bytes where there is not enough memory to read a text."""
    elements = size = 0
    length = np.zeros(1, np.int64)
    node = root
    while node:
        kind = call_1(api[TYPE], node) & 0xFFFFFFFF
        if kind == TEXT_NODE:
            if call_2(api[TEXT], node, length.ctypes.data) == 0:
                return elements, -1
            size += length[0]
        elements += kind == ELEMENT
        down = call_1(api[FIRST_CHILD], node)
        while down == 0 and node != root:
            down = call_1(api[NEXT], node)
            if down == 0:
                node = call_1(api[PARENT_NODE], node)
        node = down
    return elements, size


@kernel
def _walk(root, api, tags, words, text, blocks, nodes, marks, elements, stack, state, length):
    """Walks the page, and fills the arrays of the caller; returns how the walk ended."""
    api, tags, words, marks, stack = borrowed(api), borrowed(tags), borrowed(words), borrowed(marks), borrowed(stack)
    text, blocks, nodes, state, length = borrowed(text), borrowed(blocks), borrowed(nodes), borrowed(state), borrowed(length)
    elements = borrowed(elements)
    node = root
    while node:
        kind = call_1(api[TYPE], node) & 0xFFFFFFFF
        down, opened = 0, False
        if kind == ELEMENT:
            if state[DEPTH_NOW] == len(stack):
                return TOO_DEEP
            down = _enter(node, node == root, api, tags, words, text, blocks, nodes, marks, elements, stack, state, length)
            opened = stack[state[DEPTH_NOW] - 1, IS_RULE] == 0
        elif kind == TEXT_NODE and not state[DROPS]:
            data = call_2(api[TEXT], node, length.ctypes.data)
            if data == 0:
                return NO_MEMORY
            data = array_at(np.uint64(data), length[0], BYTES)
            if state[PRES]:
                _add_verbatim(data, text, state)
            else:
                _text(data, text, blocks, nodes, state)
        while down == 0:
            if opened:
                _leave(text, blocks, nodes, elements, stack, state)
            if node == root:
                break
            down = call_1(api[NEXT], node)
            if down == 0:
                node, opened = call_1(api[PARENT_NODE], node), True
        node = down
    _close(text, blocks, nodes, state)
    _climb(nodes, state, -1)
    if state[LATEX_TEXTS]:
        _note(marks[FORMULAS], root)
    return WHOLE


@kernel
def _text(data, text, blocks, nodes, state):
    """Adds a text to the open block."""
    place, size = 0, len(data)
    while place < size and (data[place] == SPACE or 9 <= data[place] <= 13):  # most texts between tags are space
        place += 1
    if place:
        state[OWED_SPACE] = 1
    if place + 4 < size and data[place] == 92:  # \( \[ \begin
        state[LATEX_TEXTS] += data[place + 1] == 40 or data[place + 1] == 91 or data[place + 1] == 98
    written, chars = state[WRITTEN], state[IN_CHARS]
    owed, lines = state[OWED_SPACE] > 0, state[OWED_LINES]
    before = chars
    while place < size:
        byte, length = data[place], 1
        if byte >= 0xC2:
            if byte == 0xC2 and place + 1 < size and data[place + 1] == 0xA0:  # no-break space
                byte, length = SPACE, 2
            else:
                length = invisible(data, place)
                if length:
                    place += length
                    continue
                length = 1
        if byte <= SPACE:
            place += length
            if byte == SPACE or (9 <= byte <= 13):
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
        elif owed and chars:
            text[written] = SPACE
            written += 1
        owed, lines = False, 0
        text[written] = byte
        written += 1
        chars += byte < 0x80 or byte >= 0xC0
        place += length
    _count_chars(state, chars - before)
    state[WRITTEN], state[IN_CHARS], state[OWED_SPACE], state[OWED_LINES] = written, chars, owed, lines


@kernel
def _add_verbatim(data, text, state):
    """Adds a text in a <pre> to the open block, byte for byte. Where a block element begins or ends within a line, a new line begins."""
    written, chars, first, last = state[WRITTEN], 0, 0, state[WRITTEN]
    while first < len(data) and (data[first] == SPACE or data[first] == 9):
        first += 1
    if state[OWED_LINES] and first < len(data):
        state[OWED_LINES] = 0
        while last > state[PRE_BEGIN] and (text[last - 1] == SPACE or text[last - 1] == 9):
            last -= 1
        if data[first] != NEWLINE and last > state[PRE_BEGIN] and text[last - 1] != NEWLINE:
            text[written] = NEWLINE
            written += 1
    for place in range(len(data)):
        byte = data[place]
        text[written + place] = byte
        if byte > SPACE and (byte < 0x80 or byte >= 0xC0):
            space = byte == 0xC2 and place + 1 < len(data) and data[place + 1] == 0xA0
            chars += not (byte >= 0xC2 and (space or invisible(data, place)))
    _count_chars(state, chars)
    state[WRITTEN] = written + len(data)
    state[IN_CHARS] += chars


@kernel
def _count_chars(state, chars):
    state[IN_LINKED] += chars * (state[LINKS] > 0)
    state[IN_BOLDED] += chars * (state[BOLDS] > 0)


@kernel(inline="always")
def _enter(element, is_root, api, tags, words, text, blocks, nodes, marks, elements, stack, state, length):
    """Begins an element; returns its first child, or 0 where it has none or its content is skipped."""
    tag_id = call_1(api[TAG_ID], element)
    row = tags[tag_id if 0 <= tag_id < len(tags) - 1 else _unnumbered(element, api, tags, length)]
    kind, tag = row[0], row[1]
    judged = kind == BLOCK and state[DROPS] == 0
    hints, classes = attributes(element, api, words, judged, tag, marks, is_root, length)
    depth = state[DEPTH_NOW]
    stack[depth, KIND], stack[depth, BEFORE], stack[depth, IS_PRE], stack[depth, IS_RULE] = kind, state[NODE_NOW], 0, tag == TAG_HR
    stack[depth, AT] = -1
    state[DEPTH_NOW] = depth + 1
    if judged:
        _close(text, blocks, nodes, state)
        stack[depth, IS_PRE] = tag == TAG_PRE
        if tag == TAG_PRE:
            if state[PRES] == 0:
                state[PRE_BEGIN] = state[WRITTEN]
            state[PRES] += 1
        _open_node(nodes, state, tag, hints | row[2], classes ^ row[3])
        if tag == TAG_LI:
            state[IN_ITEM] = 1
    elif kind == BREAK:
        _break(text, state)
    elif kind == DROP:
        state[DROPS] += 1
    elif kind == LINK:
        state[LINKS] += 1
        state[IN_ANCHORS] += 1
    elif kind == BOLD:
        state[BOLDS] += 1
    elif tag == TAG_MATH:
        _note(marks[FORMULAS], element)
    if len(elements) and state[DROPS] == 0 and (judged or kind == LINK or TAG_CODE <= tag <= TAG_TT):
        row = state[ELEMENTS]
        stack[depth, AT] = row
        elements[row, ADDRESS], elements[row, FROM], elements[row, TO] = element, state[WRITTEN], state[WRITTEN]
        elements[row, WHICH] = state[NODE_NOW] if judged else ANCHOR if kind == LINK else CODE
        state[ELEMENTS] = row + 1
    return 0 if kind == RAW else call_1(api[FIRST_CHILD], element)


@kernel
def _unnumbered(element, api, tags, length):
    """Returns the row in `tags` of an element for which the parser has no number: the last row for UNNUMBERED, else 0, a plain inline
    element."""
    data = call_2(api[ELEMENT_NAME], element, length.ctypes.data)
    return len(tags) - 1 if hash_of(array_at(np.uint64(data), length[0], BYTES)) == UNNUMBERED_KEY else 0


@kernel(inline="always")
def _leave(text, blocks, nodes, elements, stack, state):
    """Ends the innermost element, after the rules (<hr>) that are open in it."""
    rule = 1
    while rule:
        depth = state[DEPTH_NOW] - 1
        state[DEPTH_NOW] = depth
        kind, rule = stack[depth, KIND], stack[depth, IS_RULE]
        if kind == BLOCK and state[DROPS] == 0:
            _close(text, blocks, nodes, state)
            _climb(nodes, state, stack[depth, BEFORE])
        state[DROPS] -= kind == DROP
        state[LINKS] -= kind == LINK
        state[BOLDS] -= kind == BOLD
        state[PRES] -= stack[depth, IS_PRE]
        if stack[depth, AT] >= 0:
            elements[stack[depth, AT], TO] = state[WRITTEN]


@kernel(inline="always")
def _break(text, state):
    if state[DROPS]:
        return
    if state[PRES]:
        text[state[WRITTEN]] = NEWLINE
        state[WRITTEN] += 1
    else:
        state[OWED_LINES] += 1


@kernel(inline="always")
def _open_node(nodes, state, tag, hints, alike):
    parent, node = state[NODE_NOW], state[NODE_COUNT]
    nodes[node, PARENT], nodes[node, TAG], nodes[node, FIRST] = parent, tag, state[COUNT]
    nodes[node, DEPTH] = nodes[parent, DEPTH] + 1
    over = nodes[parent, TAG]
    # hints on <body> and <html> are about the whole page, and not inherited
    nodes[node, HINTS] = hints if over == TAG_BODY or over == TAG_HTML else hints | nodes[parent, HINTS]
    nodes[node, OWN_HINTS], nodes[node, ALIKE] = hints, alike
    state[NODE_NOW], state[NODE_COUNT] = node, node + 1


@kernel(inline="always")
def _climb(nodes, state, target):
    """Ends nodes until `target` is the current node (-1: all nodes)."""
    node = state[NODE_NOW]
    while node > target:
        nodes[node, LAST] = state[COUNT]
        node = nodes[node, PARENT]
    state[NODE_NOW] = node


@kernel(inline="always")
def _close(text, blocks, nodes, state):
    """Ends the open block and begins the next one. A block without characters is dropped."""
    state[OWED_SPACE] = 0
    state[OWED_LINES] = state[PRES] > 0 and state[WRITTEN] > state[PRE_BEGIN]
    begin, end = state[BEGIN], state[WRITTEN]
    if state[IN_CHARS] == 0:
        if state[PRES] == 0:
            state[WRITTEN] = begin
        state[BEGIN] = state[WRITTEN]
        return
    while text[begin] == NEWLINE:
        begin += 1
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
    if state[PRES] == 0:
        state[WRITTEN] = end
    state[BEGIN] = state[WRITTEN]
    for place in range(IN_CHARS, IN_ITEM + 1):
        state[place] = 0
