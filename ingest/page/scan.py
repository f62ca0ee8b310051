# mypy: disallow-untyped-defs=False
"""The bytes of a page's names, attributes and texts: what words in class names say, which characters are not seen. `walk.py` goes by it."""

import numpy as np

from corpusmill.ingest.page.tags import FNV_OFFSET, FNV_PRIME, fnv1a
from corpusmill.pipeline.kernel import kernel

OFFSET, PRIME = np.uint64(FNV_OFFSET), np.uint64(FNV_PRIME)
SPACE, NEWLINE = (np.uint8(ord(c)) for c in " \n")
#: Names of attributes.
CLASS, ID, ROLE, ITEMPROP, HIDDEN, ARIA_HIDDEN, STYLE, REL, TYPE, DATETIME = (
    np.uint64(fnv1a(name.encode())) for name in "class id role itemprop hidden aria-hidden style rel type datetime".split()
)
NONE_WORD = np.uint64(fnv1a(b"none")).astype(np.int64)
AUTHOR, BYLINE, LINKED_DATA = (np.uint64(fnv1a(name)) for name in (b"author", b"byline", b"application/ld+json"))


@kernel(inline="always")
def _lower(byte):
    return byte | np.uint8(32) if np.uint8(65) <= byte <= np.uint8(90) else byte


@kernel
def find(table, key):
    """The row of an open addressing table whose first column is `key`, or -1."""
    mask = len(table) - 1
    place = key & mask
    while table[place, 0] != 0:
        if table[place, 0] == key:
            return place
        place = (place + 1) & mask
    return -1


@kernel
def words_of(text, words):
    """The hints of the words in an attribute's value, and a hash of the value. A word is a run of letters, and each part of it
    that begins with a capital behind a small letter: `sideBar` is `sidebar`, `side` and `bar`."""
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
    """Whether a style says `display: none`."""
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
    """Its 64-bit FNV-1a."""
    key = OFFSET
    for byte in text:
        key = (key ^ np.uint64(byte)) * PRIME
    return key


@kernel
def has_token(text, first, second):
    """Whether one of the words between spaces has one of two hashes."""
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
    """The length of a character at `place` that is not to be seen (soft hyphen, zero width space, byte order mark), or 0."""
    left = len(text) - place
    if left >= 2 and text[place] == 0xC2 and text[place + 1] == 0xAD:
        return 2
    if left >= 3 and text[place] == 0xE2 and text[place + 1] == 0x80 and text[place + 2] == 0x8B:
        return 3
    if left >= 3 and text[place] == 0xEF and text[place + 1] == 0xBB and text[place + 2] == 0xBF:
        return 3
    return 0
