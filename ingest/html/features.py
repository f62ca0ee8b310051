# mypy: disallow-untyped-defs=False
"""The features of a block, by which it is scored: measures of its text, of the nodes around it and of its place in the page, and the hints
of names. Features do not depend on the words of any language, so the scorer works for pages in all languages.
"""

import math
from collections import namedtuple

import numpy as np

from corpusmill.ingest.html.repeated import (
    ALL,
    GROUP_NAMES,
    H1,
    H6,
    OF_LINKS,
    PROSE,
    RECORD_NAMES,
    WITH_END,
    numbered,
    of_group,
    of_record,
    repeated_of,
    sibling_keys,
)
from corpusmill.ingest.html.tags import HINT_NAMES, NAME
from corpusmill.ingest.html.walk import (
    ANCHORS,
    BOLDED,
    BREAKS,
    CHARS,
    DEPTH,
    END,
    FIRST,
    HINTS,
    ITEM,
    LAST,
    LINKED,
    NODE,
    OWN_HINTS,
    PARENT,
    ROW,
    SPACE,
    START,
    TAG,
)
from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import borrowed
from corpusmill.text.hashing import hash_span

#: The numbers that `measure` returns. `WORDS` are separated by spaces; `CAPITALIZED` of them begin with a capital (ASCII). `LETTERS` are
#: ASCII letters and everything beyond Latin-1 controls. `ENDS`: 1 where the text ends with an end mark, 2 with a colon, 3 with an ellipsis
#: (quotes and brackets after it are ignored), else 0.
WORDS, STOPS, COMMAS, UPPER, LETTERS, CAPITALIZED, ENDS, DIGITS = range(8)
MEASURES = 8


@kernel
def measures_of(text, blocks):
    """Counts words, full stops, commas, capitals and so on in each block: int32 of shape (blocks, MEASURES), columns WORDS to DIGITS."""
    out = np.empty((len(blocks), MEASURES), np.int32)
    _fill_measures(text, blocks, out)
    return out


@kernel
def _fill_measures(text, blocks, out):
    text, blocks, out = borrowed(text), borrowed(blocks), borrowed(out)
    for block in range(len(blocks)):
        measure(text, blocks[block, START], blocks[block, END], out[block])


@kernel
def measure(text, start, end, out):
    """Writes the measures of `text[start:end]` (UTF-8 without spaces at its ends) to `out` (int32, length MEASURES)."""
    words = stops = commas = upper = letters = capitalized = digits = wide = np.int32(0)
    before = SPACE
    for place in range(start, end):  # without branches, so that LLVM makes vectors of it
        byte = text[place]
        capital = 65 <= byte <= 90
        first = (byte > SPACE) & (before <= SPACE)
        before = byte
        words = np.int32(words + first)
        capitalized = np.int32(capitalized + (first & capital))
        upper = np.int32(upper + capital)
        letters = np.int32(letters + (capital | (97 <= byte <= 122) | (byte >= 0xC3)))
        stops = np.int32(stops + ((byte == 46) | (byte == 33) | (byte == 63)))
        commas = np.int32(commas + (byte == 44))
        digits = np.int32(digits + (48 <= byte <= 57))
        wide = np.int32(wide + (byte >= 0xE3))
    if wide:
        for place in range(start, end):
            if text[place] >= 0xE3:
                stops = np.int32(stops + _is_wide_stop(text, place, end))
                commas = np.int32(commas + _is_wide_comma(text, place, end))
    out[WORDS], out[STOPS], out[COMMAS], out[UPPER], out[DIGITS] = words, stops, commas, upper, digits
    out[LETTERS], out[CAPITALIZED], out[ENDS] = letters, capitalized, _end_mark(text, start, end)


@kernel
def _is_wide_stop(text, place, end):
    """Whether an ideographic or full-width full stop, exclamation or question mark begins at `place`."""
    if place + 2 >= end:
        return False
    if text[place] == 0xE3:
        return text[place + 1] == 0x80 and text[place + 2] == 0x82
    return text[place] == 0xEF and text[place + 1] == 0xBC and (text[place + 2] == 0x81 or text[place + 2] == 0x9F)


