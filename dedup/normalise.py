# mypy: disallow-untyped-defs=False
"""The form of a text whose hash decides whether two documents are exact copies."""

from functools import cache
from itertools import pairwise

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from corpusmill.dedup.config import ExactForm
from corpusmill.dedup.words import decode, read_only
from corpusmill.pipeline.text.buffers import text_array, text_buffers
from corpusmill.pipeline.text.classes import CODE_POINTS, SPACE, WORD, character_classes, lowercase_table
from corpusmill.pipeline.text.utf8 import HIGH_BITS, eight_bytes, first_marked

HASH_BYTES = 16
_BLANKS = np.uint64(0x2020202020202020)


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
def _forms(how: ExactForm, words: bool) -> npt.NDArray[np.uint32]:
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


@numba.njit(cache=True, nogil=True, inline="always")
def _at_least(seven_bits, least):
    """The high bit of each of eight bytes below 128 that is at least so much."""
    return seven_bits + np.uint64((0x80 - least) * 0x0101010101010101)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _write_by_eight(data, start, end, forms, upper, out, begin):
    """As `_write` for forms that differ from the text only in spaces and, where `upper` is HIGH_BITS and not 0, in case.

    Eight bytes at a time as far as they are ASCII and no space follows a space.
    """
    place, spaced, i = begin, np.uint64(0x80), start  # spaced: the high bit of a byte
    while i + 8 <= end:
        eight = eight_bytes(data, i)
        low = eight & ~HIGH_BITS
        spaces = (_at_least(low, 28) & ~_at_least(low, 33) | _at_least(low, 9) & ~_at_least(low, 14)) & HIGH_BITS & ~eight
        capitals = _at_least(low, 65) & ~_at_least(low, 91) & upper
        blank = (spaces >> np.uint64(7)) * np.uint64(0xFF)
        eight_forms = (eight & ~blank | blank & _BLANKS) | capitals >> np.uint64(2)
        first = np.uint64(place)
        for k in range(8):
            out[first + np.uint64(k)] = np.uint8(eight_forms >> np.uint64(8 * k))
        stops = eight & HIGH_BITS | spaces & (spaces << np.uint64(8) | spaced)
        if not stops:
            place, i, spaced = place + 8, i + 8, spaces >> np.uint64(56)
            continue
        fit = first_marked(stops)
        place, i = place + fit, i + fit
        if fit:
            spaced = spaces >> np.uint64(8 * fit - 8) & np.uint64(0x80)
        if data[i] < 0x80:  # one space too many
            i += 1
        while i < end and data[i] >= 0x80:
            point, step = decode(data, i, end)
            i += step
            form = np.int64(forms[point])
            if form != 32:
                place, spaced = encode(form, out, place), np.uint64(0)
            elif not spaced:
                out[place] = 32
                place, spaced = place + 1, np.uint64(0x80)
    while i < end:
        point, step = decode(data, i, end)
        i += step
        form = np.int64(forms[point])
        if form != 32:
            place, spaced = encode(form, out, place), np.uint64(0)
        elif not spaced:
            out[place] = 32
            place, spaced = place + 1, np.uint64(0x80)
    return place - np.int64(spaced != 0 and place > begin)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _normalise_by_eight(data, offsets, forms, upper, out, places):
    for d in range(len(offsets) - 1):
        places[d + 1] = _write_by_eight(data, offsets[d], offsets[d + 1], forms, upper, out, places[d])


def normalised(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], how: ExactForm
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Arrow text `(data, offsets)` in normalised form, laid out alike. Lower-casing is `str.lower` where it gives one character."""
    if how == "none":
        return data, offsets
    out = np.empty(int(offsets[-1] - offsets[0]) * 3 + 1, np.uint8)  # invalid bytes grow to three
    places = np.zeros(len(offsets), np.int64)
    if how == "words":
        _normalise(read_only(data), read_only(offsets), _forms(how, True), _forms(how, False), out, places)
    else:
        upper = HIGH_BITS if how == "lowercase" else np.uint64(0)
        _normalise_by_eight(read_only(data), read_only(offsets), _forms(how, False), upper, out, places)
    return out, places


def repaired(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The texts as they are, but valid UTF-8: bytes that are none count as U+FFFD."""
    try:
        text_array(data, offsets).validate(full=True)
    except pa.ArrowInvalid:
        texts = [data[a:b].tobytes().decode(errors="replace") for a, b in pairwise(offsets.tolist())]
        return text_buffers(pa.array(texts, pa.large_string()))
    return data, offsets


def exact_hashes(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], how: ExactForm) -> bytes:
    """The XXH3-128 (canonical bytes) of each normalised text, one after the other: 16 bytes a document."""
    form, places = normalised(data, offsets, how)
    view = form.data
    return b"".join([xxhash.xxh3_128_digest(view[a:b]) for a, b in pairwise(places.tolist())])
