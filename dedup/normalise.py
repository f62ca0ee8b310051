# mypy: disallow-untyped-defs=False
"""The form of a text whose hash decides whether two documents are exact copies."""

from functools import cache
from itertools import pairwise

import numba
import numpy as np
import numpy.typing as npt
import xxhash

from corpusmill.dedup.config import Normalisation
from corpusmill.dedup.words import decode, read_only
from corpusmill.pipeline.text.classes import CODE_POINTS, SPACE, WORD, character_classes, lowercase_table

HASH_BYTES = 16


@numba.njit(cache=True, nogil=True)
def encode(point, out, place):
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


@cache
def _forms(how: Normalisation, words: bool) -> npt.NDArray[np.uint32]:
    """uint32 of length 0x110000: what each character becomes; a space where it is left out."""
    classes = character_classes()
    kept = classes & WORD if words else ~classes & SPACE
    points = np.arange(CODE_POINTS, dtype=np.uint32) if how == "whitespace" else lowercase_table()
    return np.where(kept, points, np.uint32(32))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _write(data, start, end, forms, out, begin):
    """Writes `data[start:end]` to `out` from `begin`, runs of spaces as one and none at the ends; returns the place behind.

    Without a branch on where words end, as in `words.word_hashes`.
    """
    place = begin
    spaced = True
    i = start
    while i < end:
        point = np.int64(data[i])
        if point < 0x80:
            i += 1
        else:
            point, step = decode(data, i, end)
            i += step
        form = np.int64(forms[point])
        space = form == 32
        if form < 0x80:
            out[place] = form
            place += np.int64(not (space and spaced))
        else:
            place = encode(form, out, place)
        spaced = space
    return place - np.int64(spaced and place > begin)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _normalise(data, offsets, forms, other_forms, out, places):
    for d in range(len(offsets) - 1):
        begin = places[d]
        place = _write(data, offsets[d], offsets[d + 1], forms, out, begin)
        if place == begin:  # a text without words is its symbols: two of them are not equal for having none
            place = _write(data, offsets[d], offsets[d + 1], other_forms, out, begin)
        places[d + 1] = place


def normalised(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], how: Normalisation
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Arrow text `(data, offsets)` in normalised form, laid out alike. Lower-casing is `str.lower` where it gives one character."""
    if how == "none":
        return data, offsets
    out = np.empty(int(offsets[-1] - offsets[0]) * 3 + 1, np.uint8)  # invalid bytes grow to three
    places = np.zeros(len(offsets), np.int64)
    _normalise(read_only(data), read_only(offsets), _forms(how, how == "words"), _forms(how, False), out, places)
    return out, places


def exact_hashes(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], how: Normalisation) -> bytes:
    """The XXH3-128 (canonical bytes) of each normalised text, one after the other: 16 bytes a document."""
    form, places = normalised(data, offsets, how)
    view = form.data
    return b"".join([xxhash.xxh3_128_digest(view[a:b]) for a, b in pairwise(places.tolist())])
