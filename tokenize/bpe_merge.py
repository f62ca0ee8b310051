# mypy: disallow-untyped-defs=False
"""The loop of BPE training: merge the most frequent pair, count what that changes, and again.

As `BpeTrainer::do_train` of `tokenizers`: a heap whose counts may be out of date, which is seen when a pair comes to its top. Counts are
int64 here and int32 there. Two things are not needed here: the string of a merge was never merged before from another pair (while both its ends are
ends of tokens, what lies between is merged in the same way everywhere), so each merge is a new token, and a pair's count never grows
after the merge that made it.
"""

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from corpusmill.tokenize.bpe_records import COUNT, END, HEADER, KEY, LENGTH, START, count_of, find_pair, grown, pair_key, with_room

#: Columns of `changes`, int64 [ids, 6]: what a merge takes from the pair (id, left) and from (right, id); what it gives to (id, new) and to
#: (new, id), and in how many places.
LOST_BEFORE, LOST_AFTER, NEW_BEFORE, NEW_AFTER, PLACES_BEFORE, PLACES_AFTER = range(6)


@numba.njit(cache=True, nogil=True)
def _greater_bytes(one, other, starts, letters):
    """-1, 0 or 1: how the bytes of two tokens compare."""
    first, second = starts[one], starts[other]
    while first < starts[one + 1] and second < starts[other + 1]:
        if letters[first] != letters[second]:
            return 1 if letters[first] > letters[second] else -1
        first, second = first + 1, second + 1
    return np.int64(first < starts[one + 1]) - np.int64(second < starts[other + 1])


@numba.njit(cache=True, nogil=True)
def _before(one_count, one, other_count, other, pairs, by_bytes, starts, letters):
    """Whether pair `one` is to be merged before `other`: the more frequent, then the smaller ids or the greater bytes."""
    if one_count != other_count:
        return one_count > other_count
    first, second = pairs[one, KEY], pairs[other, KEY]
    if not by_bytes:
        return first < second
    order = _greater_bytes(first >> 32, second >> 32, starts, letters)
    if order == 0:
        order = _greater_bytes(first & 0xFFFFFFFF, second & 0xFFFFFFFF, starts, letters)
    return order > 0


@numba.njit(cache=True, nogil=True)
def sink(heap, size, at, pairs, by_bytes, starts, letters):
    """Moves the entry at `at` down to its place. `heap` is int64 [.., 2]: a count, perhaps out of date, and the number of a pair."""
    count, number = heap[at, 0], heap[at, 1]
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        other = child + 1
        if other < size and _before(heap[other, 0], heap[other, 1], heap[child, 0], heap[child, 1], pairs, by_bytes, starts, letters):
            child = other
        if not _before(heap[child, 0], heap[child, 1], count, number, pairs, by_bytes, starts, letters):
            break
        heap[at, 0], heap[at, 1] = heap[child, 0], heap[child, 1]
        at = child
    heap[at, 0], heap[at, 1] = count, number


@numba.njit(cache=True, nogil=True)
def _rise(heap, at, pairs, by_bytes, starts, letters):
    """Moves the entry at `at` up to its place."""
    count, number = heap[at, 0], heap[at, 1]
    while at > 0:
        parent = (at - 1) >> 1
        if not _before(count, number, heap[parent, 0], heap[parent, 1], pairs, by_bytes, starts, letters):
            break
        heap[at, 0], heap[at, 1] = heap[parent, 0], heap[parent, 1]
        at = parent
    heap[at, 0], heap[at, 1] = count, number


