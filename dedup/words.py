# mypy: disallow-untyped-defs=False
"""Words and shingles as 64-bit hashes, straight from UTF-8 bytes.

A word is a run of `\\w` characters, lower-cased; a shingle is n words in a row. Strings are never made.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.hashing import BASE, mix64
from corpusmill.pipeline.text.utf8 import WORD, character_classes, lowercase_table

REPLACEMENT = 0xFFFD  # what a byte that is no UTF-8 counts as


def read_only(array: npt.NDArray) -> npt.NDArray:
    """A view that can't be written, as Arrow's buffers can't: so each kernel is compiled for one type alone."""
    view = array.view()
    view.flags.writeable = False
    return view


def chunks(offsets: npt.NDArray[np.int64], limit: int) -> Iterator[tuple[int, int]]:
    """`(first, last + 1)` of as many texts in a row as have at most `limit` bytes together, at least one."""
    first = 0
    while first < len(offsets) - 1:
        last = max(int(np.searchsorted(offsets, offsets[first] + limit, side="right")) - 1, first + 1)
        yield first, last
        first = last


@kernel
def decode(data, i, end):
    """`(code point, bytes)` of the character at `data[i]`, never reading at or beyond `end`."""
    last = end - 1
    return character(data[i], data[min(i + 1, last)], data[min(i + 2, last)], data[min(i + 3, last)], end - i)


@kernel(inline="always")
def character(lead, second, third, fourth, left):
    """`decode` on bytes alone: the compiler takes it into its callers, which it doesn't where the array is an argument."""
    lead, second, third, fourth = np.int64(lead), np.int64(second) & 63, np.int64(third) & 63, np.int64(fourth) & 63
    if lead < 0x80:
        return lead, 1
    if (lead >= 0xC0) & (lead < 0xE0) & (left >= 2):
        return (lead & 31) << 6 | second, 2
    if (lead >= 0xE0) & (lead < 0xF0) & (left >= 3):
        return (lead & 15) << 12 | second << 6 | third, 3
    if (lead >= 0xF0) & (lead < 0xF5) & (left >= 4):
        point = (lead & 7) << 18 | second << 12 | third << 6 | fourth
        return (point, 4) if point < 0x110000 else (REPLACEMENT, 4)
    return REPLACEMENT, 1


@kernel
def encode(point, out, place):
    """Writes one character as UTF-8 at `out[place]`; returns the place behind it."""
    if point < 0x80:
        out[place] = point
        return place + 1
    if point < 0x800:
        out[place] = 0xC0 | (point >> 6)
        out[place + 1] = 0x80 | (point & 63)
        return place + 2
    if point < 0x10000:
        out[place] = 0xE0 | (point >> 12)
        out[place + 1] = 0x80 | ((point >> 6) & 63)
        out[place + 2] = 0x80 | (point & 63)
        return place + 3
    out[place] = 0xF0 | (point >> 18)
    out[place + 1] = 0x80 | ((point >> 12) & 63)
    out[place + 2] = 0x80 | ((point >> 6) & 63)
    out[place + 3] = 0x80 | (point & 63)
    return place + 4


@cache
def word_codes() -> npt.NDArray[np.uint32]:
    """uint32 of length 0x110000: one more than the lower-cased code point of each `\\w` character, 0 for all others."""
    return np.where(character_classes() & WORD, lowercase_table() + np.uint32(1), np.uint32(0))


#: Codes of characters beyond one more than a code point: several characters (the lower bits say where in the table, first how many, then
#: their codes); neither part of a word nor its end; a word of its own (with the lower bits).
EXPANDED, SKIPPED, SINGLE = 1 << 29, 1 << 30, 1 << 31


@kernel(error_model="numpy")
def word_hashes(data, start, end, codes, out):
    """Writes the hash of each word of `data[start:end]` to `out` (uint64); returns their number.

    `codes` are those of `word_codes`, or of `contamination.words`. `out` has room for (end - start) // 2 + 1 words, or for twice as many
    where marks are words. Where a word ends can't be predicted, so there is no branch on it: the hash so far is always written, and only
    the place moves on at an end. That is twice as fast as the plain loop.
    """
    count = 0
    value = np.uint64(0)  # 0 between words: the first character makes it positive
    i = start
    while i < end:
        point = np.int64(data[i])
        if point < 0x80:
            i += 1
        else:
            point, step = decode(data, i, end)
            i += step
        code = np.uint64(codes[point])
        if code >= EXPANDED:
            if code >= SINGLE:
                out[count] = value
                count += int(value != np.uint64(0))
                out[count] = code
                count += 1
                value = np.uint64(0)
            elif code != SKIPPED:
                at = np.int64(code) - EXPANDED
                for k in range(at + 1, at + 1 + np.int64(codes[at])):
                    value = value * BASE + np.uint64(codes[k])
            continue
        inside = code != np.uint64(0)
        out[count] = value
        count += int((value != np.uint64(0)) & (not inside))
        value = value * BASE + code if inside else np.uint64(0)
    if value:
        out[count] = value
        count += 1
    for w in range(count):
        out[w] = mix64(out[w])
    return count


@kernel(error_model="numpy")
def shingle_hashes(words, count, ngram):
    """Turns `words[:count]` in place into the hashes of its n-grams; returns their number (0 where there are fewer words than n)."""
    shingles = max(count - ngram + 1, 0)
    for w in range(shingles):  # place w is read by no later shingle, so it can be overwritten
        value = np.uint64(0)
        for k in range(ngram):
            value = value * BASE + words[w + k]
        words[w] = mix64(value)
    return shingles
