# mypy: disallow-untyped-defs=False
"""Unicode characters: a table with the classes of each code point, and kernels that walk through valid UTF-8.

The classes are Python's own (`str.isspace`, `re`'s `\\w`, `str.isalpha`, `str.splitlines`), because the reference implementations are
written in Python. A span is `data[start:end]` of a uint8 buffer; positions are byte positions in that buffer. Spans have to be valid UTF-8
(checked by Arrow's `validate(full=True)`): the kernels check no bounds.
"""

import re
from functools import cache

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.kernel import kernel

CODE_POINTS = 0x110000
SURROGATES = range(0xD800, 0xE000)

WORD = 1  # re's \w
SPACE = 2  # str.isspace
ALPHA = 4  # str.isalpha
PUNCTUATION = 8  # in the set that `character_classes` was given
LINE_BREAK = 16  # str.splitlines breaks here
DIGIT = 32  # str.isdecimal
UPPER = 64  # str.isupper
GROWS = "\u0130"  # the only character whose lower case has two characters


@cache
def character_classes(punctuation: frozenset[str] = frozenset()) -> npt.NDArray[np.uint8]:
    """Returns uint8 of length 0x110000: the classes of each code point, or-ed. Cached in the process."""
    table = np.zeros(CODE_POINTS, np.uint8)
    characters = _everything()
    table[_points("".join(re.findall(r"\w+", characters)))] |= WORD
    points = _points(characters)
    single = points.view("<U1")  # NumPy uses the same functions as the methods of `str`
    for kind, has in ((SPACE, np.strings.isspace), (ALPHA, np.strings.isalpha), (UPPER, np.strings.isupper), (DIGIT, np.strings.isdecimal)):
        table[points[has(single)]] |= kind
    table[table & ALPHA == 0] &= ~np.uint8(UPPER)  # `str.isupper` is true for some numbers and symbols, too
    table[[ord(character) for character in punctuation if len(character) == 1]] |= PUNCTUATION
    table[[ord(character) for character in characters[:0x3000] if len(f"a{character}b".splitlines()) == 2]] |= LINE_BREAK
    return table


@cache
def letter_counts() -> npt.NDArray[np.uint8]:
    """Returns uint8 of length 0x110000: how many letters each code point counts for. Vowel signs are letters (Unicode's Alphabetic), and a
    wide letter (Chinese, Japanese, Korean), which is a syllable or a word, counts for two. Cached in the process."""
    import regex  # `re` knows no properties

    table = np.zeros(CODE_POINTS, np.uint8)
    for letters in (r"\p{Alphabetic}+", r"[\p{Alphabetic}&&\p{East_Asian_Width=Wide}]+"):
        table[_points("".join(regex.findall(letters, _everything(), regex.V1)))] += 1
    return table


@cache
def lowercase_table() -> npt.NDArray[np.uint32]:
    """Returns uint32 of length 0x110000: `str.lower` of each code point where that is one character, else the code point."""
    table = np.arange(CODE_POINTS, dtype=np.uint32)
    characters = _everything().replace(GROWS, "")  # the capital sigma is between letters here, so it is no final sigma
    table[_points(characters)] = _points(characters.lower())
    return table


def _everything() -> str:
    """Returns a string of all code points but the surrogates, in order."""
    points = np.arange(CODE_POINTS, dtype="<u4")
    return np.delete(points, SURROGATES).tobytes().decode("utf-32-le")


def _points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


# ----------------------------------------------------------------------------------------------------
# Steps through valid UTF-8 inside kernels: decoding, writing, counting characters, finding bytes, `str.strip`.

NEWLINE = np.uint8(10)  # an int would be a type of its own for numba, and compile `find_byte` once more
_ONES = np.uint64(0x0101010101010101)
HIGH_BITS = np.uint64(0x8080808080808080)
_PLACES = np.uint64(0x0001020304050607)


@kernel
def decode(data, at):
    """Returns `(code point, bytes)` of the character that begins at `at`."""
    first = np.int64(data[at])
    if first < 0x80:
        return first, 1
    second = np.int64(data[at + 1]) & 0x3F
    if first < 0xE0:
        return (first & 0x1F) << 6 | second, 2
    third = np.int64(data[at + 2]) & 0x3F
    if first < 0xF0:
        return (first & 0x0F) << 12 | second << 6 | third, 3
    return (first & 0x07) << 18 | second << 12 | third << 6 | np.int64(data[at + 3]) & 0x3F, 4


@kernel
def write_character(out, at, point):
    """Writes one code point as UTF-8; returns the position after it."""
    if point < 0x80:
        out[at] = point
        return at + 1
    if point < 0x800:
        out[at] = 0xC0 | point >> 6
        out[at + 1] = 0x80 | point & 0x3F
        return at + 2
    if point < 0x10000:
        out[at] = 0xE0 | point >> 12
        out[at + 1] = 0x80 | point >> 6 & 0x3F
        out[at + 2] = 0x80 | point & 0x3F
        return at + 3
    out[at] = 0xF0 | point >> 18
    out[at + 1] = 0x80 | point >> 12 & 0x3F
    out[at + 2] = 0x80 | point >> 6 & 0x3F
    out[at + 3] = 0x80 | point & 0x3F
    return at + 4


@kernel
def previous(data, end):
    """Returns the position of the last character before `end`."""
    at = end - 1
    while data[at] & 0xC0 == 0x80:
        at -= 1
    return at


@kernel
def eight_bytes(data, at):
    """Returns eight bytes as one little-endian integer. With unsigned indices the compiler makes this a single load."""
    first = np.uint64(at)
    value = np.uint64(data[first])
    for place in range(1, 8):
        value |= np.uint64(data[first + np.uint64(place)]) << np.uint64(8 * place)
    return value


@kernel
def count_characters(data, start, end):
    """Returns `len` of the span as a `str`: the number of its bytes without continuation bytes."""
    total = 0
    for byte in data[start:end]:
        total += (byte & 0xC0) != 0x80
    return total


@kernel
def count_byte(data, start, end, wanted):
    total = 0
    for byte in data[start:end]:
        total += byte == wanted
    return total


@kernel(inline="always")
def first_marked(marked):
    """Returns the index of the first of eight bytes whose high bit is set, without a branch. `marked` must have at least one
    high bit, and no other bits."""
    return np.int64((((marked & (~marked + np.uint64(1))) >> np.uint64(7)) * _PLACES) >> np.uint64(56))


@kernel
def find_byte(data, start, end, wanted):
    """Returns the position of the first byte `wanted`, or `end`. Compares eight bytes at a time."""
    at = start
    pattern = np.uint64(wanted) * _ONES
    while at + 8 <= end:
        word = eight_bytes(data, at) ^ pattern
        zeros = (word - _ONES) & ~word & HIGH_BITS
        if zeros:
            return at + first_marked(zeros)
        at += 8
    while at < end and data[at] != wanted:
        at += 1
    return at


@kernel
def strip_start(data, start, end, classes):
    """Returns the position at which `str.lstrip()` of the span begins (`end` where all of it is space)."""
    at = start
    while at < end:
        point, width = decode(data, at)
        if not classes[point] & SPACE:
            return at
        at += width
    return end


@kernel
def strip_end(data, start, end, classes):
    """Returns the position at which `str.rstrip()` of the span ends (`start` where all of it is space)."""
    while end > start:
        at = previous(data, end)
        if not classes[decode(data, at)[0]] & SPACE:
            return end
        end = at
    return start
