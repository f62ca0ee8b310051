# mypy: disallow-untyped-defs=False
"""A table of pieces that have been encoded already, of bounded size: most pieces of a text come again.

An entry holds the piece itself, so what is found is right whatever the hash. What is in the table decides speed alone. Pieces of
up to 16 bytes have an entry of half a cache line, two of which share a place (the one used last stays); those of up to 48 bytes one
of a whole line.
"""

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.text.addresses import prefetch
from corpusmill.pipeline.text.hashing import BASE, mix64
from corpusmill.pipeline.text.utf8 import eight_bytes

SHORT_BYTES, LONG_BYTES = 16, 112
LONG_WORDS = 14
#: Places that an output needs beyond its last id.
SPARE = 3
#: Pieces that are cut before they are looked up.
AHEAD = 512
ROW_BYTES = 32
#: For a piece of n bytes, which bits of its first and of its second eight bytes are its own.
FIRST_MASKS = np.array([(1 << 8 * min(n, 8)) - 1 for n in range(17)], np.uint64)
SECOND_MASKS = np.array([(1 << 8 * max(n - 8, 0)) - 1 for n in range(17)], np.uint64)
WAYS = 4
PLACES = 1 << 18  # 32 MiB of short pieces
LONG_PLACES = 1 << 18  # 8 MiB of long ones
#: The third word of an entry has the piece's bytes in its lowest eight bits and the number of its ids above them. The fourth has up
#: to three ids of 21 bits; where they are more, where they lie in `others`.
BYTES = np.uint64(0xFF)
COUNT = np.uint64(8)
MOST_IDS = np.uint64(3)
ID_BITS = np.uint64(21)
ID = np.uint64((1 << 21) - 1)
OTHER_IDS = 1 << 22  # 16 MiB; when they are full, all is forgotten


class KnownPieces(NamedTuple):
    """`short` uint64 [2 * PLACES, 4]: two words of a piece's bytes, its size, its ids; `long` uint64 [LONG_PLACES, 8] with six words
    of bytes; `others` uint32 [OTHER_IDS]: ids that had no room; `used` int64 [1]: how many of them.

    One thread at a time may use it.
    """

    short: npt.NDArray[np.uint64]
    long: npt.NDArray[np.uint64]
    others: npt.NDArray[np.uint32]
    used: npt.NDArray[np.int64]


class Cut(NamedTuple):
    """Pieces to look up: where each ends, and what `short_words` and `short_row` say of it."""

    ends: npt.NDArray[np.int64]
    firsts: npt.NDArray[np.uint64]
    seconds: npt.NDArray[np.uint64]
    rows: npt.NDArray[np.int64]


def make_known_pieces() -> KnownPieces:
    return KnownPieces(
        _aligned(WAYS * PLACES, 4), _aligned(LONG_PLACES, LONG_WORDS + 2), np.zeros(OTHER_IDS, np.uint32), np.zeros(1, np.int64)
    )


def make_cut() -> Cut:
    return Cut(np.empty(AHEAD, np.int64), np.empty(AHEAD, np.uint64), np.empty(AHEAD, np.uint64), np.empty(AHEAD, np.int64))


def _aligned(rows: int, words: int) -> npt.NDArray[np.uint64]:
    """Zeros that begin at a cache line."""
    block = np.zeros(rows * words + 8, np.uint64)
    skip = -block.ctypes.data % 64 // 8
    return block[skip : skip + rows * words].reshape(rows, words)


@numba.njit(cache=True, nogil=True)
def _load(data, at, count):
    """`count` (1 to 8) bytes as an integer, zeros above; nothing after the buffer's end is read."""
    if at + 8 <= data.size:
        return eight_bytes(data, at) & (np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - 8 * count))
    value = np.uint64(0)
    for place in range(count):
        value |= np.uint64(data[at + place]) << np.uint64(8 * place)
    return value


@numba.njit(nogil=True, inline="always")
def short_words(data, start, length):
    """The bytes of a piece of 1 to 16 bytes as two integers, zeros above; of a longer one, those of its first 16."""
    size = np.uint64(min(length, SHORT_BYTES))
    if start + SHORT_BYTES <= data.size:
        return eight_bytes(data, start) & FIRST_MASKS[size], eight_bytes(data, start + 8) & SECOND_MASKS[size]
    return _last_words(data, start, np.int64(size))


@numba.njit(cache=True, nogil=True)
def _last_words(data, start, length):
    if length <= 8:
        return _load(data, start, length), np.uint64(0)
    return eight_bytes(data, start), _load(data, start + 8, length - 8)


