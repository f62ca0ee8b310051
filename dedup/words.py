# mypy: disallow-untyped-defs=False
"""Makes 64-bit hashes of words and shingles from UTF-8 bytes, without making a string.

A word is a run of `\\w` characters, lower-cased; a shingle is n words in a row.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.kernel import kernel
from corpusmill.text.hashing import BASE, mix64
from corpusmill.text.utf8 import WORD, character_classes, lowercase_table

REPLACEMENT = 0xFFFD  # stands for a byte that is not valid UTF-8


def chunks(offsets: npt.NDArray[np.int64], limit: int) -> Iterator[tuple[int, int]]:
    """Yields `(first, last + 1)` of chunks of texts: as many neighbours as have at most `limit` bytes together, but at least one."""
    first = 0
    while first < len(offsets) - 1:
        last = max(int(np.searchsorted(offsets, offsets[first] + limit, side="right")) - 1, first + 1)
        yield first, last
        first = last


@kernel
def decode(data, i, end):
    """Returns `(code point, bytes)` of the character at `data[i]`. Never reads at `end` or beyond."""
    last = end - 1
    return character(data[i], data[min(i + 1, last)], data[min(i + 2, last)], data[min(i + 3, last)], end - i)


@kernel(inline="always")
def character(lead, second, third, fourth, left):
    """Decodes a character from its first four bytes, of which `left` are there; returns `(code point, bytes)`.

    It takes bytes and not an array, because the compiler only then inlines it.
    """
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


@cache
def word_codes() -> npt.NDArray[np.uint32]:
    """Returns a code for each code point (uint32 of length 0x110000): its lower case plus 1 for a `\\w` character, else 0."""
    return np.where(character_classes() & WORD, lowercase_table() + np.uint32(1), np.uint32(0))


#: Further codes, above all code points. EXPANDED: the character stands for several; the lower bits are an index into the table, where their
#: number and then their codes are. SKIPPED: it is ignored, and does not end a word. SINGLE: it is a word by itself.
EXPANDED, SKIPPED, SINGLE = 1 << 29, 1 << 30, 1 << 31


@kernel(error_model="numpy")
def word_hashes(data, start, end, codes, out):
    """Writes the hash of each word of `data[start:end]` to `out` (uint64); returns their number.

    `codes` are those of `word_codes`, or of `contamination.words`. `out` has room for (end - start) // 2 + 1 words, or for twice as many
    where marks are words. The processor can't predict where words end, so there is no branch on it: the hash so far is always written, and
    `count` grows only at an end. That is twice as fast as the plain loop.
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
    """Replaces `words[:count]` by the hashes of its n-grams; returns their number (0 where there are fewer words than n)."""
    shingles = max(count - ngram + 1, 0)
    for w in range(shingles):  # no later shingle reads words[w], so it can be overwritten
        value = np.uint64(0)
        for k in range(ngram):
            value = value * BASE + words[w + k]
        words[w] = mix64(value)
    return shingles
