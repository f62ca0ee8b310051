# mypy: disallow-untyped-defs=False
"""The bytes of serialised HTML: where tags, comments and attributes end, what names and escapes say. `walk.py` goes by it."""

import numba
import numpy as np

from corpusmill.pipeline.ingest.page.tags import FNV_OFFSET, FNV_PRIME, fnv1a

OFFSET, PRIME = np.uint64(FNV_OFFSET), np.uint64(FNV_PRIME)
LT, GT, SLASH, BANG, DASH, EQUALS, QUOTE, AMP, SPACE, NEWLINE = (np.uint8(ord(c)) for c in '<>/!-="& \n')
CLASS, ID, ROLE, ITEMPROP, HIDDEN, ARIA_HIDDEN, STYLE = (
    np.uint64(fnv1a(name)) for name in (b"class", b"id", b"role", b"itemprop", b"hidden", b"aria-hidden", b"style")
)
NONE_WORD = np.uint64(fnv1a(b"none")).astype(np.int64)


@numba.njit(cache=True, nogil=True, inline="always")
def _lower(byte):
    return byte | np.uint8(32) if np.uint8(65) <= byte <= np.uint8(90) else byte


@numba.njit(cache=True, nogil=True)
def find(table, key):
    """The row of an open addressing table whose first column is `key`, or -1."""
    mask = len(table) - 1
    place = key & mask
    while table[place, 0] != 0:
        if table[place, 0] == key:
            return place
        place = (place + 1) & mask
    return -1


@numba.njit(cache=True, nogil=True)
def _words(html, start, end, words):
    """The hints of the words in an attribute's value, and a hash of the value. A word is a run of letters, and each part of it
    that begins with a capital behind a small letter: `sideBar` is `sidebar`, `side` and `bar`."""
    hints = 0
    value = OFFSET
    word = part = OFFSET
    small = False
    humps = False
    for place in range(start, end + 1):
        byte = html[place] if place < end else SPACE
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


@numba.njit(cache=True, nogil=True)
def _hints(words, word):
    found = find(words, np.int64(word))
    return words[found, 1] if found >= 0 else 0


@numba.njit(cache=True, nogil=True)
def skip_attributes(html, place):
    """Past a start tag from behind its name. A quote begins a value only behind `=`: names of attributes may hold quotes."""
    size = len(html)
    while place < size and html[place] != GT:
        if html[place] == EQUALS and place + 1 < size and html[place + 1] == QUOTE:
            place += 2
            while place < size and html[place] != QUOTE:
                place += 1
        place += 1
    return place + 1


@numba.njit(cache=True, nogil=True)
def attributes(html, place, words):
    """Past a start tag from behind its name: (place, hints, hash of the classes)."""
    hints = 0
    classes = np.int64(0)
    size = len(html)
    while place < size and html[place] != GT:
        if html[place] == SPACE or html[place] == SLASH:
            place += 1
            continue
        key = OFFSET
        while place < size and html[place] != EQUALS and html[place] != GT and html[place] != SPACE:
            key = (key ^ np.uint64(html[place])) * PRIME
            place += 1
        start = end = place
        if place + 1 < size and html[place] == EQUALS and html[place + 1] == QUOTE:
            start = end = place + 2
            while end < size and html[end] != QUOTE:
                end += 1
            place = end + 1
        elif place < size and html[place] == EQUALS:
            place += 1
        if key == CLASS or key == ID or key == ROLE or key == ITEMPROP:
            found, whole = _words(html, start, end, words)
            hints |= found
            if key == CLASS:
                classes = whole
        elif key == HIDDEN or (key == ARIA_HIDDEN and end - start == 4) or (key == STYLE and _hides(html, start, end)):
            hints |= words[find(words, NONE_WORD), 1]
    return place + 1, hints, classes


@numba.njit(cache=True, nogil=True)
def _hides(html, start, end):
    """Whether a style says `display: none`."""
    for place in range(start, end - 3):
        if html[place] == 110 and html[place + 1] == 111 and html[place + 2] == 110 and html[place + 3] == 101:  # none
            back = place - 1
            while back > start and (html[back] == SPACE or html[back] == 58):
                back -= 1
            if back - start >= 6 and html[back] == 121 and html[back - 1] == 97 and html[back - 2] == 108:  # (disp)lay
                return True
    return False


@numba.njit(cache=True, nogil=True)
def name(html, place):
    """The hash of the element name at `place`, and the place behind it."""
    key = OFFSET
    size = len(html)
    while place < size and html[place] != GT and html[place] != SPACE and html[place] != SLASH:
        key = (key ^ np.uint64(_lower(html[place]))) * PRIME
        place += 1
    return np.int64(key), place


@numba.njit(cache=True, nogil=True)
def behind_comment(html, place):
    """The place behind a comment, or behind a document type."""
    size = len(html)
    if place + 3 < size and html[place + 2] == DASH and html[place + 3] == DASH:
        place += 6
        while place < size and not (html[place] == GT and html[place - 1] == DASH and html[place - 2] == DASH):
            place += 1
    while place < size and html[place] != GT:
        place += 1
    return place + 1


@numba.njit(cache=True, nogil=True)
def next_tag(html, place):
    """The place of the next `<`, or the end. Looks at 32 bytes at a time, which compiles to vector instructions."""
    size = len(html)
    while place + 32 <= size:
        window = html[place : place + 32]
        found = 0
        for offset in range(32):
            found |= window[offset] == LT
        if found:
            break
        place += 32
    while place < size and html[place] != LT:
        place += 1
    return place


@numba.njit(cache=True, nogil=True)
def behind_end_tag(html, place, key):
    """The place behind the end tag of an element whose content is not escaped."""
    size = len(html)
    while True:
        place = next_tag(html, place)
        if place + 1 >= size:
            return size
        if html[place + 1] == SLASH:
            found, end = name(html, place + 2)
            if found == key:
                while end < size and html[end] != GT:
                    end += 1
                return end + 1
        place += 1


@numba.njit(cache=True, nogil=True)
def entity(html, place):
    """The character that an escape at `place` stands for and its length: the four that serialised text has."""
    left = len(html) - place
    if left >= 4 and html[place + 2] == 116 and html[place + 3] == 59:
        if html[place + 1] == 108:
            return LT, 4
        if html[place + 1] == 103:
            return GT, 4
    if left >= 5 and html[place + 1] == 97 and html[place + 2] == 109 and html[place + 3] == 112:
        return AMP, 5
    if left >= 6 and html[place + 1] == 110 and html[place + 2] == 98 and html[place + 3] == 115 and html[place + 5] == 59:
        return SPACE, 6
    if left >= 6 and html[place + 1] == 113 and html[place + 2] == 117 and html[place + 5] == 59:
        return QUOTE, 6
    return AMP, 1


@numba.njit(cache=True, nogil=True)
def invisible(html, place):
    """The length of a character at `place` that is not to be seen (soft hyphen, zero width space, byte order mark), or 0."""
    left = len(html) - place
    if left >= 2 and html[place] == 0xC2 and html[place + 1] == 0xAD:
        return 2
    if left >= 3 and html[place] == 0xE2 and html[place + 1] == 0x80 and html[place + 2] == 0x8B:
        return 3
    if left >= 3 and html[place] == 0xEF and html[place + 1] == 0xBB and html[place + 2] == 0xBF:
        return 3
    return 0
