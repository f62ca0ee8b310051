# mypy: disallow-untyped-defs=False
"""Byte-pair encoding of one piece inside kernels: the merge of lowest rank first, the leftmost where a pair comes twice.

As `models::bpe::word::Word::merge_all` of `tokenizers`. Pairs that are merged lie in an open hash table; those of two bytes in a
plain one, too.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.hashing import BASE, mix64

#: The rank of no merge: of merges, the least rank is done first.
NONE = np.uint32(0xFFFFFFFF)
FREE = np.uint64(0xFFFFFFFFFFFFFFFF)
LOW = np.uint64(0xFFFFFFFF)
WORD = np.uint64(32)
#: A slot of the table: the pair's ids of 20 bits each, and the rank of its merge.
ID_BITS, RANK_BITS = np.uint64(20), np.uint64(24)
RANK = np.uint64((1 << 24) - 1)
MOST_RANKS = 1 << 24
#: Bytes up to which looking at all pairs for the least, some at a time, is faster than a heap; a place among them has seven bits.
SHORT, LANES = 128, 16
PLACE_BITS, PLACE = np.uint32(7), np.uint32(SHORT - 1)


class Merges(NamedTuple):
    """The merges of a vocabulary as kernels read them, small enough to stay in the processor's cache.

    `bytes_` int32 [256]: the id of each byte; `of_bytes` uint32 [65536]: the rank of the merge of two bytes (first << 8 | second), or NONE;
    `table` uint64 [slots]: pairs with the ranks of their merges, FREE where there is none; `merged` int32: the token that each rank makes.
    """

    bytes_: npt.NDArray[np.int32]
    of_bytes: npt.NDArray[np.uint32]
    table: npt.NDArray[np.uint64]
    merged: npt.NDArray[np.int32]


class Room(NamedTuple):
    """Where `encode_short` works, an item for each byte of a piece: tokens, keys of pairs, and the places of the tokens on both sides."""

    ids: npt.NDArray[np.int32]
    keys: npt.NDArray[np.uint32]
    following: npt.NDArray[np.int64]
    before: npt.NDArray[np.int64]


def make_room() -> Room:
    return Room(np.empty(SHORT, np.int32), np.empty(SHORT, np.uint32), np.empty(SHORT, np.int64), np.empty(SHORT, np.int64))


def make_merges(byte_ids: npt.NDArray[np.int64], pairs: npt.NDArray[np.int64]) -> Merges:
    """`byte_ids` int64 [256]; `pairs` int64 [merges, 4]: left id, right id, rank, merged id; of equal pairs the last counts.

    Raises ValueError with half a sentence where ranks are too large.
    """
    most = int(pairs[:, 2].max(initial=0))
    if most >= MOST_RANKS:
        raise ValueError(f"it has a merge of rank {most:,}, and ranks below {MOST_RANKS:,} can be encoded with")
    size = 1024
    while size < 4 * len(pairs):  # sparse, as most pairs that are looked up are no merges
        size *= 2
    table, of_bytes, merged = np.full(size, FREE), np.full(1 << 16, NONE), np.zeros(most + 1, np.int32)
    merged[pairs[:, 2]] = pairs[:, 3]
    bytes_ = byte_ids.astype(np.int32)
    _fill(pairs, table)
    _fill_bytes(bytes_, table, of_bytes)
    return Merges(bytes_, of_bytes, table, merged)


@kernel
def _slot(key, mask):
    return np.int64(mix64(key * BASE)) & mask


@kernel
def _fill(pairs, table):
    mask = table.size - 1
    for row in range(pairs.shape[0]):
        key = np.uint64(pairs[row, 0]) << ID_BITS | np.uint64(pairs[row, 1])
        slot = _slot(key, mask)
        while table[slot] != FREE and table[slot] >> RANK_BITS != key:
            slot = (slot + 1) & mask
        table[slot] = key << RANK_BITS | np.uint64(pairs[row, 2])


@kernel
def _fill_bytes(bytes_, table, of_bytes):
    for first in range(256):
        for second in range(256):
            of_bytes[first << 8 | second] = rank_of(table, bytes_[first], bytes_[second])


@kernel
def rank_of(table, left, right):
    """The rank of the merge of two tokens, or NONE."""
    key = np.uint64(left) << ID_BITS | np.uint64(right)
    mask = table.size - 1
    slot = _slot(key, mask)
    while True:
        found = table[slot]
        if found >> RANK_BITS == key:
            return np.uint32(found & RANK)
        if found == FREE:
            return NONE
        slot = (slot + 1) & mask


@kernel
def _of_bytes(of_bytes, data, at):
    return of_bytes[np.int64(data[at]) << 8 | np.int64(data[at + 1])]


@kernel
def encode_short(merges, data, start, end, room, out, at):
    """Writes the tokens of `data[start:end]` (up to SHORT bytes) to `out[at:]` and returns where they end.

    A pair's key is its rank and, below it, its place: the least of all is the next merge, found without a jump.
    """
    bytes_, of_bytes, table, merged = merges
    ids, keys, following, before = room
    count = end - start
    lanes = (count + LANES - 1) & -LANES
    for place in range(count):
        ids[place] = bytes_[data[start + place]]
        following[place], before[place] = place + 1, place - 1
    for place in range(count - 1):
        keys[place] = _key(_of_bytes(of_bytes, data, start + place), place)
    for place in range(count - 1, lanes):
        keys[place] = NONE
    while True:
        best = NONE
        for place in range(lanes):
            best = min(best, keys[place])
        if best == NONE:
            break
        left = np.int64(best & PLACE)
        gone = following[left]
        ids[left] = merged[best >> PLACE_BITS]
        keys[gone] = NONE
        right, earlier = following[gone], before[left]
        following[left] = right
        if right < count:
            before[right] = left
            keys[left] = _key(rank_of(table, ids[left], ids[right]), left)
        else:
            keys[left] = NONE
        if earlier >= 0:
            keys[earlier] = _key(rank_of(table, ids[earlier], ids[left]), earlier)
    place = 0
    while place < count:
        out[at] = ids[place]
        at += 1
        place = following[place]
    return at


@kernel(inline="always")
def _key(rank, place):
    return NONE if rank == NONE else rank << PLACE_BITS | np.uint32(place)


@kernel
def encode_long(merges, data, start, end, out, at):
    """Writes the tokens of `data[start:end]` to `out[at:]` and returns where they end. Time is n log n in the bytes, whatever they are."""
    bytes_, of_bytes, table, merged = merges
    count = end - start
    ids, following, before = np.empty(count, np.int32), np.empty(count, np.int64), np.empty(count, np.int64)
    ranks = np.full(count, NONE)
    heap, size = np.empty(3 * count, np.uint64), 0  # of `rank << 32 | place`; a merge adds at most two
    for place in range(count):
        ids[place] = bytes_[data[start + place]]
        following[place], before[place] = place + 1, place - 1
        if place + 1 < count:
            ranks[place] = _of_bytes(of_bytes, data, start + place)
            size = _push(heap, size, ranks[place], place)
    while size:
        first = heap[0]
        size = _pop(heap, size)
        left = np.int64(first & LOW)
        if ranks[left] == NONE or ranks[left] != first >> WORD:
            continue  # what stood here has been merged
        gone = following[left]
        ids[left] = merged[ranks[left]]
        ranks[gone] = ranks[left] = NONE
        following[left] = following[gone]
        if following[left] < count:
            before[following[left]] = left
            ranks[left] = rank_of(table, ids[left], ids[following[left]])
            size = _push(heap, size, ranks[left], left)
        earlier = before[left]
        if earlier >= 0:
            ranks[earlier] = rank_of(table, ids[earlier], ids[left])
            size = _push(heap, size, ranks[earlier], earlier)
    place = 0
    while place < count:
        out[at] = ids[place]
        at += 1
        place = following[place]
    return at


@kernel
def _push(heap, size, rank, place):
    if rank == NONE:
        return size
    key, at = np.uint64(rank) << WORD | np.uint64(place), size
    while at and heap[(at - 1) >> 1] > key:
        heap[at] = heap[(at - 1) >> 1]
        at = (at - 1) >> 1
    heap[at] = key
    return size + 1


@kernel
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
