# mypy: disallow-untyped-defs=False
"""The form of a text whose hash decides whether two documents are exact copies."""

from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from corpusmill.dedup.config import ExactForm
from corpusmill.dedup.words import character, chunks, read_only
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.buffers import text_array, text_buffers
from corpusmill.pipeline.text.utf8 import CODE_POINTS, SPACE, WORD, character_classes, lowercase_table

HASH_BYTES = 16
#: Bytes of text that are normalised at once, a longer document alone: they stay in the processor's cache until they are hashed.
CHUNK_BYTES = 1 << 18
#: Bytes that are tried at once.
BLOCK = 32
#: Bytes of a block that are not ASCII from which on it is written by single characters, and the next one too.
DENSE = 8
#: Where the size of a character's form begins, and the form of a space.
_SIZE = np.uint64(32)
_SPACE_FORM = np.uint64(1 << 32 | 0x20)


@cache
def _forms(how: ExactForm, words: bool) -> npt.NDArray[np.uint64]:
    """uint64 of length 0x110000: what each character becomes, a space where it is left out. UTF-8 from the low byte on, and above that
    how many bytes it has."""
    classes = character_classes()
    kept = classes & WORD if words else ~classes & SPACE
    points = np.arange(CODE_POINTS, dtype=np.uint32) if how == "whitespace" else lowercase_table()
    forms = np.where(kept, points, np.uint32(32)).astype(np.uint64)
    tail = [(forms >> np.uint64(shift) & np.uint64(63)) | np.uint64(0x80) for shift in (0, 6, 12)]
    two = forms >> np.uint64(6) | np.uint64(0xC0) | tail[0] << np.uint64(8)
    three = forms >> np.uint64(12) | np.uint64(0xE0) | tail[1] << np.uint64(8) | tail[0] << np.uint64(16)
    four = forms >> np.uint64(18) | np.uint64(0xF0) | tail[2] << np.uint64(8) | tail[1] << np.uint64(16) | tail[0] << np.uint64(24)
    sizes = [forms < np.uint64(limit) for limit in (0x80, 0x800, 0x10000)]
    content = np.select(sizes, [forms, two, three], four)
    return content | np.select(sizes, [np.uint64(1), np.uint64(2), np.uint64(3)], np.uint64(4)) << _SIZE


@kernel(error_model="numpy")
def _write(data, start, end, forms, out, begin):
    """Writes `data[start:end]` to `out` from `begin`, runs of spaces as one and none at the ends; returns the place behind.

    Without a branch on where words end, as in `words.word_hashes`: four bytes are always written.
    """
    place, spaced, i, last = begin, np.int64(1), start, end - 1
    while i < end:
        point = np.int64(data[i])
        if point < 0x80:
            i += 1
        else:
            point, width = character(data[i], data[min(i + 1, last)], data[min(i + 2, last)], data[min(i + 3, last)], end - i)
            i += width
        form = forms[point]
        first = np.uint64(place)
        for k in range(4):
            out[first + np.uint64(k)] = np.uint8(form >> np.uint64(8 * k))
        space = np.int64(form == _SPACE_FORM)
        place += np.int64(form >> _SIZE) * (1 - (space & spaced))
        spaced = space
    return place - (spaced & np.int64(place > begin))


@kernel(inline="always")
def _is_space(byte):
    return ((byte >= 0x09) & (byte <= 0x0D)) | ((byte >= 0x1C) & (byte <= 0x20))


@kernel
def _write_block(data, at, case, out, place):
    """Writes what BLOCK bytes become where they are ASCII and no space follows a space; says whether they are.

    `at` and `place` are unsigned, `at` is not the first of the data, and `case` (uint8) is 0x20 to lower it and else 0. The loop has no
    jump, so the compiler makes vectors of it.
    """
    odd = False
    for k in range(BLOCK):
        byte, before = data[at + np.uint64(k)], data[at + np.uint64(k) - np.uint64(1)]
        space = _is_space(byte)
        odd |= (byte >= 0x80) | (space & _is_space(before))
        lower = byte | (case if (byte >= 0x41) & (byte <= 0x5A) else np.uint8(0))
        out[place + np.uint64(k)] = np.uint8(0x20) if space else np.uint8(lower)
    return not odd


