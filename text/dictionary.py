# mypy: disallow-untyped-defs=False
"""Dictionaries of words for kernels that cut text into words: a hash table with all beginnings of all words."""

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.kernel import kernel
from corpusmill.text.hashing import BASE, ONE, find, insert, mix64
from corpusmill.text.utf8 import decode

#: Slots of the table; the dictionaries have up to half a million beginnings.
SLOTS = 1 << 20
_ZERO, _NINE, _NEWLINE = 0x30, 0x39, 0x0A


def read_dictionary(text: bytes, separator: str) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64], int]:
    """Returns `(keys, frequencies, sum of the frequencies)` of lines `word frequency ...` in UTF-8, separated by one ASCII character.

    `keys` is a hash table (`find_prefix`) of the words and their beginnings; `frequencies`, by slot, is 0 for what is no word.
    """
    keys, frequencies = np.zeros(SLOTS, np.uint64), np.zeros(SLOTS, np.int64)
    return keys, frequencies, _read_lines(np.frombuffer(text, np.uint8), ord(separator), keys, frequencies)


@kernel
def _read_lines(data, separator, keys, frequencies):
    at, total = 0, np.int64(0)
    while at < data.size:
        key, slot = np.uint64(0), np.int64(0)
        while data[at] != separator:
            point, width = decode(data, at)
            at += width
            key = longer(key, point)
            insert(keys, SLOTS - 1, mix64(key))
            slot = find_prefix(keys, key)
        at += 1
        frequency = np.int64(0)
        while at < data.size and _ZERO <= data[at] <= _NINE:
            frequency = frequency * 10 + data[at] - _ZERO
            at += 1
        frequencies[slot] = frequency
        total += frequency
        while at < data.size and data[at] != _NEWLINE:
            at += 1
        at += 1
    return total


@kernel(inline="always")
def longer(key, point):
    """Returns the key of a beginning and one more code point; that of nothing is 0."""
    return key * BASE + np.uint64(point) + ONE


@kernel(inline="always")
def find_prefix(keys, key):
    """Returns the slot of a beginning; -1 if no word begins so."""
    return find(keys, SLOTS - 1, mix64(key))
