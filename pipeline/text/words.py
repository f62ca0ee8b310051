# mypy: disallow-untyped-defs=False
"""The walk over words: hashes, lengths and kinds of all words of a document in one pass, no strings made.

A word rule is a table of character classes. A word is a run of characters that have the class WORD, or one character
that is neither WORD nor SPACE:

* `words`: WORD is `re`'s `\\w`, so words are what `re.findall(r"\\w+|[^\\w\\s]", text)` finds;
* `whitespace`: WORD is everything but space, so words are those of `str.split()`.
"""

from collections import namedtuple

import numba
import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.text.classes import PUNCTUATION, SPACE, WORD
from corpusmill.pipeline.text.hashing import BASE, ONE, power
from corpusmill.pipeline.text.utf8 import decode

WORD_RULES = ("words", "whitespace")
#: Powers of BASE that are looked up; longer words and n-grams compute theirs.
POWERS = 1024

#: Scratch for the words of one document. `hashes` uint64, `kinds` uint8 and `places` int64: one item a word. `joined`
#: uint64 and `ends` int64: one item more; `ends[w]` is the number of characters before word w, spaces not counted, and
#: `joined[w]` the hash of those characters joined. `bytes` uint8 holds all words joined, and word w begins at `places[w]`.
#: A word's kind has the classes of any of its characters, but PUNCTUATION only where all of them have it.
Words = namedtuple("Words", "hashes kinds places joined ends bytes")
#: Bytes after the last word that may be read (and are zero).
PADDING = 16


def word_rule_classes(rule: str, classes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The table of character classes with WORD as the rule has it. Raises KeyError for a rule that is not there."""
    if rule == "words":
        return classes
    if rule == "whitespace":
        return np.where(classes & SPACE, classes & ~np.uint8(WORD), classes | np.uint8(WORD)).astype(np.uint8)
    raise KeyError(rule)


def base_powers() -> npt.NDArray[np.uint64]:
    """uint64 of length POWERS: BASE to the power of each index."""
    return np.array([power(exponent) for exponent in range(POWERS)], np.uint64)


def hash_word(word: str) -> np.uint64:
    """The hash that `walk_words` gives a word."""
    value = 0
    for character in word:
        value = (value * int(BASE) + ord(character) + 1) & 0xFFFFFFFFFFFFFFFF
    return np.uint64(value)


@numba.njit(cache=True, nogil=True)
def new_words(limit):
    """Scratch for documents of up to `limit` bytes (a text has at most as many words as bytes)."""
    return Words(
        np.empty(limit, np.uint64),
        np.empty(limit, np.uint8),
        np.empty(limit, np.int64),
        np.empty(limit + 1, np.uint64),
        np.empty(limit + 1, np.int64),
        np.empty(limit + PADDING, np.uint8),
    )


@numba.njit(cache=True, nogil=True)
def base_power(powers, exponent):
    return powers[exponent] if exponent < powers.size else power(exponent)


@numba.njit(cache=True, nogil=True)
def walk_words(data, start, end, classes, powers, words):
    """Fills `words` with the words of `data[start:end]` and returns how many there are."""
    count, characters, joined, place = 0, 0, np.uint64(0), 0
    words.joined[0] = joined
    words.ends[0] = 0
    at = start
    while at < end:
        point, width = decode(data, at)
        kind = classes[point]
        if kind & SPACE:
            at += width
            continue
        words.places[count] = place
        value, length, any_kind, all_kind = np.uint64(0), 0, np.uint8(0), np.uint8(0xFF)
        while True:
            value = value * BASE + np.uint64(point) + ONE
            length += 1
            any_kind |= kind
            all_kind &= kind
            for byte in range(width):
                words.bytes[place + byte] = data[at + byte]
            place += width
            at += width
            if not kind & WORD or at >= end:
                break
            point, width = decode(data, at)
            kind = classes[point]
            if not kind & WORD:
                break
        joined = joined * base_power(powers, length) + value
        characters += length
        words.hashes[count] = value
        words.kinds[count] = (any_kind & ~np.uint8(PUNCTUATION)) | (all_kind & np.uint8(PUNCTUATION))
        count += 1
        words.joined[count] = joined
        words.ends[count] = characters
    words.bytes[place : place + PADDING] = 0
    return count
