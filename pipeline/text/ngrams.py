# mypy: disallow-untyped-defs=False
"""Repetition of word n-grams inside kernels, as datatrove's Gopher filter defines it (MassiveText, arXiv 2112.11446, A1.1)."""

import numba
import numpy as np

from corpusmill.pipeline.text.hashing import BASE, mix64
from corpusmill.pipeline.text.table import insert, table_size
from corpusmill.pipeline.text.utf8 import eight_bytes
from corpusmill.pipeline.text.words import PADDING, base_power

_COUNT = np.uint64(32)  # a slot's second half: times seen above, the first place below
_PLACE = np.uint64(0xFFFFFFFF)
#: Bytes by which places are compared before whole n-grams are.
PREFIX = PADDING


@numba.njit(cache=True, nogil=True)
def ngram_key(hashes, at, n):
    """A 64-bit hash of the words `at` to `at + n - 1` as a sequence."""
    key = hashes[at]
    for place in range(at + 1, at + n):
        key = mix64(key) * BASE + hashes[place]
    return mix64(key)


@numba.njit(cache=True, nogil=True)
def top_ngram_characters(words, count, n, repeats, slots, table):
    """`len(" ".join(g)) * times` for the most frequent n-gram g of the first `count` words; 0 where there is none.

    Of equally frequent ones the earliest counts, also where all occur once. An n-gram can only repeat where both
    (n-1)-grams in it do: `repeats[w]` says so for the (n-1)-gram at w and is replaced by the same for n (call with n
    rising by one, at first with ones). `slots` int64 and `table` (two items a slot) are scratch.
    """
    places = count - n + 1
    if places <= 0:
        return 0
    mask = _cleared(table, _candidates(repeats, places))
    best, first = np.int64(1), np.int64(0)
    for at in range(places):
        slots[at] = -1
        if repeats[at] & repeats[at + 1]:
            slot = _count(table, mask, ngram_key(words.hashes, at, n), at)
            times = np.int64(table[slot + 1] >> _COUNT)
            place = np.int64(table[slot + 1] & _PLACE)
            if times > best or (times == best and times > 1 and place < first):
                best, first = times, place
            slots[at] = slot
    for at in range(places):
        repeats[at] = slots[at] >= 0 and table[slots[at] + 1] >> _COUNT > 1
    return best * (words.ends[first + n] - words.ends[first] + n - 1)


@numba.njit(cache=True, nogil=True)
def _candidates(repeats, places):
    total = 0
    for at in range(places):
        total += repeats[at] & repeats[at + 1]
    return total


@numba.njit(cache=True, nogil=True)
def _cleared(table, entries):
    size = table_size(entries)
    table[: 2 * size] = np.uint64(0)
    return size - 1


@numba.njit(cache=True, nogil=True)
def _count(table, mask, key, place):
    """Counts a key once more, remembers its first place, and returns where it stands in the table."""
    if key == 0:
        key = np.uint64(1)
    slot = np.int64(key) & mask
    while True:
        known = table[2 * slot]
        if known == key:
            table[2 * slot + 1] += np.uint64(1) << _COUNT
            return 2 * slot
        if known == 0:
            table[2 * slot] = key
            table[2 * slot + 1] = np.uint64(1) << _COUNT | np.uint64(place)
            return 2 * slot
        slot = (slot + 1) & mask


@numba.njit(cache=True, nogil=True)
def duplicate_candidates(words, count, shortest, repeats, places, table):
    """Writes to `places` the words at which an n-gram with n >= `shortest` can begin that occurs twice; returns how many.

    Equal n-grams have equally many characters. Where that is at least PREFIX, their first PREFIX bytes (spaces left
    out) are equal too, so a place whose PREFIX bytes occur once is no candidate; one whose n-gram is shorter always is.
    `repeats` uint8 and `table` are scratch.
    """
    size = table_size(count)
    table[:size] = np.uint64(0)
    for at in range(count):
        key = mix64(mix64(eight_bytes(words.bytes, words.places[at])) * BASE + eight_bytes(words.bytes, words.places[at] + 8))
        first = _first_place(table, size - 1, key, at)
        repeats[at] = first != at
        repeats[first] |= first != at
    found = 0
    for at in range(count - shortest + 1):
        if repeats[at] or words.ends[at + shortest] - words.ends[at] < PREFIX:
            places[found] = at
            found += 1
    return found


@numba.njit(cache=True, nogil=True)
def _first_place(table, mask, key, place):
    """The first place that came with this key. Half of the key is compared: two keys may be taken for one, never one for two."""
    slot = np.int64(key) & mask
    tag = key & ~_PLACE
    while table[slot] != 0:
        if table[slot] & ~_PLACE == tag:
            return np.int64(table[slot] & _PLACE) - 1
        slot = (slot + 1) & mask
    table[slot] = tag | np.uint64(place + 1)
    return place


@numba.njit(cache=True, nogil=True)
def duplicated_ngram_characters(words, count, n, powers, places, candidates, table):
    """Characters in n-grams that occurred before, counted greedily from the left: on a repeat jump over it, else go on a word.

    N-grams are compared as their words joined without spaces ("a bc" equals "ab c"), and the first copy never counts.
    `places[:candidates]` are those of `duplicate_candidates`; `table` is scratch.
    """
    size = table_size(candidates)
    table[:size] = np.uint64(0)
    total, free = 0, 0
    for at in places[:candidates]:
        if at < free:
            continue
        if at + n > count:
            break
        length = words.ends[at + n] - words.ends[at]
        key = mix64(words.joined[at + n] - words.joined[at] * base_power(powers, length))
        if insert(table, size - 1, key):
            total += length
            free = at + n
    return total
