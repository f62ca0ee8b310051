"""What kind of character each Unicode code point is, as one table that all kernels share.

The classes are Python's own (`str.isspace`, `re`'s `\\w`, `str.isalpha`, `str.splitlines`), because the reference
implementations are written in Python.
"""

import re
from functools import cache

import numpy as np
import numpy.typing as npt

CODE_POINTS = 0x110000
SURROGATES = range(0xD800, 0xE000)

WORD = 1  # re's \w
SPACE = 2  # str.isspace
ALPHA = 4  # str.isalpha
PUNCTUATION = 8  # in the set that `character_classes` was given
LINE_BREAK = 16  # str.splitlines breaks here
DIGIT = 32  # str.isdecimal
UPPER = 64  # str.isupper


@cache
def character_classes(punctuation: frozenset[str] = frozenset()) -> npt.NDArray[np.uint8]:
    """uint8 of length 0x110000: the classes of each code point, or-ed. About half a second; kept per process."""
    table = np.zeros(CODE_POINTS, np.uint8)
    everything = "".join(map(chr, range(0xD800))) + "".join(map(chr, range(0xE000, CODE_POINTS)))
    for match in re.finditer(r"\w", everything):
        table[ord(match.group())] |= WORD
    for character in everything:
        kind = 0
        if character.isspace():
            kind = SPACE
        elif character.isalpha():
            kind = ALPHA | (UPPER if character.isupper() else 0)
        elif character.isdecimal():
            kind = DIGIT
        if kind:
            table[ord(character)] |= kind
    for character in punctuation:
        if len(character) == 1:
            table[ord(character)] |= PUNCTUATION
    for character in everything[:0x3000]:
        if len(f"a{character}b".splitlines()) == 2:
            table[ord(character)] |= LINE_BREAK
    return table


@cache
def lowercase_table() -> npt.NDArray[np.uint32]:
    """uint32 of length 0x110000: `str.lower` of each code point where that is one character, else itself."""
    table = np.arange(CODE_POINTS, dtype=np.uint32)
    for point in range(CODE_POINTS):
        if point not in SURROGATES:
            lower = chr(point).lower()
            if len(lower) == 1:
                table[point] = ord(lower)
    return table
