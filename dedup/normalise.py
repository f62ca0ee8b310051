# mypy: disallow-untyped-defs=False
"""The form of a text whose hash decides whether two documents are exact copies."""

from itertools import pairwise

import numba
import numpy as np
import numpy.typing as npt
import xxhash

from corpusmill.dedup.config import Normalisation
from corpusmill.dedup.words import decode, read_only
from corpusmill.pipeline.text.classes import SPACE, WORD, character_classes, lowercase_table

HASH_BYTES = 16


@numba.njit(cache=True, nogil=True)
def _encode(point, out, place):
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


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _write(data, start, end, classes, lower, wanted, gaps, fold, out, place):
    """Copies `data[start:end]` to `out` from `place`: what lies between runs of kept characters becomes one space.

    A character is kept where `(classes & wanted != 0) != gaps`: wanted=WORD, gaps=False keeps words; wanted=SPACE, gaps=True keeps
    everything but white space. Returns the place behind.
    """
    first = place
    pending = False
    i = start
    while i < end:
        point = np.int64(data[i])
        step = 1
        if point >= 0x80:
            point, step = decode(data, i, end)
        i += step
        if ((classes[point] & wanted) != 0) == gaps:
            pending = True
            continue
        if pending and place > first:
            out[place] = 32
            place += 1
        pending = False
        if fold:
            point = np.int64(lower[point])
        if point < 0x80:
            out[place] = point
            place += 1
        else:
            place = _encode(point, out, place)
    return place


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _normalise(data, offsets, classes, lower, fold, words_only, out, places):
    place = 0
    for d in range(len(offsets) - 1):
        start, end = offsets[d], offsets[d + 1]
        begin = place
        if words_only:
            place = _write(data, start, end, classes, lower, WORD, False, fold, out, begin)
        if place == begin:  # a text without words is its symbols: two of them are not equal for having none
            place = _write(data, start, end, classes, lower, SPACE, True, fold, out, begin)
        places[d + 1] = place


def normalised(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], how: Normalisation
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Arrow text `(data, offsets)` in normalised form, laid out alike. Lower-casing is `str.lower` where it gives one character."""
    if how == "none":
        return data, offsets
    out = np.empty(int(offsets[-1] - offsets[0]) * 3 + 1, np.uint8)  # invalid bytes grow to three
    places = np.zeros(len(offsets), np.int64)
    fold, words_only = how != "whitespace", how == "words"
    _normalise(read_only(data), read_only(offsets), character_classes(), lowercase_table(), fold, words_only, out, places)
    return out, places


def exact_hashes(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], how: Normalisation) -> bytes:
    """The XXH3-128 (canonical bytes) of each normalised text, one after the other: 16 bytes a document."""
    form, places = normalised(data, offsets, how)
    view = form.data
    return b"".join([xxhash.xxh3_128_digest(view[a:b]) for a, b in pairwise(places.tolist())])
