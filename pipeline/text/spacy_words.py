# mypy: disallow-untyped-defs=False
"""The walk over words whose beginnings are marked (`spacy_marks`), as `words.walk_words` for words that a table of classes gives."""

import numba
import numpy as np

from corpusmill.pipeline.text.classes import PUNCTUATION, SPACE
from corpusmill.pipeline.text.hashing import BASE, ONE
from corpusmill.pipeline.text.utf8 import decode
from corpusmill.pipeline.text.words import PADDING, base_power


@numba.njit(cache=True, nogil=True)
def walk_marked_words(data, start, end, marks, classes, powers, words):
    """Fills `words` with the words of `data[start:end]`, which begin where `marks` says and end at the next or at a space."""
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
            if at >= end or marks[at]:
                break
            point, width = decode(data, at)
            kind = classes[point]
            if kind & SPACE:
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
