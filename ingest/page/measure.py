# mypy: disallow-untyped-defs=False
"""What is counted in the text of a block, and which things of a page are there more than once."""

import numpy as np

from corpusmill.ingest.page.scan import OFFSET, PRIME
from corpusmill.ingest.page.walk import END, START
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.buffers import borrowed

#: What `measure` counts. `WORDS` lie between spaces, `CAPITALIZED` of them begin with a capital (ASCII); `LETTERS` are ASCII letters and
#: everything beyond Latin-1 controls; `ENDS`: 1 where the text ends with an end mark (quotes and brackets behind it aside), 2 with a
#: colon, 3 with an ellipsis, else 0.
WORDS, STOPS, COMMAS, UPPER, LETTERS, CAPITALIZED, ENDS = range(7)
MEASURES = 7


@kernel
def measures_of(text, blocks):
    """What `measure` counts in each block, int32 of shape (blocks, MEASURES)."""
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
    """Fills `out` (int32, MEASURES long) for `text[start:end]`, UTF-8 without spaces at its ends."""
    words = stops = commas = upper = letters = capitalized = 0
    inside = False
    for place in range(start, end):
        byte = text[place]
        if byte <= 32:
            inside = False
            continue
        capital = 65 <= byte <= 90
        if not inside:
            inside = True
            words += 1
            capitalized += capital
        upper += capital
        letters += capital or 97 <= byte <= 122 or byte >= 0xC3
        stops += byte == 46 or byte == 33 or byte == 63
        commas += byte == 44
        if byte >= 0xE3:
            stops += _is_wide_stop(text, place, end)
            commas += _is_wide_comma(text, place, end)
    out[WORDS], out[STOPS], out[COMMAS], out[UPPER] = words, stops, commas, upper
    out[LETTERS], out[CAPITALIZED], out[ENDS] = letters, capitalized, _end_mark(text, start, end)


@kernel
def _is_wide_stop(text, place, end):
    """Ideographic or full-width full stop, exclamation or question mark."""
    if place + 2 >= end:
        return False
    if text[place] == 0xE3:
        return text[place + 1] == 0x80 and text[place + 2] == 0x82
    return text[place] == 0xEF and text[place + 1] == 0xBC and (text[place + 2] == 0x81 or text[place + 2] == 0x9F)


@kernel
def _is_wide_comma(text, place, end):
    """Ideographic or full-width comma."""
    if place + 2 >= end:
        return False
    if text[place] == 0xE3:
        return text[place + 1] == 0x80 and text[place + 2] == 0x81
    return text[place] == 0xEF and text[place + 1] == 0xBC and text[place + 2] == 0x8C


@kernel
def _end_mark(text, start, end):
    place = end
    for _ in range(4):  # quotes and brackets behind the mark
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
    """A 64-bit hash of each block's text."""
    keys = np.empty(len(blocks), np.uint64)
    for block in range(len(blocks)):
        key = OFFSET
        for place in range(blocks[block, START], blocks[block, END]):
            key = (key ^ np.uint64(text[place])) * PRIME
        keys[block] = key
    return keys


@kernel
def count_equal(keys):
    """How often each key is there, int32."""
    size = 8
    while size < 2 * len(keys):
        size *= 2
    table = np.zeros(size, np.uint64)
    counts = np.zeros(size, np.int32)
    places = np.empty(len(keys), np.int64)
    mask = size - 1
    for index in range(len(keys)):
        key = keys[index] | np.uint64(1)  # 0 is an empty place
        place = np.int64((key >> np.uint64(17)) & np.uint64(mask))
        while table[place] != 0 and table[place] != key:
            place = (place + 1) & mask
        table[place] = key
        counts[place] += 1
        places[index] = place
    out = np.empty(len(keys), np.int32)
    for index in range(len(keys)):
        out[index] = counts[places[index]]
    return out
