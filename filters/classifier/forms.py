# mypy: disallow-untyped-defs=False
"""Forms of a text: how it is written as one line for fastText. Training and scoring use the same form.

* `plain`: line breaks become spaces. DCLM's classifier gets its texts like this (`" ".join(text.strip().splitlines())`); Dolma's Jigsaw
  taggers (`text.replace("\\n", " ").strip()`) differ only in texts with rare line breaks.
* `lower`: `plain`, in lower case as by Python's `str.lower` (which has a final sigma, and makes two characters of a capital dotted I).
* `words`: lower case; tokens are runs of word characters (`re`'s `\\w` and combining marks), `<url>` for `http(s)://` and what follows it,
  `<user>` for `@name`, `<nl>` for white space with a line break in it, and every other character alone.

One space stands between tokens. Spaces are the characters that fastText takes for spaces (NUL, too); line breaks are those of
`str.splitlines`. Tokens with a meaning for fastText are left out. A token that begins with `__label__` is a label in training, and is
ignored in prediction. `</s>` ends the line, so a page could hide everything after it. In a text without such tokens, writing `plain` or
`lower` again changes nothing.
"""

from functools import cache
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.filters.bad_words import usual_lower
from corpusmill.filters.classifier.card import Form
from corpusmill.filters.fasttext_model import EOS_BYTES, LABEL_PREFIX, ONES, is_space, starts_with
from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import borrowed, load_eight, store_eight, text_array, text_buffers
from corpusmill.text.utf8 import (
    CODE_POINTS,
    HIGH_BITS,
    LINE_BREAK,
    SPACE,
    WORD,
    character_classes,
    decode,
    first_marked,
    lowercase_table,
    previous,
    write_character,
)

FORMS: tuple[Form, ...] = get_args(Form)
NEW_LINE = "<nl>"  # the token for a line break in the form `words`
#: An entry of `character_table`: the code point of the character's lower case in POINT_BITS bits, and three flags.
POINT_BITS = 21
IS_SPACE, IS_BREAK, IS_WORD = (1 << bit for bit in range(POINT_BITS, POINT_BITS + 3))
GROWTH = 4  # a written text has at most this many times the text's bytes, plus WORST_TOKEN: `@a@b` becomes `<user> <user>`
WORST_TOKEN = 16


