# mypy: disallow-untyped-defs=False
"""Repetition of word n-grams inside kernels, as datatrove's Gopher filter defines it (MassiveText, arXiv 2112.11446, A1.1).

Whether a key is new can't be foreseen, so the loops decide it without a jump.
"""

import numpy as np

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.hashing import BASE, ONE, mix64
from corpusmill.pipeline.text.table import table_size
from corpusmill.pipeline.text.words import base_power, hash_characters

_COUNT = np.uint64(32)  # a slot's second half: times seen above, the first place below
_PLACE = np.uint64(0xFFFFFFFF)
_EMPTY = np.uint64(0)
#: Characters by which places are compared before whole n-grams are.
PREFIX = 16


@kernel(inline="always")
def ngram_key(hashes, at, n):
    """A 64-bit hash of the words `at` to `at + n - 1` as a sequence."""
    key = hashes[at]
    for place in range(at + 1, at + n):
        key = mix64(key) * BASE + hashes[place]
    return mix64(key)


@kernel
def top_ngram_characters(words, count, n, places, repeating, slots, table):
    """`(characters, repeating)`: `len(" ".join(g)) * times` for the most frequent n-gram g of the first `count` words, 0 where
    there is none; and at how many places there is an n-gram that occurs twice.

    Of equally frequent ones the earliest counts, also where all occur once. An n-gram can only repeat where both
    (n-1)-grams in it do: `places[:repeating]` are the places of the (n-1)-grams that repeat, rising, and are replaced by
    those for n (call with n rising by one from 2; words by themselves are taken to repeat, so 2 needs no places). `slots`
    and `table` (two items a slot) are scratch.
    """
    if count < n:
        return 0, 0
    candidates = count - 1 if n == 2 else _both_repeat(places, repeating)
    mask = _cleared(table, 2 * candidates) // 2
    best, first = np.int64(1), np.int64(0)
    for candidate in range(candidates):
        at = candidate if n == 2 else np.int64(places[candidate])
        slot = _slot(table, mask, ngram_key(words.hashes, at, n))
        seen = table[slot + 1] + (ONE << _COUNT | (np.uint64(at) if table[slot + 1] == _EMPTY else _EMPTY))
        table[slot + 1] = seen
        slots[candidate] = slot
        times = np.int64(seen >> _COUNT)
        if times >= best and times > 1:
            place = np.int64(seen & _PLACE)
            if times > best or place < first:
                best, first = times, place
    return best * (words.ends[first + n] - words.ends[first] + n - 1), _twice(places, candidates, n == 2, slots, table)


@kernel
def _both_repeat(places, repeating):
    """Leaves the places whose next word is one of the places too; returns how many."""
    found = 0
    for candidate in range(repeating - 1):
        place = places[candidate]
        places[found] = place
        found += places[candidate + 1] == place + 1
    return found


@kernel
def _twice(places, candidates, everywhere, slots, table):
    """Leaves the places whose slot was counted twice; returns how many. Where `everywhere`, each word was a candidate."""
    found = 0
    for candidate in range(candidates):
        places[found] = candidate if everywhere else places[candidate]
        found += table[slots[candidate] + 1] >> _COUNT > ONE
    return found


@kernel
def _cleared(table, entries):
    size = table_size(entries)
    table[:size] = _EMPTY
    return size - 1


@kernel(inline="always")
def _slot(table, mask, key):
    """Where a key stands in a table of two items a slot, after it was put there if need be."""
    key |= ONE  # never the empty one
    slot = np.int64(key >> ONE) & mask
    while not ((table[2 * slot] == key) | (table[2 * slot] == _EMPTY)):
        slot = (slot + 1) & mask
    table[2 * slot] = key
    return 2 * slot


@kernel
def duplicate_candidates(words, count, shortest, powers, repeats, places, table):
    """Writes to `places` the words at which an n-gram with n >= `shortest` can begin that occurs twice; returns how many.

    Equal n-grams have equally many characters. Where that is at least PREFIX, their first PREFIX characters (spaces left
    out) are equal too, so a place whose PREFIX characters occur once is no candidate; one whose n-gram is shorter always is.
    `repeats` uint8 and `table` are scratch.
    """
    starts = count - shortest + 1
    mask = _cleared(table, max(starts, 0))
    characters = words.ends[count]
    for at in range(starts):
        begin = words.ends[at]
        key = mix64(hash_characters(words.prefixes, powers, begin, min(begin + PREFIX, characters)))
        first = _first_place(table, mask, key, at)
        repeats[at] = (first != at) | (words.ends[at + shortest] - begin < PREFIX)
        repeats[first] |= first != at
    found = 0
    for at in range(starts):
        places[found] = at
        found += repeats[at]
    return found


@kernel(inline="always")
def _first_place(table, mask, key, place):
    """The first place that came with this key. Half of the key is compared: two keys may be taken for one, never one for two."""
    slot = np.int64(key) & mask
    tag = key & ~_PLACE
    while not ((table[slot] == _EMPTY) | (table[slot] & ~_PLACE == tag)):
        slot = (slot + 1) & mask
    first = place + 1 if table[slot] == _EMPTY else np.int64(table[slot] & _PLACE)
    table[slot] = tag | np.uint64(first)
    return first - 1


@kernel
def duplicated_ngram_characters(words, count, n, powers, places, candidates, table):
    """Characters in n-grams that occurred before, counted greedily from the left: on a repeat jump over it, else go on a word.

    N-grams are compared as their words joined without spaces ("a bc" equals "ab c"), and the first copy never counts.
    `places[:candidates]` are those of `duplicate_candidates`; `table` is scratch.
    """
    mask = _cleared(table, 2 * candidates)
    ends, prefixes = words.ends, words.prefixes
    total, free = 0, 0
    for candidate in range(candidates):
        at = np.int64(places[candidate])
        if at + n > count:
            break
        if at < free:
            continue
        length = ends[at + n] - ends[at]
        key = mix64(prefixes[ends[at + n]] - prefixes[ends[at]] * base_power(powers, length)) | ONE
        slot = np.int64(key >> ONE) & mask
        while not ((table[slot] == _EMPTY) | (table[slot] == key)):
            slot = (slot + 1) & mask
        known = table[slot] == key
        table[slot] = key
        total += length if known else 0
        free = at + n if known else free
    return total
