# mypy: disallow-untyped-defs=False
"""The compiled passes behind `filters.classifier.forms`: bytes of UTF-8 in, bytes of UTF-8 out, a text after the other."""

import numba
import numpy as np

from corpusmill.filters.classifier.forms import IS_BREAK, IS_CASED, IS_IGNORABLE, IS_SPACE, IS_WORD, NEW_LINE, POINT_BITS
from corpusmill.filters.fasttext_tokens import EOS_BYTES, LABEL_PREFIX, is_space, starts_with
from corpusmill.pipeline.text.utf8 import decode, previous

POINT = (1 << POINT_BITS) - 1
BLANK = 0x20
NEW_LINE_BYTES, URL, USER = tuple(NEW_LINE.encode()), tuple(b"<url>"), tuple(b"<user>")
SIGMA, FINAL_SIGMA, SMALL_SIGMA = 0x3A3, 0x3C2, 0x3C3
DOTTED_I, DOT_ABOVE = 0x130, 0x307


@numba.njit(cache=True, nogil=True)
def write_lines(data, offsets, table, lower, out, ends):
    """The forms `plain` and `lower`: text i is written to `out[ends[i]:ends[i + 1]]`."""
    to = 0
    for text in range(offsets.size - 1):
        start, end = strip(data, offsets[text], offsets[text + 1], table)
        first = token = to
        at = start
        while at < end:
            byte = data[at]
            if byte < 0x80:
                entry = table[byte]
                if is_space(byte) or entry & IS_BREAK:
                    token = to = close_token(out, token, to)
                else:
                    out[to] = entry & POINT if lower else byte
                    to += 1
                at += 1
                continue
            point, width = decode(data, at)
            entry = table[point]
            if entry & IS_BREAK:
                token = to = close_token(out, token, to)
            elif lower:
                to = write_lower(out, to, data, at, start, end, point, entry, table)
            else:
                for place in range(width):
                    out[to + place] = data[at + place]
                to += width
            at += width
        ends[text + 1] = to = close_line(out, first, token, to)


@numba.njit(cache=True, nogil=True)
def write_words(data, offsets, table, out, ends):
    """The form `words`: text i is written to `out[ends[i]:ends[i + 1]]`."""
    to = 0
    for text in range(offsets.size - 1):
        start, end = strip(data, offsets[text], offsets[text + 1], table)
        first = token = to
        at = start
        while at < end:
            point, width = decode(data, at)
            entry = table[point]
            if entry & IS_SPACE:
                line_break = False
                while entry & IS_SPACE:  # a text does not end in space
                    line_break |= entry & IS_BREAK != 0
                    at += width
                    point, width = decode(data, at)
                    entry = table[point]
                if line_break:
                    to = write_token(out, to, NEW_LINE_BYTES)
            elif (point | 0x20) == 0x68 and url_begins(data, at, end, table):
                at = run_end(data, at, end, table, IS_SPACE, 0)
                to = write_token(out, to, URL)
            elif point == 0x40 and at + 1 < end and table[decode(data, at + 1)[0]] & IS_WORD:
                at = run_end(data, at + 1, end, table, IS_WORD, IS_WORD)
                to = write_token(out, to, USER)
            else:
                while True:
                    to = write_lower(out, to, data, at, start, end, point, entry, table)
                    at += width
                    if not entry & IS_WORD or at >= end:
                        break
                    point, width = decode(data, at)
                    entry = table[point]
                    if not entry & IS_WORD:
                        break
                to = close_token(out, token, to)
            token = to
        ends[text + 1] = to = close_line(out, first, token, to)


@numba.njit(cache=True, nogil=True)
def strip(data, start, end, table):
    """`(start, end)` without the spaces at both ends."""
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


@numba.njit(cache=True, nogil=True)
def run_end(data, at, end, table, mask, wanted):
    """Where the run of characters ends whose bits of `mask` are `wanted`."""
    while at < end:
        point, width = decode(data, at)
        if table[point] & mask != wanted:
            break
        at += width
    return at


@numba.njit(cache=True, nogil=True)
def url_begins(data, at, end, table):
    """Whether `https?://` begins here, in capitals or not, with a character behind it that is no space."""
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


@numba.njit(cache=True, nogil=True, inline="always")
def write_token(out, to, token):
    for byte in token:
        out[to] = byte
        to += 1
    out[to] = BLANK
    return to + 1


@numba.njit(cache=True, nogil=True)
def close_token(out, token, to):
    """Ends the token `out[token:to]` with a space, where there is one and fastText sees no more in it than a word; returns where to go on."""
    if to == token or (to - token == len(EOS_BYTES) and starts_with(out, token, to, EOS_BYTES)) or starts_with(out, token, to, LABEL_PREFIX):
        return token
    out[to] = BLANK
    return to + 1


@numba.njit(cache=True, nogil=True)
def close_line(out, first, token, to):
    """Ends the last token, and takes back the space behind it; returns where the line ends."""
    to = close_token(out, token, to)
    return to - 1 if to > first else to


@numba.njit(cache=True, nogil=True)
def write_lower(out, to, data, at, start, end, point, entry, table):
    """Writes the lower case of the character at `at`; returns where to go on."""
    if point == DOTTED_I:
        out[to] = 0x69
        return write_character(out, to + 1, DOT_ABOVE)
    if point == SIGMA:
        return write_character(out, to, FINAL_SIGMA if sigma_is_final(data, at, start, end, table) else SMALL_SIGMA)
    return write_character(out, to, entry & POINT)


@numba.njit(cache=True, nogil=True)
def sigma_is_final(data, at, start, end, table):
    """Unicode's Final_Sigma: a cased character before it, none after it, those that are passed over aside."""
    before, cased = at, False
    while before > start:
        before = previous(data, before)
        entry = table[decode(data, before)[0]]
        if not entry & IS_IGNORABLE:
            cased = entry & IS_CASED != 0
            break
    if not cased:
        return False
    after = at + 2
    while after < end:
        point, width = decode(data, after)
        entry = table[point]
        if not entry & IS_IGNORABLE:
            return entry & IS_CASED == 0
        after += width
    return True


@numba.njit(cache=True, nogil=True)
def write_character(out, to, point):
    """Writes one code point as UTF-8; returns where to go on."""
    if point < 0x80:
        out[to] = point
        return to + 1
    if point < 0x800:
        out[to] = 0xC0 | point >> 6
        out[to + 1] = 0x80 | point & 0x3F
        return to + 2
    if point < 0x10000:
        out[to] = 0xE0 | point >> 12
        out[to + 1] = 0x80 | point >> 6 & 0x3F
        out[to + 2] = 0x80 | point & 0x3F
        return to + 3
    out[to] = 0xF0 | point >> 18
    out[to + 1] = 0x80 | point >> 12 & 0x3F
    out[to + 2] = 0x80 | point >> 6 & 0x3F
    out[to + 3] = 0x80 | point & 0x3F
    return to + 4
