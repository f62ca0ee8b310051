# mypy: disallow-untyped-defs=False
"""The words that BPE is trained on, as one flat array, and finding the pairs of tokens in them that are frequent.

A record is `[low, high, token, token, ..., END]` in int32: a word's count in two halves of 31 bits, and its tokens. Records lie one behind the
other; what merging frees behind a record is END, too. The records are all that training has to know: pairs that are too rare to be merged soon
are not kept, and are found again here when their turn comes.
"""

import numba
import numpy as np

from corpusmill.pipeline.text.hashing import BASE, mix64

END = -1
HEADER = 2
HALF = 31
LOW = (1 << HALF) - 1

#: Columns of the table of pairs, int64 [pairs, FIELDS].
KEY, COUNT, START, LENGTH, FIELDS = 0, 1, 2, 3, 4


@numba.njit(cache=True, nogil=True, inline="always")
def pair_key(left, right):
    """Both ids in one number: in its order pairs are sorted by the left id, then the right one."""
    return np.int64(left) << 32 | np.int64(right)


@numba.njit(cache=True, nogil=True, inline="always")
def _hash(key):
    return mix64(mix64(np.uint64(key) * BASE) * BASE)


@numba.njit(cache=True, nogil=True, inline="always")
def count_of(records, at):
    return np.int64(records[at]) | np.int64(records[at + 1]) << HALF


@numba.njit(cache=True, nogil=True)
def records_size(offsets):
    """How many numbers the records of these words take: words of one byte have no pair, and get no record."""
    size = 0
    for word in range(offsets.size - 1):
        length = offsets[word + 1] - offsets[word]
        if length > 1:
            size += HEADER + length + 1
    return size


@numba.njit(cache=True, nogil=True)
def fill_records(data, offsets, counts, byte_ids, records):
    """Writes the words as records of single bytes' tokens."""
    at = 0
    for word in range(offsets.size - 1):
        start, end = offsets[word], offsets[word + 1]
        if end - start < 2:
            continue
        records[at], records[at + 1] = counts[word] & LOW, counts[word] >> HALF
        at += HEADER
        for place in range(start, end):
            records[at] = byte_ids[data[place]]
            at += 1
        records[at] = END
        at += 1


@numba.njit(cache=True, nogil=True)
def compact(records, used, sums):
    """Moves records together and drops those of a single token; adds the count of each pair to one of the `sums` (int64, a power of two).

    Returns how much is used. A sum is at least the count of each pair that falls on it, so it says which pairs are rare.
    """
    mask = np.uint64(sums.size - 1)
    at = out = 0
    while at < used:
        if records[at] == END:
            at += 1
            continue
        if records[at + HEADER + 1] == END:
            at += HEADER + 2
            continue
        count = count_of(records, at)
        records[out], records[out + 1] = records[at], records[at + 1]
        at, out = at + HEADER, out + HEADER
        left = records[at]
        while left != END:
            records[out] = left
            at, out = at + 1, out + 1
            right = records[at]
            if right != END:
                sums[_hash(pair_key(left, right)) & mask] += count
            left = right
        records[out] = END
        at, out = at + 1, out + 1
    return out


@numba.njit(cache=True, nogil=True, inline="always")
def find_pair(slots, pairs, key):
    """The number of a pair in the table, or -1 - the slot where it would be."""
    mask = slots.size - 1
    slot = np.int64(_hash(key)) & mask
    while slots[slot] >= 0:
        if pairs[slots[slot], KEY] == key:
            return np.int64(slots[slot])
        slot = (slot + 1) & mask
    return -1 - slot


@numba.njit(cache=True, nogil=True)
def grown(array, size):
    """A copy with room for `size` rows."""
    larger = np.empty((size, *array.shape[1:]), array.dtype)
    larger[: array.shape[0]] = array
    return larger


@numba.njit(cache=True, nogil=True)
def with_room(slots, pairs, known):
    """The table with room for one pair more: half of the slots stay empty."""
    if known == pairs.shape[0]:
        pairs = grown(pairs, 2 * known)
    if 2 * (known + 1) > slots.size:
        slots = np.full(2 * slots.size, -1, np.int32)
        for number in range(known):
            slots[-1 - find_pair(slots, pairs, pairs[number, KEY])] = number
    return slots, pairs


@numba.njit(cache=True, nogil=True)
def tabulate(records, used, sums, least, slots, pairs):
    """The pairs that occur at least `least` times, with their counts and where they occur.

    Returns `(slots, pairs, known, positions)`: `pairs` int64 [.., FIELDS] of which `known` are used, `slots` the hash table over them, and
    `positions` (uint32) where the records of each pair begin: LENGTH of them from START on. A pair that shares its sum
    with others may be rarer than `least`; it has no positions.
    """
    mask = np.uint64(sums.size - 1)
    known, at = 0, 0
    while at < used:
        record, count = at, count_of(records, at)
        at += HEADER
        left, right = records[at], records[at + 1]
        while right != END:
            key = pair_key(left, right)
            if sums[_hash(key) & mask] >= least:
                number = find_pair(slots, pairs, key)
                if number < 0:
                    slots, pairs = with_room(slots, pairs, known)
                    slots[-1 - find_pair(slots, pairs, key)] = known
                    number = known
                    pairs[number, KEY], pairs[number, COUNT], pairs[number, START], pairs[number, LENGTH] = key, 0, -1, 0
                    known += 1
                pairs[number, COUNT] += count
                if pairs[number, START] != record:  # until positions are given out, the last record in which it was seen
                    pairs[number, START] = record
                    pairs[number, LENGTH] += 1
            at += 1
            left, right = right, records[at + 1]
        at += 2
    total = 0
    for number in range(known):
        pairs[number, START] = total
        if pairs[number, COUNT] >= least:
            total += pairs[number, LENGTH]
        pairs[number, LENGTH] = 0
    positions = np.empty(total, np.uint32)
    _fill_positions(records, used, sums, least, slots, pairs, positions)
    return slots, pairs, known, positions


@numba.njit(cache=True, nogil=True)
def _fill_positions(records, used, sums, least, slots, pairs, positions):
    mask = np.uint64(sums.size - 1)
    at = 0
    while at < used:
        record = at
        at += HEADER
        left, right = records[at], records[at + 1]
        while right != END:
            key = pair_key(left, right)
            if sums[_hash(key) & mask] >= least:
                number = find_pair(slots, pairs, key)
                if pairs[number, COUNT] >= least:
                    place = pairs[number, START] + pairs[number, LENGTH]
                    if pairs[number, LENGTH] == 0 or positions[place - 1] != record:
                        positions[place] = record
                        pairs[number, LENGTH] += 1
            at += 1
            left, right = right, records[at + 1]
        at += 2
