# mypy: disallow-untyped-defs=False
"""A table of pieces that have been encoded already, of bounded size: most pieces of a text come again.

An entry holds the piece itself, so what is found is right whatever the hash. What is in the table decides speed alone. Pieces of
up to 16 bytes have an entry of half a cache line, those of up to 112 bytes one of two lines. Entries that share a place lie one after
the other, and the one used last is the first.

Functions that are given arrays are inlined here, not by LLVM: numba would count references to arrays that a call is given.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.hashing import BASE, mix64
from corpusmill.pipeline.text.utf8 import eight_bytes
from corpusmill.tokenize.ascii_words import FIRST_MASKS, SECOND_MASKS

SHORT_BYTES, LONG_BYTES = 16, 112
#: Eights of bytes, then the two words that say what they become.
SHORT_WORDS, LONG_WORDS = 2, 14
SHORT_WIDTH, LONG_WIDTH = SHORT_WORDS + 2, LONG_WORDS + 2
#: Places, and rows that have one in common: 32 MiB of short pieces, 16 MiB of long ones.
PLACES, WAYS = 1 << 18, 4
LONG_PLACES, LONG_WAYS = 1 << 17, 2
#: Places that an output needs beyond its last id.
SPARE = 3
#: The first word after its bytes has an entry's number of bytes in its lowest eight bits and that of its ids above them. The second has
#: up to three ids of 21 bits; where they are more, where they lie in `others`.
BYTES = np.uint64(0xFF)
COUNT = np.uint64(8)
MOST_IDS = np.uint64(3)
ID_BITS = np.uint64(21)
ID = np.uint64((1 << 21) - 1)
OTHER_IDS = 1 << 22  # 16 MiB; when they are full, all is forgotten
_ONE = np.uint64(1)


class KnownPieces(NamedTuple):
    """`short` uint64 [WAYS * PLACES, SHORT_WIDTH]; `long` uint64 [LONG_WAYS * LONG_PLACES, LONG_WIDTH]; `others` uint32 [OTHER_IDS]: ids
    that had no room; `used` int64 [1]: how many of them.

    One thread at a time may use it.
    """

    short: npt.NDArray[np.uint64]
    long: npt.NDArray[np.uint64]
    others: npt.NDArray[np.uint32]
    used: npt.NDArray[np.int64]


def make_known_pieces() -> KnownPieces:
    short, long = _aligned(WAYS * PLACES, SHORT_WIDTH), _aligned(LONG_WAYS * LONG_PLACES, LONG_WIDTH)
    return KnownPieces(short, long, np.zeros(OTHER_IDS, np.uint32), np.zeros(1, np.int64))


def _aligned(rows: int, words: int) -> npt.NDArray[np.uint64]:
    """Zeros that begin at a cache line."""
    block = np.zeros(rows * words + 8, np.uint64)
    skip = -block.ctypes.data % 64 // 8
    return block[skip : skip + rows * words].reshape(rows, words)


@kernel(inline="always")
def short_words(data, start, length):
    """The bytes of a piece of 1 to 16 bytes as two integers, zeros above; of a longer one, the first 16."""
    size = np.uint64(min(length, SHORT_BYTES))
    if start + SHORT_BYTES <= data.size:
        return eight_bytes(data, start) & FIRST_MASKS[size], eight_bytes(data, start + 8) & SECOND_MASKS[size]
    return _last_words(data, start, np.int64(size))


@kernel
def _last_words(data, start, length):
    """The same where the buffer's end is near."""
    first, second = np.uint64(0), np.uint64(0)
    for place in range(length):
        if place < 8:
            first |= np.uint64(data[start + place]) << np.uint64(8 * place)
        else:
            second |= np.uint64(data[start + place]) << np.uint64(8 * place - 64)
    return first, second


@kernel(inline="always")
def short_row(first, second, length):
    """The first of the rows where a piece of up to 16 bytes may be."""
    mixed = mix64((first ^ (second + np.uint64(length)) * BASE) * BASE)
    return WAYS * (np.int64(mixed >> np.uint64(20)) & (PLACES - 1))


@kernel(inline="always")
def long_row(data, start, length):
    """The same of a piece of 17 to 112 bytes. Its last eight bytes are hashed as they lie, so that nothing behind it is read."""
    mixed = np.uint64(length)
    for at in range(start, start + length - 8, 8):
        mixed = mix64((mixed ^ eight_bytes(data, at)) * BASE)
    mixed = mix64((mixed ^ eight_bytes(data, start + length - 8)) * BASE)
    return LONG_WAYS * (np.int64(mixed >> np.uint64(20)) & (LONG_PLACES - 1))


@kernel(inline="always")
def is_short(table, row, first, second, length):
    """Whether the entry in this row is that piece's."""
    return (table[row, 0] == first) & (table[row, 1] == second) & (table[row, SHORT_WORDS] & BYTES == np.uint64(length))


@kernel(inline="always")
def is_long(table, row, data, start, length):
    found = table[row, LONG_WORDS] & BYTES == np.uint64(length)
    word, at = 0, start
    while found and at < start + length - 8:
        found = table[row, word] == eight_bytes(data, at)
        word, at = word + 1, at + 8
    return found and table[row, word] == eight_bytes(data, start + length - 8)


@kernel(inline="always")
def keep_short(table, row, first, second, size, ids):
    """Puts a piece into the second of its rows, and what was there one row on; the last is forgotten."""
    _move_on(table, row, WAYS)
    row += 1
    table[row, 0], table[row, 1], table[row, SHORT_WORDS], table[row, SHORT_WORDS + 1] = first, second, size, ids


@kernel(inline="always")
def keep_long(table, row, data, start, length, size, ids):
    _move_on(table, row, LONG_WAYS)
    row += 1
    word = 0
    for at in range(start, start + length - 8, 8):
        table[row, word] = eight_bytes(data, at)
        word += 1
    table[row, word] = eight_bytes(data, start + length - 8)
    table[row, LONG_WORDS], table[row, LONG_WORDS + 1] = size, ids


@kernel(inline="always")
def _move_on(table, row, ways):
    for other in range(row + ways - 1, row + 1, -1):
        for word in range(table.shape[1]):
            table[other, word] = table[other - 1, word]


@kernel(inline="always")
def swap_rows(table, row, other):
    for word in range(table.shape[1]):
        table[row, word], table[other, word] = table[other, word], table[row, word]


@kernel(inline="always")
def pack_ids(known, length, out, start, end):
    """The last two words of the entry of a piece of `length` bytes whose ids are `out[start:end]`."""
    count = end - start
    ids = np.uint64(0)
    if count <= MOST_IDS:
        for place in range(end - 1, start - 1, -1):
            ids = ids << ID_BITS | np.uint64(out[place])
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


@kernel(inline="always")
def write_ids(size, ids, others, out, at):
    """Writes an entry's ids to `out[at:]` (`at` unsigned), which has at least SPARE places, and returns where they end."""
    count = size >> COUNT
    if count <= MOST_IDS:  # three stores, whatever the number: a loop would guess wrong how often it goes round
        out[at] = ids & ID
        out[at + _ONE] = (ids >> ID_BITS) & ID
        out[at + _ONE + _ONE] = ids >> (ID_BITS + ID_BITS)
    else:
        for number in range(count):
            out[at + np.uint64(number)] = others[ids + np.uint64(number)]
    return at + count