@kernel
def _is_wide_comma(text, place, end):
    """Whether an ideographic or full-width comma begins at `place`."""
    if place + 2 >= end:
        return False
    if text[place] == 0xE3:
        return text[place + 1] == 0x80 and text[place + 2] == 0x81
    return text[place] == 0xEF and text[place + 1] == 0xBC and text[place + 2] == 0x8C


@kernel
def _end_mark(text, start, end):
    place = end
    for _ in range(4):  # skip quotes and brackets after the mark
        left = place - start
        if left > 0 and (text[place - 1] == 34 or text[place - 1] == 39 or text[place - 1] == 41 or text[place - 1] == 93):
            place -= 1
        elif left > 2 and text[place - 3] == 0xE2 and text[place - 2] == 0x80 and 0x98 <= text[place - 1] <= 0x9F:
            place -= 3
        elif left > 1 and text[place - 2] == 0xC2 and text[place - 1] == 0xBB:
            place -= 2
        elif left > 2 and text[place - 3] == 0xE3 and text[place - 2] == 0x80 and (text[place - 1] == 0x8D or text[place - 1] == 0x8F):
            place -= 3
        else:
            break
    left = place - start
    if left > 0 and (text[place - 1] == 46 or text[place - 1] == 33 or text[place - 1] == 63):
        return 1
    if left > 0 and text[place - 1] == 58:
        return 2
    if left > 2 and text[place - 3] == 0xE2 and text[place - 2] == 0x80 and text[place - 1] == 0xA6:
        return 3
    if left > 2 and _is_wide_stop(text, place - 3, place):
        return 1
    if left > 2 and text[place - 3] == 0xE0 and text[place - 2] == 0xA5 and text[place - 1] == 0xA4:  # danda
        return 1
    return 0


@kernel
def text_keys(text, blocks):
    """Returns a 64-bit hash of each block's text."""
    keys = np.empty(len(blocks), np.uint64)
    for block in range(len(blocks)):
        keys[block] = hash_span(text, blocks[block, START], blocks[block, END])
    return keys


@kernel
def count_equal(keys):
    """Returns for each key how often it occurs in `keys`, int32."""
    numbers, counts = numbered(keys)
    return counts[numbers]


#: The number of nodes (the block's own and those above it) whose sums are features.
LEVELS = 4
#: The windows whose sums are features: this many blocks on either side of a block.
WINDOWS = (2, 5, 12)
#: A block with at least this many words and an end mark is a paragraph; the characters of paragraphs outside of links are prose.
PARAGRAPH_WORDS = 10

_TAGS = ("p", "div", "li", "td", "dd", "figcaption", "pre", "body")
TAGS = np.array([NAME[name] for name in _TAGS], np.int32)
HINT_COUNT = len(HINT_NAMES)

#: The hints that are features of the block's own node and its parent, too.
NEAR = tuple(HINT_NAMES.index(name) for name in ("comment", "share", "related", "author", "date", "tag", "image", "button"))

#: The columns of `features`. `a0` is the block's node, `a1` its parent, ...; `w2` the blocks up to 2 away, ...
NAMES = (
    "log_chars", "log_words", "linked", "bolded", "anchors", "breaks", "stops", "stops_per_word", "commas_per_word", "upper",
    "capitalized", "ends", "item", "cell", "equal", "depth", "heading", *(f"tag_{name}" for name in _TAGS),
    *(f"a{level}_{what}" for level in range(LEVELS) for what in ("log_chars", "linked", "share", "ends", "log_blocks", "prose", "alike")),
    *(f"w{window}_{what}" for window in WINDOWS for what in ("chars", "linked", "ends", "prose")),
    "core_above", "core_below", "core_side", "core_place", "core_distance", "core_share", "core_prose_after", "core_prose_before",
    "prose_after", "prose_before", "prose_share", "place", "log_blocks_before", "log_blocks_after", "log_blocks", "log_chars_of_page",
    "h1_side", "h1_distance", "under_level", "under_distance", "under_words", "under_linked", "to_next_heading", "digits", "linked_after",
    *(f"class_{name}" for name in GROUP_NAMES), *(f"tag_{name}" for name in GROUP_NAMES),
    *(f"inner_{name}" for name in RECORD_NAMES), *(f"outer_{name}" for name in RECORD_NAMES),
    *(f"in_{hint}" for hint in HINT_NAMES), *(f"near_{HINT_NAMES[hint]}" for hint in NEAR),
)  # fmt: skip

