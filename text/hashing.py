# mypy: disallow-untyped-defs=False
"""64-bit hashes inside kernels: of words and spans, XXH64 of spans and columns, and sets of hashes.

A set is an open-addressing table in a scratch array that is cleared for each use. Slots hold whole 64-bit keys, so two different texts
count as equal only where all 64 bits agree. Zero marks an empty slot; the key zero is stored as one.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import text_buffers
from corpusmill.text.utf8 import eight_bytes

BASE = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplication by it is a bijection of 64-bit integers
ONE = np.uint64(1)


@kernel(inline="always")
def mix64(value):
    """Spreads a polynomial hash over all bits (the multiply and shifts of MurmurHash3's finaliser)."""
    value ^= value >> np.uint64(32)
    value *= np.uint64(0xFF51AFD7ED558CCD)
    value ^= value >> np.uint64(29)
    return value


@kernel
def power(exponent):
    """Returns BASE to the power of `exponent`, modulo 2^64."""
    result, base = np.uint64(1), np.uint64(0x9E3779B97F4A7C15)
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result


# ----------------------------------------------------------------------------------------------------
# Sets of 64-bit hashes inside kernels: open addressing in a scratch array that is cleared for each use.


@kernel
def table_size(entries):
    """Returns a number of slots: a power of two, at least twice the entries."""
    size = 16
    while size < 2 * entries:
        size <<= 1
    return size


@kernel
def cleared(table, entries):
    """Empties as much of the scratch table as the entries need; returns its mask."""
    size = table_size(entries)
    table[:size] = np.uint64(0)
    return size - 1


@kernel
def cleared_copies(table, entries):
    """As `cleared`, for a table of two items a slot."""
    size = table_size(entries)
    table[: 2 * size] = np.uint64(0)
    return size - 1


@kernel
def insert(table, mask, key):
    """Adds a key. Returns whether it was there already. `mask` is the number of slots minus one."""
    if key == 0:
        key = np.uint64(1)
    slot = np.int64(key) & mask
    while table[slot] != 0:
        if table[slot] == key:
            return True
        slot = (slot + 1) & mask
    table[slot] = key
    return False


@kernel
def find(table, mask, key):
    """Returns the slot of a key, or -1 where it is not in the table."""
    if key == 0:
        key = np.uint64(1)
    slot = np.int64(key) & mask
    while table[slot] != 0:
        if table[slot] == key:
            return slot
        slot = (slot + 1) & mask
    return -1


@kernel
def hash_span(data, start, end):
    """Returns a 64-bit hash of the bytes `data[start:end]`, which it reads eight at a time."""
    value = np.uint64(end - start) * BASE  # spreads the length over all bits, so that leading NULs can't cancel it
    at = start
    if end - start >= 32:  # four independent chains of multiplications, which run in parallel
        first, second, third, fourth = value, value + ONE, value * BASE, ~value
        while at + 32 <= end:
            first = mix64(first ^ eight_bytes(data, at)) * BASE
            second = mix64(second ^ eight_bytes(data, at + 8)) * BASE
            third = mix64(third ^ eight_bytes(data, at + 16)) * BASE
            fourth = mix64(fourth ^ eight_bytes(data, at + 24)) * BASE
            at += 32
        value = mix64(mix64(mix64(first) * BASE ^ second) * BASE ^ third) * BASE ^ fourth
    while at + 8 <= end:
        value = mix64(value ^ eight_bytes(data, at)) * BASE
        at += 8
    rest = np.uint64(0)
    for place in range(at, end):
        rest = rest << np.uint64(8) | np.uint64(data[place])
    return mix64(mix64(value ^ rest) * BASE)


def word_set(words: Iterable[str]) -> npt.NDArray[np.uint64]:
    """Returns a table for `find` with the `hash_span` of each word."""
    spans = (np.frombuffer(word.encode(), np.uint8) for word in words)
    return hash_set(hash_span(span, 0, span.size) for span in spans)


def hash_set(hashes: Iterable[int | np.uint64]) -> npt.NDArray[np.uint64]:
    """Returns a table for `find` with these hashes, so sparse that most lookups end at the first slot."""
    distinct = sorted(set(map(int, hashes)))
    table = np.zeros(4 * table_size(len(distinct)), np.uint64)
    for value in distinct:
        insert(table, table.size - 1, np.uint64(value))
    return table


# ----------------------------------------------------------------------------------------------------
# XXH64 (xxHash, Yann Collet) of spans of bytes inside kernels, and of whole columns of strings.

_P1, _P2, _P3, _P4, _P5 = (
    np.uint64(value) for value in (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
)
_ZERO = np.uint64(0)


@kernel(inline="always")
def _rotate64(value, bits):
    return value << np.uint64(bits) | value >> np.uint64(64 - bits)


@kernel(inline="always")
def _round64(value, lane):
    return _rotate64(value + lane * _P2, 31) * _P1


@kernel
def four_bytes(data, at):
    value = _ZERO
    for place in range(4):
        value |= np.uint64(data[at + place]) << np.uint64(8 * place)
    return value


@kernel
def xxh64(data, start, end, seed=0):
    """Returns XXH64 of `data[start:end]` (uint8)."""
    at, seed = start, np.uint64(seed)
    if end - start >= 32:
        one, two, three, four = seed + _P1 + _P2, seed + _P2, seed, seed - _P1
        while at + 32 <= end:
            one, two = _round64(one, eight_bytes(data, at)), _round64(two, eight_bytes(data, at + 8))
            three, four = _round64(three, eight_bytes(data, at + 16)), _round64(four, eight_bytes(data, at + 24))
            at += 32
        value = _rotate64(one, 1) + _rotate64(two, 7) + _rotate64(three, 12) + _rotate64(four, 18)
        for lane in (one, two, three, four):
            value = (value ^ _round64(_ZERO, lane)) * _P1 + _P4
    else:
        value = seed + _P5
    value += np.uint64(end - start)
    while at + 8 <= end:
        value = _rotate64(value ^ _round64(_ZERO, eight_bytes(data, at)), 27) * _P1 + _P4
        at += 8
    if at + 4 <= end:
        value = _rotate64(value ^ four_bytes(data, at) * _P1, 23) * _P2 + _P3
        at += 4
    while at < end:
        value = _rotate64(value ^ np.uint64(data[at]) * _P5, 11) * _P1
        at += 1
    value = (value ^ value >> np.uint64(33)) * _P2
    value = (value ^ value >> np.uint64(29)) * _P3
    return value ^ value >> np.uint64(32)


@kernel
def _xxh64_each(data, offsets, seed, out):
    for row in range(len(out)):
        out[row] = xxh64(data, offsets[row], offsets[row + 1], seed)


def xxh64_column(column: pa.Array | pa.ChunkedArray, seed: int) -> npt.NDArray[np.uint64]:
    """Returns uint64 `[n]`: XXH64 of the UTF-8 bytes of each of n strings, of which none may be null."""
    data, offsets = text_buffers(column)
    out = np.empty(len(offsets) - 1, np.uint64)
    _xxh64_each(data, offsets, np.uint64(seed), out)
    return out
