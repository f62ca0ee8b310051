# mypy: disallow-untyped-defs=False
"""Byte-pair encoding of one piece inside kernels: the merge of lowest rank first, the leftmost where a pair comes twice.

As `models::bpe::word::Word::merge_all` of `tokenizers`. Pairs that are merged lie in an open hash table; those of two bytes in a
plain one, too.
"""

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.text.hashing import BASE, mix64

#: No such merge. Other values are `rank << 32 | id of the merged token`, so the least is to be done first.
NONE = np.uint64(0xFFFFFFFFFFFFFFFF)
LOW = np.uint64(0xFFFFFFFF)
WORD = np.uint64(32)
#: Bytes up to which looking at all pairs for the least is faster than a heap.
SHORT = 128


class Merges(NamedTuple):
    """The merges of a vocabulary as kernels read them.

    `bytes_` int64 [256]: the id of each byte; `of_bytes` uint64 [65536]: the merge of two bytes (first << 8 | second);
    `table` uint64 [slots, 2]: pairs (left id << 32 | right id, NONE where free) and their merges.
    """

    bytes_: npt.NDArray[np.int64]
    of_bytes: npt.NDArray[np.uint64]
    table: npt.NDArray[np.uint64]


def make_merges(byte_ids: npt.NDArray[np.int64], pairs: npt.NDArray[np.int64]) -> Merges:
    """`byte_ids` int64 [256]; `pairs` int64 [merges, 4]: left id, right id, rank, merged id; of equal pairs the last counts."""
    size = 1024
    while size < 3 * len(pairs):
        size *= 2
    table = np.full((size, 2), NONE)
    of_bytes = np.full(1 << 16, NONE)
    _fill(pairs, table)
    _fill_bytes(byte_ids, table, of_bytes)
    return Merges(byte_ids, of_bytes, table)


@numba.njit(cache=True, nogil=True)
def _slot(key, mask):
    return np.int64(mix64(key * BASE)) & mask


@numba.njit(cache=True, nogil=True)
def _fill(pairs, table):
    mask = table.shape[0] - 1
    for row in range(pairs.shape[0]):
        key = np.uint64(pairs[row, 0]) << WORD | np.uint64(pairs[row, 1])
        slot = _slot(key, mask)
        while table[slot, 0] != NONE and table[slot, 0] != key:
            slot = (slot + 1) & mask
        table[slot, 0] = key
        table[slot, 1] = np.uint64(pairs[row, 2]) << WORD | np.uint64(pairs[row, 3])


@numba.njit(cache=True, nogil=True)
def _fill_bytes(bytes_, table, of_bytes):
    for first in range(256):
        for second in range(256):
            of_bytes[first << 8 | second] = merge_of(table, bytes_[first], bytes_[second])


@numba.njit(cache=True, nogil=True)
def merge_of(table, left, right):
    """The merge of two tokens, or NONE."""
    key = np.uint64(left) << WORD | np.uint64(right)
    mask = table.shape[0] - 1
    slot = _slot(key, mask)
    while True:
        found = table[slot, 0]
        if found == key:
            return table[slot, 1]
        if found == NONE:
            return NONE
        slot = (slot + 1) & mask


@numba.njit(cache=True, nogil=True)
def _of_bytes(of_bytes, data, at):
    return of_bytes[np.int64(data[at]) << 8 | np.int64(data[at + 1])]


@numba.njit(cache=True, nogil=True)
def encode_short(merges, data, start, end, ids, values):
    """The tokens of `data[start:end]` in `ids` (int64), which with `values` (uint64) has room for its bytes; returns how many."""
    bytes_, of_bytes, table = merges
    count = end - start
    for place in range(count):
        ids[place] = bytes_[data[start + place]]
        values[place] = _of_bytes(of_bytes, data, start + place) if place + 1 < count else NONE
    while count > 1:
        best, at = NONE, 0
        for place in range(count - 1):
            if values[place] < best:
                best, at = values[place], place
        if best == NONE:
            break
        ids[at] = np.int64(best & LOW)
        count -= 1
        for place in range(at + 1, count):
            ids[place] = ids[place + 1]
            values[place] = values[place + 1]
        values[at] = merge_of(table, ids[at], ids[at + 1]) if at + 1 < count else NONE
        if at:
            values[at - 1] = merge_of(table, ids[at - 1], ids[at])
    return count


@numba.njit(cache=True, nogil=True)
def encode_long(merges, data, start, end, out, at):
    """Writes the tokens of `data[start:end]` to `out[at:]` and returns where they end. Time is n log n in the bytes, whatever they are."""
    bytes_, of_bytes, table = merges
    count = end - start
    ids, following, before = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.int64)
    values = np.full(count, NONE)
    heap, size = np.empty(3 * count, np.uint64), 0  # of `rank << 32 | place`; a merge adds at most two
    for place in range(count):
        ids[place] = bytes_[data[start + place]]
        following[place], before[place] = place + 1, place - 1
        if place + 1 < count:
            values[place] = _of_bytes(of_bytes, data, start + place)
            size = _push(heap, size, values[place], place)
    while size:
        first = heap[0]
        size = _pop(heap, size)
        left = np.int64(first & LOW)
        if values[left] == NONE or values[left] >> WORD != first >> WORD:
            continue  # what stood here has been merged
        gone = following[left]
        ids[left] = np.int64(values[left] & LOW)
        values[gone] = values[left] = NONE
        following[left] = following[gone]
        if following[left] < count:
            before[following[left]] = left
            values[left] = merge_of(table, ids[left], ids[following[left]])
            size = _push(heap, size, values[left], left)
        earlier = before[left]
        if earlier >= 0:
            values[earlier] = merge_of(table, ids[earlier], ids[left])
            size = _push(heap, size, values[earlier], earlier)
    place = 0
    while place < count:
        out[at] = ids[place]
        at += 1
        place = following[place]
    return at


@numba.njit(cache=True, nogil=True)
def _push(heap, size, value, place):
    if value == NONE:
        return size
    key, at = (value >> WORD) << WORD | np.uint64(place), size
    while at and heap[(at - 1) >> 1] > key:
        heap[at] = heap[(at - 1) >> 1]
        at = (at - 1) >> 1
    heap[at] = key
    return size + 1


@numba.njit(cache=True, nogil=True)
def _pop(heap, size):
    """Removes the least."""
    size -= 1
    key, at = heap[size], np.int64(0)
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = key
    return size