#: Distances between blocks are limited to this.
FAR = 50

#: `math.log1p` of small numbers; nearly all calls have one.
LOGS = np.array([math.log1p(number) for number in range(1 << 12)])

#: Values for all blocks and nodes of a page, from which the features are computed. `measures`, `sums`, `equal` (how many blocks have the
#: same text), `headings` (the last block of a heading up to it, and the first one after it, or -1; int32): by block. `alike` (how many
#: siblings have the same name and classes): by node. `core`: a node. `h1`: a block, or -1. `repeated`: groups of both.
Context = namedtuple("Context", "measures sums equal headings alike core h1 repeated")


@kernel
def context_of(page):
    """Returns the `Context` of a page, which must have blocks."""
    blocks, nodes = page.blocks, page.nodes
    measures = measures_of(page.text, blocks)
    sums, equal = _running_sums(blocks, measures), count_equal(text_keys(page.text, blocks))
    siblings = numbered(sibling_keys(nodes))
    return Context(
        measures,
        sums,
        equal,
        _headings(blocks, nodes),
        siblings[1][siblings[0]],
        _core(blocks, nodes, measures),
        _first_h1(blocks, nodes, measures),
        repeated_of(blocks, nodes, sums, equal, siblings),
    )


@kernel
def features(page, context, first, last):
    """Returns the features of the blocks from `first` to `last`, float32 of shape (len(NAMES), last - first)."""
    out = np.empty((len(NAMES), last - first), np.float32)
    hints = len(NAMES) - HINT_COUNT - len(NEAR)
    rows = np.zeros((last - first, hints), np.float32)
    _fill_rows(page, context, first, rows)
    out[:hints] = rows.T
    _of_hints(out[hints:], page.blocks[first:last], page.nodes)
    return out


@kernel
def _fill_rows(page, context, first, rows):
    blocks, nodes, rows = borrowed(page.blocks), borrowed(page.nodes), borrowed(rows)
    measures, sums, equal, alike = (
        borrowed(context.measures), borrowed(context.sums), borrowed(context.equal), borrowed(context.alike)
    )  # fmt: skip
    headings, repeated = borrowed(context.headings), context.repeated
    for number in range(len(rows)):
        block, row = first + number, rows[number]
        place = _of_itself(row, blocks[block], nodes, measures[block], equal[block])
        place = _of_nodes(row, place, blocks[block, NODE], nodes, sums, alike)
        place = _of_neighbours(row, place, block, sums)
        place = _of_core(row, place, block, blocks[block, NODE], nodes, sums, context.core)
        place = _of_place(row, place, block, sums, context.h1)
        place = _of_headings(row, place, block, blocks, nodes, measures, sums, headings)
        place = of_group(row, place, repeated.classes, block)
        place = of_group(row, place, repeated.tags, block)
        place = of_record(row, place, repeated.records, repeated.inner[blocks[block, NODE]], nodes, sums)
        of_record(row, place, repeated.records, repeated.outer[blocks[block, NODE]], nodes, sums)


@kernel(inline="always")
def _log1p(number):
    """Returns log(1 + number) of an integer of at least 0."""
    return LOGS[number] if number < len(LOGS) else math.log1p(number)


@kernel(inline="always")
def _is_paragraph(measures):
    return measures[WORDS] >= PARAGRAPH_WORDS and measures[ENDS] == 1


@kernel
def _running_sums(blocks, measures):
    sums = np.zeros((len(blocks) + 1, 4), np.int64)
    for block in range(len(blocks)):
        chars, linked = blocks[block, CHARS], blocks[block, LINKED]
        sums[block + 1, ALL] = sums[block, ALL] + chars
        sums[block + 1, OF_LINKS] = sums[block, OF_LINKS] + linked
        sums[block + 1, WITH_END] = sums[block, WITH_END] + (measures[block, ENDS] == 1)
        sums[block + 1, PROSE] = sums[block, PROSE] + (chars - linked) * _is_paragraph(measures[block])
    return sums


@kernel
def _core(blocks, nodes, measures):
    """Returns the node with the most prose, as the reading mode of a browser finds it (after Mozilla's Readability).

    The characters of a paragraph count fully for the node around it, half for the next node above, and a third for the one above that.
    """
    scores = np.zeros(len(nodes))
    for block in range(len(blocks)):
        if not _is_paragraph(measures[block]):
            continue
        node = nodes[blocks[block, NODE], PARENT]
        for level in range(3):
            if node >= 0:
                scores[node] += (blocks[block, CHARS] - blocks[block, LINKED]) / (level + 1.0)
                node = nodes[node, PARENT]
    return np.argmax(scores)