@numba.njit(nogil=True, inline="always")
def short_row(first, second, length):
    """The first of the two rows where a piece of up to 16 bytes may be."""
    mixed = mix64((first ^ (second + np.uint64(length)) * BASE) * BASE)
    return np.int64(mixed >> np.uint64(20)) & (PLACES - 1) << 2


@numba.njit(nogil=True)
def look_ahead(short, data, begin, pieces, cut):
    """For pieces of which the first begins at `begin`: their words and rows, and has the rows fetched."""
    ends, firsts, seconds, rows = cut
    at = begin
    for piece in range(pieces):
        number = np.uint64(piece)
        stop = ends[number]
        first, second = short_words(data, at, stop - at)
        row = short_row(first, second, stop - at)
        prefetch(short, row * ROW_BYTES)
        firsts[number], seconds[number], rows[number] = first, second, row
        at = stop


@numba.njit(nogil=True, inline="always")
def is_short(table, first, second, length, row):
    """Whether the entry in this row is that piece's."""
    return (table[row, 0] == first) & (table[row, 1] == second) & (table[row, 2] & BYTES == np.uint64(length))


@numba.njit(cache=True, nogil=True)
def find_short(table, first, second, length, row):
    """Whether a piece is known; then it is in the first of its rows afterwards, as what comes twice comes again."""
    if is_short(table, first, second, length, row):
        return True
    for other in range(row + 1, row + WAYS):
        if is_short(table, first, second, length, other):
            for word in range(4):
                table[row, word], table[other, word] = table[other, word], table[row, word]
            return True
    return False


@numba.njit(cache=True, nogil=True)
def keep_short(table, first, second, size, row, ids):
    """Puts a piece into the second of its rows, those there one row on, and the last is forgotten."""
    for other in range(row + WAYS - 1, row + 1, -1):
        for word in range(4):
            table[other, word] = table[other - 1, word]
    row += 1
    table[row, 0], table[row, 1], table[row, 2], table[row, 3] = first, second, size, ids


@numba.njit(cache=True, nogil=True)
def long_row(data, start, end):
    """Where a piece of 17 to 48 bytes may be."""
    mixed = np.uint64(end - start)
    at = start
    while at < end:
        mixed = mix64((mixed ^ _load(data, at, min(8, end - at))) * BASE)
        at += 8
    return np.int64(mixed >> np.uint64(20)) & (LONG_PLACES - 1)


@numba.njit(cache=True, nogil=True)
def find_long(table, data, start, end, row):
    """As `find_short`."""
    size = table[row, LONG_WORDS]
    if size & BYTES != np.uint64(end - start):
        return np.uint64(0), np.uint64(0)
    word, at = 0, start
    while at < end:
        if table[row, word] != _load(data, at, min(8, end - at)):
            return np.uint64(0), np.uint64(0)
        word += 1
        at += 8
    return size >> COUNT, table[row, LONG_WORDS + 1]


@numba.njit(cache=True, nogil=True)
def keep_long(table, data, start, end, row, size, ids):
    word, at = 0, start
    while at < end:
        table[row, word] = _load(data, at, min(8, end - at))
        word += 1
        at += 8
    table[row, LONG_WORDS], table[row, LONG_WORDS + 1] = size, ids


@numba.njit(cache=True, nogil=True)
def pack_ids(known, length, out, start, end):
    """`(third, fourth)` word of the entry of a piece of `length` bytes whose ids are `out[start:end]`."""
    count = end - start
    ids = np.uint64(0)
    if count <= MOST_IDS:
        for number in range(count):
            ids |= np.uint64(out[start + number]) << (ID_BITS * np.uint64(number))
    else:
        place = known.used[0]
        if place + count > OTHER_IDS:
            known.short[:] = 0
            known.long[:] = 0
            place = 0
        known.used[0] = place + count
        for number in range(count):
            known.others[place + number] = out[start + number]
        ids = np.uint64(place)
    return np.uint64(length) | np.uint64(count) << COUNT, ids


@numba.njit(cache=True, nogil=True)
def write_ids(count, ids, others, out, at):
    """Writes an entry's ids to `out[at:]` (`at` unsigned), which has at least SPARE places, and returns where they end."""
    if count <= MOST_IDS:  # three stores, whatever the number: a loop would guess wrong how often it goes round
        out[at] = ids & ID
        out[at + np.uint64(1)] = (ids >> ID_BITS) & ID
        out[at + np.uint64(2)] = ids >> (ID_BITS + ID_BITS)
    else:
        for number in range(count):
            out[at + np.uint64(number)] = others[ids + np.uint64(number)]
    return at + count
