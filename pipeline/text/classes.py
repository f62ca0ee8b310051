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
GROWS = "\u0130"  # the one character whose lower case is two


@cache
def character_classes(punctuation: frozenset[str] = frozenset()) -> npt.NDArray[np.uint8]:
    """uint8 of length 0x110000: the classes of each code point, or-ed. Kept per process."""
    table = np.zeros(CODE_POINTS, np.uint8)
    characters = _everything()
    table[_points("".join(re.findall(r"\w+", characters)))] |= WORD
    points = _points(characters)
    single = points.view("<U1")  # NumPy asks the same functions as `str`'s methods
    for kind, has in ((SPACE, np.strings.isspace), (ALPHA, np.strings.isalpha), (UPPER, np.strings.isupper), (DIGIT, np.strings.isdecimal)):
        table[points[has(single)]] |= kind
    table[table & ALPHA == 0] &= ~np.uint8(UPPER)  # some numbers and symbols have capitals
    table[[ord(character) for character in punctuation if len(character) == 1]] |= PUNCTUATION
    table[[ord(character) for character in characters[:0x3000] if len(f"a{character}b".splitlines()) == 2]] |= LINE_BREAK
    return table


@cache
def lowercase_table() -> npt.NDArray[np.uint32]:
    """uint32 of length 0x110000: `str.lower` of each code point where that is one character, else itself."""
    table = np.arange(CODE_POINTS, dtype=np.uint32)
    characters = _everything().replace(GROWS, "")  # a capital sigma stands between letters in this string, so it is not a final one
    table[_points(characters)] = _points(characters.lower())
    return table


def _everything() -> str:
    """All code points but the surrogates, in order."""
    points = np.arange(CODE_POINTS, dtype="<u4")
    return np.delete(points, SURROGATES).tobytes().decode("utf-32-le")


def _points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)