@kernel
def _first_h1(blocks, nodes, measures):
    """Returns the block of the first <h1>, or -1. If that has fewer than 4 words (a logo), the first <h1> with at least 4 is preferred."""
    found = -1
    for block in range(len(blocks)):
        if nodes[blocks[block, NODE], TAG] == H1 and (found < 0 or (measures[block, WORDS] >= 4 and measures[found, WORDS] < 4)):
            found = block
    return found


@kernel
def _headings(blocks, nodes):
    found, last = np.empty((len(blocks), 2), np.int32), -1
    for block in range(len(blocks)):
        last = block if _in_heading(blocks[block, NODE], nodes) else last
        found[block, 0] = last
    last = -1
    for block in range(len(blocks) - 1, -1, -1):
        found[block, 1] = last
        last = block if found[block, 0] == block else last
    return found


@kernel(inline="always")
def _in_heading(node, nodes):
    return H1 <= nodes[node, TAG] <= H6 or (node > 0 and H1 <= nodes[nodes[node, PARENT], TAG] <= H6)


@kernel(inline="always")
def _of_headings(row, place, block, blocks, nodes, measures, sums, headings):
    over, after = headings[block]
    if over >= 0:
        tag = nodes[blocks[over, NODE], TAG]
        row[place] = (tag if H1 <= tag <= H6 else nodes[nodes[blocks[over, NODE], PARENT], TAG]) - H1 + 1
        row[place + 2], row[place + 3] = measures[over, WORDS], blocks[over, LINKED] / blocks[over, CHARS]
    row[place + 1] = min(block - over, FAR) if over >= 0 else FAR
    row[place + 4] = min(after - block, FAR) if after >= 0 else FAR
    row[place + 5] = measures[block, DIGITS] / blocks[block, CHARS]
    row[place + 6] = (sums[-1, OF_LINKS] - sums[block, OF_LINKS]) / max(sums[-1, ALL] - sums[block, ALL], 1)
    return place + 7


@kernel(inline="always")
def _of_itself(row, block, nodes, measures, equal):
    chars, words = block[CHARS], max(measures[WORDS], 1)
    tag = nodes[block[NODE], TAG]
    row[0], row[1] = _log1p(chars), _log1p(words)
    row[2], row[3] = block[LINKED] / chars, block[BOLDED] / chars
    row[4], row[5] = block[ANCHORS], block[BREAKS]
    row[6], row[7], row[8] = measures[STOPS], measures[STOPS] / words, measures[COMMAS] / words
    row[9], row[10] = measures[UPPER] / max(measures[LETTERS], 1), measures[CAPITALIZED] / words
    row[11], row[12], row[13], row[14] = measures[ENDS], block[ITEM], block[ROW] >= 0, min(equal, 5)
    row[15], row[16] = nodes[block[NODE], DEPTH], H1 <= tag <= H6
    for place in range(len(TAGS)):
        row[17 + place] = tag == TAGS[place]
    return 17 + len(TAGS)


@kernel(inline="always")
def _of_nodes(row, place, node, nodes, sums, alike):
    total = sums[-1, ALL]
    for _ in range(LEVELS):
        first, last = nodes[node, FIRST], nodes[node, LAST]
        chars, count = sums[last, ALL] - sums[first, ALL], max(last - first, 1)
        row[place] = _log1p(chars)
        row[place + 1] = (sums[last, OF_LINKS] - sums[first, OF_LINKS]) / max(chars, 1)
        row[place + 2] = chars / total
        row[place + 3] = (sums[last, WITH_END] - sums[first, WITH_END]) / count
        row[place + 4] = _log1p(count)
        row[place + 5] = (sums[last, PROSE] - sums[first, PROSE]) / max(chars, 1)
        row[place + 6] = min(alike[node], 20)
        place += 7
        node = nodes[node, PARENT] if nodes[node, PARENT] > 0 else node
    return place