def write_form(form: Form, text: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Writes the texts in a form: large_string, as many as `text` has, without line breaks. Raises ValueError if a text is null."""
    return text_array(*write_tokens(form, *form_buffers(form, text))[:2])


def form_buffers(form: Form, text: pa.Array | pa.ChunkedArray) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Returns the `text_buffers` for `write_tokens`, which lower-cases character by character."""
    return text_buffers(text if form == "plain" else usual_lower(text))


def write_tokens(form: Form, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> tuple[npt.NDArray[Any], ...]:
    """Writes texts in a form; returns `(data, offsets, starts, first)`. The arguments `data, offsets` are `form_buffers`.

    The tokens of text i begin at int64 `starts[first[i]:first[i + 1]]`. A token ends a byte before the next begins, or at the text's end.
    """
    if form not in FORMS:
        raise ValueError(f"there is no form {form!r}")
    size = int(offsets[-1] - offsets[0])
    out = np.empty(size * GROWTH + WORST_TOKEN, np.uint8)
    ends, first, starts = np.zeros(len(offsets), np.int64), np.zeros(len(offsets), np.int64), np.empty(size, np.int64)
    if form == "words":
        write_words(data, offsets, character_table(), out, ends, starts, first)
    else:
        write_lines(data, offsets, character_table(), form == "lower", out, ends, starts, first)
    return out[: ends[-1]], ends, starts[: first[-1]], first


@cache
def character_table() -> npt.NDArray[np.uint32]:
    """Returns the table of characters for the kernels, uint32 of length 0x110000: see POINT_BITS."""
    import unicodedata

    classes = character_classes()
    table = lowercase_table().copy()
    marks = [point for point in range(CODE_POINTS) if unicodedata.category(chr(point))[0] == "M"]
    words = classes & WORD != 0
    words[marks] = True
    spaces = classes & SPACE != 0
    spaces[0] = True
    for bit, has in ((IS_SPACE, spaces), (IS_BREAK, classes & LINE_BREAK != 0), (IS_WORD, words)):
        table[has] |= np.uint32(bit)
    return table


# ---- The kernels: UTF-8 in, UTF-8 out, one text after another
#
# Both kernels write text i to `out[ends[i]:ends[i + 1]]`, and the starts of its tokens to `starts[first[i]:first[i + 1]]`. A token ends one
# byte before the next begins, or at the text's end. `out` needs the size that GROWTH gives, `starts` an item for each byte of the texts.

POINT = (1 << POINT_BITS) - 1
BLANK, AT, UNDERSCORE = 0x20, 0x40, 0x5F
NEW_LINE_BYTES, URL, USER = tuple(NEW_LINE.encode()), tuple(b"<url>"), tuple(b"<user>")


@kernel
def write_lines(data, offsets, table, lower, out, ends, starts, first):
    """Writes texts in the forms `plain` and `lower`."""
    data, out, table, starts = borrowed(data), borrowed(out), borrowed(table), borrowed(starts)
    to = tokens = 0
    for text in range(offsets.size - 1):
        start, end = strip(data, offsets[text], offsets[text + 1], table)
        line = token = to
        at = start
        while at < end:
            at, to = copy_plain(data, at, end, lower, out, to)
            if at >= end:
                break
            point, width = decode(data, at)
            entry = table[point]
            if entry & IS_BREAK or (point < 0x80 and is_space(point)):
                if is_token(out, token, to):
                    starts[tokens] = token
                    tokens += 1
                    out[to] = BLANK
                    token = to + 1
                to = token
            elif lower:
                to = write_character(out, to, np.int64(entry & POINT))
            else:
                for place in range(width):
                    out[to + place] = data[at + place]
                to += width
            at += width
        if is_token(out, token, to):
            starts[tokens] = token
            tokens += 1
        else:
            to = max(token - 1, line)
        ends[text + 1], first[text + 1] = to, tokens


@kernel(inline="always")
def copy_plain(data, at, end, lower, out, to):
    """Copies ASCII bytes that are neither space nor control, eight at a time, up to the first other byte.

    Returns the positions after them in `data` and in `out`.
    """
    source, target = data.ctypes.data, out.ctypes.data
    while at + 8 <= end:
        word = load_eight(source + at)
        special = ((word - np.uint64(0x21) * ONES) | word) & HIGH_BITS  # its lowest bit: the first byte below 0x21 or above 0x7F
        if lower:
            low = word & ~HIGH_BITS
            capital = (low + np.uint64(0x80 - 0x41) * ONES) & ~(low + np.uint64(0x80 - 0x5B) * ONES) & HIGH_BITS
            word |= capital >> np.uint64(2)
        store_eight(target + to, word)
        if special:
            count = first_marked(special & (~special + np.uint64(1)))
            return at + count, to + count
        at, to = at + 8, to + 8
    while at < end and 0x21 <= data[at] < 0x80:
        byte = data[at]
        out[to] = byte + 0x20 if lower and 0x41 <= byte <= 0x5A else byte
        at, to = at + 1, to + 1
    return at, to


@kernel
def write_words(data, offsets, table, out, ends, starts, first):
    """Writes texts in the form `words`."""
    data, out, table, starts = borrowed(data), borrowed(out), borrowed(table), borrowed(starts)
    to = tokens = 0
    for text in range(offsets.size - 1):
        start, end = strip(data, offsets[text], offsets[text + 1], table)
        line, at = to, start
        while at < end:
            token = to
            point = np.int64(data[at])
            if point >= 0x80:
                point, width = decode(data, at)
            else:
                width = 1
            entry = table[point]
            if entry & IS_WORD:
                if (point | 0x20) == 0x68 and url_begins(data, at, end, table):
                    at = run_end(data, at, end, table, IS_SPACE, 0)
                    to = write_token(out, to, URL)
                else:
                    at, to = write_word(out, to, data, at, end, table)
                    if out[token] == UNDERSCORE and not is_token(out, token, to):
                        to = token
                        continue
            elif entry & IS_SPACE:
                at, line_break = skip_space(data, at, table)
                if not line_break:
                    continue
                to = write_token(out, to, NEW_LINE_BYTES)
            elif point == AT and at + 1 < end and table[decode(data, at + 1)[0]] & IS_WORD:
                at = run_end(data, at + 1, end, table, IS_WORD, IS_WORD)
                to = write_token(out, to, USER)
            else:
                to = write_character(out, to, np.int64(entry & POINT))
                at += width
            starts[tokens] = token
            tokens += 1
            out[to] = BLANK
            to += 1
        to = max(to - 1, line)
        ends[text + 1], first[text + 1] = to, tokens


@kernel(inline="always")
def write_word(out, to, data, at, end, table):
    """Writes the word that begins at `at`, in lower case; returns the positions after it in `data` and in `out`."""
    while at < end:
        point = np.int64(data[at])
        if point < 0x80:
            entry = table[point]
            if not entry & IS_WORD:
                break
            out[to] = entry
            at, to = at + 1, to + 1
        else:
            point, width = decode(data, at)
            entry = table[point]
            if not entry & IS_WORD:
                break
            to = write_character(out, to, np.int64(entry & POINT))
            at += width
    return at, to


@kernel(inline="always")
def skip_space(data, at, table):
    """Returns the end of a run of spaces inside a text, and whether the run has a line break."""
    line_break = False
    while True:
        point, width = decode(data, at)
        entry = table[point]
        if not entry & IS_SPACE:
            return at, line_break
        line_break |= entry & IS_BREAK != 0
        at += width


@kernel
def strip(data, start, end, table):
    """Returns `(start, end)` without the spaces at both ends."""
    while start < end:
        point, width = decode(data, start)
        if not table[point] & IS_SPACE:
            break
        start += width
    while end > start:
        at = previous(data, end)
        if not table[decode(data, at)[0]] & IS_SPACE:
            break
        end = at
    return start, end


@kernel
def run_end(data, at, end, table, mask, wanted):
    """Returns the end of the run of characters whose bits of `mask` are `wanted`."""
    while at < end:
        point, width = decode(data, at)
        if table[point] & mask != wanted:
            break
        at += width
    return at


@kernel
def url_begins(data, at, end, table):
    """Whether `https?://` begins here, in any case, and a character other than a space follows."""
    for letter in (0x68, 0x74, 0x74, 0x70):
        if at >= end or data[at] | 0x20 != letter:
            return False
        at += 1
    if at < end and data[at] | 0x20 == 0x73:
        at += 1
    for mark in (0x3A, 0x2F, 0x2F):
        if at >= end or data[at] != mark:
            return False
        at += 1
    return at < end and not table[decode(data, at)[0]] & IS_SPACE


@kernel(inline="always")
def write_token(out, to, token):
    for byte in token:
        out[to] = byte
        to += 1
    return to


@kernel
def is_token(out, start, end):
    """Whether `out[start:end]` is a token without a special meaning for fastText."""
    if end - start == len(EOS_BYTES) and starts_with(out, start, end, EOS_BYTES):
        return False
    return start < end and not starts_with(out, start, end, LABEL_PREFIX)