@numba.njit(cache=True, nogil=True)
def make_heap(pairs, known, least, by_bytes, starts, letters):
    """`(heap, size)` of all pairs that occur at least `least` times."""
    heap = np.empty((known + 16, 2), np.int64)
    size = 0
    for number in range(known):
        if pairs[number, COUNT] >= least:
            heap[size, 0], heap[size, 1] = pairs[number, COUNT], number
            size += 1
    for at in range(size // 2 - 1, -1, -1):
        sink(heap, size, at, pairs, by_bytes, starts, letters)
    return heap, size


@numba.njit(cache=True, nogil=True)
def _change(changes, touched, many, token, column, count):
    """Adds to what a merge changes; returns how many tokens are touched. A touched token may be listed more than once."""
    if changes[token, column] == 0:
        touched[many] = token
        many += 1
    changes[token, column] += count
    return many


@numba.njit(cache=True, nogil=True)
def _merge_record(records, at, left, right, new, changes, touched, many, events, seen):
    """Merges a pair in one record. Returns `(many, events, seen)`.

    An event (int64 [.., 2]: `2 * token + after`, record) says that the record now has a new pair with that token.
    """
    record, count = at, count_of(records, at)
    at += HEADER
    first, out, before = at, at, END
    while records[at] != END:
        token = records[at]
        if token != left or records[at + 1] != right:
            records[out] = token
            at, out, before = at + 1, out + 1, token
            continue
        if seen + 2 > events.shape[0]:
            events = grown(events, 2 * events.shape[0])
        if out > first:
            many = _change(changes, touched, many, before, LOST_BEFORE, count)
            many = _change(changes, touched, many, records[out - 1], NEW_BEFORE, count)
            changes[records[out - 1], PLACES_BEFORE] += 1
            events[seen, 0], events[seen, 1] = 2 * records[out - 1], record
            seen += 1
        after = records[at + 2]
        if after != END and (after != left or records[at + 3] != right):  # else the next merge sees to what is between
            many = _change(changes, touched, many, after, LOST_AFTER, count)
            many = _change(changes, touched, many, after, NEW_AFTER, count)
            changes[after, PLACES_AFTER] += 1
            events[seen, 0], events[seen, 1] = 2 * after + 1, record
            seen += 1
        records[out] = new
        at, out, before = at + 2, out + 1, right
    records[out:at] = END
    return many, events, seen


class Fixed(NamedTuple):
    """Arrays that stay where they are.

    `records` int32; `merges` int64 [ids, 3]: left id, right id and count of the merge that made each id; `starts` int64 [ids + 1]: where the bytes of
    each id begin among the `letters`; `changes` int64 [ids, 6], all zero between merges; `touched` int64 [4 * ids]: scratch.
    """

    records: npt.NDArray[np.int32]
    merges: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    changes: npt.NDArray[np.int64]
    touched: npt.NDArray[np.int64]


class Growing(NamedTuple):
    """Arrays that are replaced by larger ones: the table of pairs (`bpe_records.tabulate`), the heap, and what is noted in a merge."""

    slots: npt.NDArray[np.int32]
    pairs: npt.NDArray[np.int64]
    positions: npt.NDArray[np.uint32]
    heap: npt.NDArray[np.int64]
    letters: npt.NDArray[np.uint8]
    events: npt.NDArray[np.int64]


#: Places in `state`, int64: pairs in the table, positions given out, entries in the heap, the next new id.
KNOWN, WRITTEN, SIZE, TOKEN = range(4)


@numba.njit(cache=True, nogil=True)
def merge_pairs(fixed, growing, state, least, last, by_bytes):
    """Merges pairs that occur at least `least` times until there are `last` ids, or no such pair.

    Moves `state` on and returns the arrays that may have been replaced.
    """
    slots, pairs, positions, heap, letters, events = growing
    while state[SIZE] and state[TOKEN] < last:
        number = _top(heap, state, pairs, least, by_bytes, fixed.starts, letters)
        if number < 0:
            continue
        new, left, right = state[TOKEN], pairs[number, KEY] >> 32, pairs[number, KEY] & 0xFFFFFFFF
        fixed.merges[new, 0], fixed.merges[new, 1], fixed.merges[new, 2] = left, right, pairs[number, COUNT]
        letters = _append_letters(fixed.starts, letters, new, left, right)
        many = seen = 0
        first = pairs[number, START]
        for place in range(first, first + pairs[number, LENGTH]):
            many, events, seen = _merge_record(
                fixed.records, np.int64(positions[place]), left, right, new, fixed.changes, fixed.touched, many, events, seen
            )
        pairs[number, COUNT] = 0
        touched = fixed.touched[:many]
        _take(slots, pairs, left, right, touched, fixed.changes)
        if state[SIZE] + 2 * many > heap.shape[0]:
            heap = grown(heap, 2 * (state[SIZE] + 2 * many))
        slots, pairs = _give(slots, pairs, heap, state, new, touched, fixed.changes, least, by_bytes, fixed.starts, letters)
        if state[WRITTEN] > positions.size:
            positions = grown(positions, state[WRITTEN] + positions.size // 2)
        _note_positions(pairs, positions, events[:seen], touched, fixed.changes)
        state[TOKEN] += 1
    return Growing(slots, pairs, positions, heap, letters, events)


@numba.njit(cache=True, nogil=True)
def _top(heap, state, pairs, least, by_bytes, starts, letters):
    """Takes the pair at the top of the heap; -1 where its count was out of date, which is put right."""
    number = heap[0, 1]
    current = heap[0, 0] == pairs[number, COUNT]
    heap[0, 0] = pairs[number, COUNT]
    if current or heap[0, 0] < least:
        state[SIZE] -= 1
        heap[0, 0], heap[0, 1] = heap[state[SIZE], 0], heap[state[SIZE], 1]
    if state[SIZE]:
        sink(heap, state[SIZE], 0, pairs, by_bytes, starts, letters)
    return number if current else -1


@numba.njit(cache=True, nogil=True)
def _take(slots, pairs, left, right, touched, changes):
    """Takes from the counts of pairs what a merge has undone."""
    for other in touched:
        for column, key in ((LOST_BEFORE, pair_key(other, left)), (LOST_AFTER, pair_key(right, other))):
            if changes[other, column]:
                number = find_pair(slots, pairs, key)
                if number >= 0:
                    pairs[number, COUNT] -= changes[other, column]
                changes[other, column] = 0


@numba.njit(cache=True, nogil=True)
def _give(slots, pairs, heap, state, new, touched, changes, least, by_bytes, starts, letters):
    """Enters the new pairs that are frequent enough; PLACES of `changes` become their numbers, or -1."""
    for other in touched:
        for after in range(2):
            count, places = changes[other, NEW_BEFORE + after], changes[other, PLACES_BEFORE + after]
            if count == 0:
                continue
            changes[other, NEW_BEFORE + after], changes[other, PLACES_BEFORE + after] = 0, -1
            if count < least:
                continue
            number = state[KNOWN]
            slots, pairs = with_room(slots, pairs, number)
            key = pair_key(new, other) if after else pair_key(other, new)
            slots[-1 - find_pair(slots, pairs, key)] = number
            pairs[number, KEY], pairs[number, COUNT], pairs[number, START], pairs[number, LENGTH] = key, count, state[WRITTEN], 0
            changes[other, PLACES_BEFORE + after] = number
            heap[state[SIZE], 0], heap[state[SIZE], 1] = count, number
            _rise(heap, state[SIZE], pairs, by_bytes, starts, letters)
            state[KNOWN] += 1
            state[WRITTEN] += places
            state[SIZE] += 1
    return slots, pairs


@numba.njit(cache=True, nogil=True)
def _note_positions(pairs, positions, events, touched, changes):
    """Writes where the new pairs are, and leaves `changes` zero."""
    for event in range(events.shape[0]):
        number = changes[events[event, 0] >> 1, PLACES_BEFORE + (events[event, 0] & 1)]
        if number >= 0:
            positions[pairs[number, START] + pairs[number, LENGTH]] = events[event, 1]
            pairs[number, LENGTH] += 1
    for other in touched:
        changes[other, PLACES_BEFORE] = changes[other, PLACES_AFTER] = 0


@numba.njit(cache=True, nogil=True)
def _append_letters(starts, letters, token, left, right):
    """Writes the bytes of a new token; returns them all."""
    at = starts[token]
    length = starts[left + 1] - starts[left] + starts[right + 1] - starts[right]
    if at + length > letters.size:
        letters = grown(letters, 2 * letters.size + length)
    for part in (left, right):
        for place in range(starts[part], starts[part + 1]):
            letters[at] = letters[place]
            at += 1
    starts[token + 1] = at
    return letters