@kernel(inline="always")
def _of_neighbours(row, place, block, sums):
    for window in WINDOWS:
        first, last = max(0, block - window), min(len(sums) - 1, block + window + 1)
        chars = sums[last, ALL] - sums[first, ALL]
        row[place] = chars / (last - first)
        row[place + 1] = (sums[last, OF_LINKS] - sums[first, OF_LINKS]) / chars
        row[place + 2] = (sums[last, WITH_END] - sums[first, WITH_END]) / (last - first)
        row[place + 3] = (sums[last, PROSE] - sums[first, PROSE]) / chars
        place += 4
    return place


@kernel(inline="always")
def _of_core(row, place, block, node, nodes, sums, core):
    """Writes the features of a block's place relative to the core: steps up and down the tree, and before, in or after the core."""
    first, last = nodes[core, FIRST], nodes[core, LAST]
    above = 0
    while node > 0 and not (nodes[node, FIRST] <= first and nodes[node, LAST] >= last and nodes[node, DEPTH] <= nodes[core, DEPTH]):
        node = nodes[node, PARENT]
        above += 1
    row[place], row[place + 1] = above, nodes[core, DEPTH] - nodes[node, DEPTH]
    if block < first:
        row[place + 2], row[place + 4] = -1, _log1p(first - block)
    elif block >= last:
        row[place + 2], row[place + 4] = 1, _log1p(block - last + 1)
    else:
        row[place + 3] = (block - first) / (last - first)
    row[place + 5] = (sums[last, ALL] - sums[first, ALL]) / sums[-1, ALL]
    row[place + 6] = _log1p(max(sums[last, PROSE] - sums[block, PROSE], 0))
    row[place + 7] = _log1p(max(sums[block, PROSE] - sums[first, PROSE], 0))
    return place + 8


@kernel(inline="always")
def _of_place(row, place, block, sums, h1):
    count, total = len(sums) - 1, sums[-1, ALL]
    row[place], row[place + 1] = _log1p(sums[-1, PROSE] - sums[block + 1, PROSE]), _log1p(sums[block, PROSE])
    row[place + 2], row[place + 3] = sums[-1, PROSE] / total, sums[block, ALL] / total
    row[place + 4], row[place + 5], row[place + 6] = _log1p(block), _log1p(count - block), _log1p(count)
    row[place + 7] = _log1p(total)
    if h1 >= 0:
        row[place + 8] = 1 if block > h1 else 2 if block == h1 else 3
        row[place + 9] = min(abs(block - h1), FAR)
    else:
        row[place + 9] = -1
    return place + 10


@kernel
def _of_hints(out, blocks, nodes):
    """Writes a row for each hint: whether the block's node, or any node above it, has the hint. Then a row for each hint in NEAR: whether
    the node itself or its parent has it."""
    around, near = np.empty(len(blocks), np.int64), np.empty(len(blocks), np.int64)
    for block in range(len(blocks)):
        node = blocks[block, NODE]
        around[block], near[block] = nodes[node, HINTS], nodes[node, OWN_HINTS]
        if nodes[node, PARENT] > 0:
            near[block] |= nodes[nodes[node, PARENT], OWN_HINTS]
    for bit in range(HINT_COUNT):
        for block in range(len(blocks)):
            out[bit, block] = (around[block] >> bit) & 1
    for number in range(len(NEAR)):
        for block in range(len(blocks)):
            out[HINT_COUNT + number, block] = (near[block] >> NEAR[number]) & 1


#: `expected_f1` takes or leaves blocks together whose scores, times STEPS, have the same whole part: so it need not sort them.
STEPS = 256


@kernel
def expected_f1(weights, scores):
    """Returns the best F1 that can be expected of a choice of blocks.

    `scores`: the probabilities that blocks are main text. A choice of the most probable blocks with the weight C, of which c is expected to
    be main text, has about the F1 2c / (C + all expected main text).
    """
    sums = np.zeros((STEPS + 1, 2))
    for block in range(len(scores)):
        row = np.int64(scores[block] * STEPS)
        sums[row, 0] += weights[block]
        sums[row, 1] += weights[block] * scores[block]
    everything, chosen, right, best = sums[:, 1].sum(), 0.0, 0.0, 0.0
    for step in range(STEPS, -1, -1):
        chosen += sums[step, 0]
        right += sums[step, 1]
        best = max(best, 2 * right / max(chosen + everything, 1e-9))
    return best