@kernel
def _fitting(data, at):
    """`(how many, how many are not ASCII)`: up to where `_write_block` wrote the right thing."""
    fit, high = np.uint8(BLOCK), np.uint8(0)
    for k in range(BLOCK):
        byte, before = data[at + np.uint64(k)], data[at + np.uint64(k) - np.uint64(1)]
        high += np.uint8(byte >> np.uint8(7))
        odd = (byte >= 0x80) | (_is_space(byte) & _is_space(before))
        fit = min(fit, np.uint8(k) if odd else np.uint8(BLOCK))
    return np.int64(fit), np.int64(high)


@kernel(error_model="numpy")
def _write_by_blocks(data, start, end, forms, case, out, begin):
    """As `_write` for forms that differ from the text only in spaces and, where `case` is 0x20, in case."""
    place, spaced, i, last = begin, np.int64(1), start, end - 1
    high = DENSE  # bytes of the last block that are not ASCII
    while i < end:
        limit = min(i + BLOCK, end)
        if high < DENSE and i <= end - BLOCK:
            if spaced and _is_space(data[i]):
                i += 1
                continue
            if _write_block(data, np.uint64(i), case, out, np.uint64(place)):
                place, i = place + BLOCK, i + BLOCK
                spaced = np.int64(_is_space(data[i - 1]))
                continue
            fit, high = _fitting(data, np.uint64(i))
            place, i = place + fit, i + fit
            if fit:
                spaced = np.int64(_is_space(data[i - 1]))
            if high < DENSE:
                limit = i + 1
        high = 0
        while i < limit:
            point = np.int64(data[i])
            if point < 0x80:
                i += 1
            else:
                point, width = character(data[i], data[min(i + 1, last)], data[min(i + 2, last)], data[min(i + 3, last)], end - i)
                i += width
                high += width
            form = forms[point]
            first = np.uint64(place)
            for k in range(4):
                out[first + np.uint64(k)] = np.uint8(form >> np.uint64(8 * k))
            space = np.int64(form == _SPACE_FORM)
            place += np.int64(form >> _SIZE) * (1 - (space & spaced))
            spaced = space
    return place - (spaced & np.int64(place > begin))


@kernel(error_model="numpy")
def _normalise_words(data, offsets, forms, other_forms, out, places):
    for d in range(len(offsets) - 1):
        begin = places[d]
        place = _write(data, offsets[d], offsets[d + 1], forms, out, begin)
        if place == begin:  # a text without words is its symbols: two of them are not equal for having none
            place = _write(data, offsets[d], offsets[d + 1], other_forms, out, begin)
        places[d + 1] = place


@kernel(error_model="numpy")
def _normalise(data, offsets, forms, case, out, places):
    for d in range(len(offsets) - 1):
        places[d + 1] = _write_by_blocks(data, offsets[d], offsets[d + 1], forms, case, out, places[d])


def normalised(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], how: ExactForm
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Arrow text `(data, offsets)` in normalised form, laid out alike. Lower-casing is `str.lower` where it gives one character."""
    if how == "none":
        return data, offsets
    out = np.empty(int(offsets[-1] - offsets[0]) * 3 + BLOCK, np.uint8)  # invalid bytes grow to three
    places = np.zeros(len(offsets), np.int64)
    if how == "words":
        _normalise_words(read_only(data), read_only(offsets), _forms(how, True), _forms(how, False), out, places)
    else:
        case = np.uint8(0x20 if how == "lowercase" else 0)
        _normalise(read_only(data), read_only(offsets), _forms(how, False), case, out, places)
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
    hashes: list[bytes] = []
    for first, last in chunks(offsets, CHUNK_BYTES):
        form, places = normalised(data, offsets[first : last + 1], how)
        view = form.data
        hashes += [xxhash.xxh3_128_digest(view[a:b]) for a, b in pairwise(places.tolist())]
    return b"".join(hashes)
