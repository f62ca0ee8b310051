# mypy: disallow-untyped-defs=False
"""The words that BPE is trained on, as one flat array, and finding the pairs of tokens in them that are frequent.

The words stand one behind the other in `slots`, int32 [slots, 2]: a token and the weight of its word (its count, or where that is
2^31 or more, -1 - its place among the `large` counts). Before and behind each word is an END. A token that was merged takes the slots of
both its parts: the first and the last one hold it, so from any token its neighbours are found; the `widths` of tokens say how many slots
they take. What lies between is no token (INSIDE, or what was there before). The slots are all that training has to know: pairs that are
too rare to be merged soon are not kept, and are found again here when their turn comes.
"""

import numpy as np

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.hashing import BASE, mix64

END, INSIDE = -1, -2
LARGE = 1 << 31

#: Columns of the table of pairs, int64 [pairs, FIELDS].
KEY, COUNT, START, LENGTH, FIELDS = 0, 1, 2, 3, 4


@kernel(inline="always")
def pair_key(left, right):
    """Both ids in one number: in its order pairs are sorted by the left id, then the right one."""
    return np.int64(left) << 32 | np.int64(right)


@kernel(inline="always")
def _hash(key):
    return mix64(mix64(np.uint64(key) * BASE) * BASE)


@kernel(inline="always")
def count_at(slots, large, at):
    """The count of the word that this slot belongs to."""
    weight = np.int64(slots[at, 1])
    return weight if weight >= 0 else large[-1 - weight]


@kernel
def slots_needed(offsets):
    """How many slots the words take: those of one byte have no pair, and are left out."""
    size = 1
    for word in range(offsets.size - 1):
        length = offsets[word + 1] - offsets[word]
        if length > 1:
            size += length + 1
    return size


@kernel
def fill_slots(data, offsets, counts, byte_ids, slots):
    """Writes the words as tokens of single bytes; returns the `large` counts."""
    large = np.empty((counts >= LARGE).sum(), np.int64)
    slots[0, 0] = END
    at, known = 1, 0
    for word in range(offsets.size - 1):
        start, end = offsets[word], offsets[word + 1]
        if end - start < 2:
            continue
        weight = counts[word]
        if weight >= LARGE:
            large[known] = weight
            known += 1
            weight = -known
        for place in range(start, end):
            slots[at, 0], slots[at, 1] = byte_ids[data[place]], weight
            at += 1
        slots[at, 0] = END
        at += 1
    return large


@kernel
def compact(slots, large, used, widths, sums):
    """Gives each token one slot again, and drops words of a single token; adds the count of each pair to one of the `sums`.

    Returns how many slots are used. `sums` is int64, its size a power of two. A sum is at least the count of each
    pair that falls on it, so it says which pairs are rare.
    """
    mask = np.uint64(sums.size - 1)
    at = out = 1
    while at < used:
        left = slots[at, 0]
        following = at + widths[left]
        if slots[following, 0] == END:
            at = following + 1
            continue
        count, weight = count_at(slots, large, at), slots[at, 1]
        while left != END:
            slots[out, 0], slots[out, 1] = left, weight
            out += 1
            at += widths[left]
            right = slots[at, 0]
            if right != END:
                sums[_hash(pair_key(left, right)) & mask] += count
            left = right
        slots[out, 0] = END
        at, out = at + 1, out + 1
    return out


@kernel(inline="always")
def find_pair(index, pairs, key):
    """The number of a pair in the table, or -1 - the place in `index` where it would be."""
    mask = np.uint64(index.size - 1)
    place = _hash(key) & mask
    while index[place] >= 0:
        if pairs[index[place], KEY] == key:
            return np.int64(index[place])
        place = (place + np.uint64(1)) & mask
    return -1 - np.int64(place)


@kernel
def grown(array, size):
    """A copy with room for `size` rows."""
    larger = np.empty((size, *array.shape[1:]), array.dtype)
    larger[: array.shape[0]] = array
    return larger


@kernel
def with_room(index, pairs, known):
    """The table with room for one pair more: half of the index stays empty."""
    if known == pairs.shape[0]:
        pairs = grown(pairs, 2 * known)
    if 2 * (known + 1) > index.size:
        index = np.full(2 * index.size, -1, np.int32)
        for number in range(known):
            index[-1 - find_pair(index, pairs, pairs[number, KEY])] = number
    return index, pairs


@kernel
def tabulate(slots, large, used, sums, least, index, pairs):
    """The pairs that occur at least `least` times, with their counts and where they occur, after `compact`.

    Returns `(index, pairs, known, positions)`: `pairs` int64 [.., FIELDS] of which `known` are used, `index` the hash table over them, and
    `positions` (uint32) the slots where each pair begins, in order: LENGTH of them from START on. A pair that shares its sum
    with others may be rarer than `least`; it has no positions.
    """
    mask = np.uint64(sums.size - 1)
    known = 0
    for at in range(1, used - 1):
        left, right = slots[at, 0], slots[at + 1, 0]
        if left == END or right == END:
            continue
        key = pair_key(left, right)
        if sums[_hash(key) & mask] < least:
            continue
        number = find_pair(index, pairs, key)
        if number < 0:
            index, pairs = with_room(index, pairs, known)
            number = known
            index[-1 - find_pair(index, pairs, key)] = number
            pairs[number, KEY], pairs[number, COUNT], pairs[number, LENGTH] = key, 0, 0
            known += 1
        pairs[number, COUNT] += count_at(slots, large, at)
        pairs[number, LENGTH] += 1
    total = 0
    for number in range(known):
        pairs[number, START] = total
        if pairs[number, COUNT] >= least:
            total += pairs[number, LENGTH]
        pairs[number, LENGTH] = 0
    positions = np.empty(total, np.uint32)
    for at in range(1, used - 1):
        left, right = slots[at, 0], slots[at + 1, 0]
        if left == END or right == END:
            continue
        key = pair_key(left, right)
        if sums[_hash(key) & mask] < least:
            continue
        number = find_pair(index, pairs, key)
        if pairs[number, COUNT] >= least:
            positions[pairs[number, START] + pairs[number, LENGTH]] = at
            pairs[number, LENGTH] += 1
    return index, pairs, known, positions
