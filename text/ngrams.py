# mypy: disallow-untyped-defs=False
"""Counts repeated word n-grams inside kernels: as datatrove's Gopher filter defines them, and exactly for other tools."""

from collections import namedtuple

import numpy as np

from corpusmill.pipeline.kernel import kernel
from corpusmill.text.hashing import BASE, ONE, cleared, cleared_copies, mix64, table_size
from corpusmill.text.words import base_power, hash_characters

_COUNT = np.uint64(32)  # the second item of a slot: its upper bits count occurrences, its lower bits hold the first place
_PLACE = np.uint64(0xFFFFFFFF)
_EMPTY = np.uint64(0)
#: Characters of the prefixes that are compared before whole n-grams are.
PREFIX = 16


@kernel(inline="always")
def ngram_key(hashes, at, n):
    """Returns a 64-bit hash of the sequence of words `at` to `at + n - 1`."""
    key = hashes[at]
    for place in range(at + 1, at + n):
        key = mix64(key) * BASE + hashes[place]
    return mix64(key)


@kernel
def top_ngram_characters(words, count, n, places, repeating, slots, table):
    """Returns `(characters, repeating)`. `characters` is `len(" ".join(g)) * times` for the most frequent n-gram g of the first
    `count` words (0 where there is none); `repeating` is the number of places at which a repeated n-gram begins.

    If several n-grams are equally frequent, the earliest is taken, also where all occur once. An n-gram can repeat only where both of its
    (n-1)-grams do, so call this with n = 2, 3, ...: `places[:repeating]` are the places of the repeated (n-1)-grams, rising, and are
    replaced by those of the n-grams. For n = 2 all words are candidates, so `places` is not read. `slots` and `table` (two items a slot)
    are scratch.
    """
    if count < n:
        return 0, 0
    candidates = count - 1 if n == 2 else _both_repeat(places, repeating)
    mask = cleared(table, 2 * candidates) // 2
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
    """Keeps those `places` whose next word is one of them, too. Returns how many."""
    found = 0
    for candidate in range(repeating - 1):
        place = places[candidate]
        places[found] = place
        found += places[candidate + 1] == place + 1
    return found


@kernel
def _twice(places, candidates, everywhere, slots, table):
    """Keeps those `places` whose n-gram occurs at least twice. Returns how many. `everywhere`: each word was a candidate."""
    found = 0
    for candidate in range(candidates):
        places[found] = candidate if everywhere else places[candidate]
        found += table[slots[candidate] + 1] >> _COUNT > ONE
    return found


@kernel(inline="always")
def _slot(table, mask, key):
    """Returns the index of a key in a table of two items a slot; adds the key where it is missing."""
    key |= ONE  # never _EMPTY
    slot = np.int64(key >> ONE) & mask
    while not ((table[2 * slot] == key) | (table[2 * slot] == _EMPTY)):
        slot = (slot + 1) & mask
    table[2 * slot] = key
    return 2 * slot


@kernel
def duplicate_candidates(words, count, shortest, powers, repeats, places, table):
    """Writes to `places` the words at which a repeated n-gram with n >= `shortest` can begin. Returns how many there are.

    Equal n-grams have the same number of characters. Where that is at least PREFIX, their first PREFIX characters (without
    spaces) are equal, too. So a place whose PREFIX characters occur once is no candidate; one with a shorter n-gram always is.
    `repeats` (uint8) and `table` are scratch.
    """
    starts = count - shortest + 1
    mask = cleared(table, max(starts, 0))
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
    """Returns the first place that came with this key. Compares only half of the key: different keys may count as equal."""
    slot = np.int64(key) & mask
    tag = key & ~_PLACE
    while not ((table[slot] == _EMPTY) | (table[slot] & ~_PLACE == tag)):
        slot = (slot + 1) & mask
    first = place + 1 if table[slot] == _EMPTY else np.int64(table[slot] & _PLACE)
    table[slot] = tag | np.uint64(first)
    return first - 1


@kernel
def duplicated_ngram_characters(words, count, n, powers, places, candidates, table):
    """Returns the characters in n-grams that occurred before, counted greedily from left to right: after a repeated n-gram the
    count goes on at its end, else at the next word.

    N-grams are compared as their words joined without spaces ("a bc" equals "ab c"), and the first copy never counts.
    `places[:candidates]` are those of `duplicate_candidates`; `table` is scratch.
    """
    mask = cleared(table, 2 * candidates)
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


# ----------------------------------------------------------------------------------------------------
# Exact counts of each word n-gram, from which the repetition values of other tools are computed.
#
# An n-gram is identified by the first place at which it occurs. The key of an n-gram is the first place of its first n-1
# words and the first place of its last word. So different n-grams never share a key; only single words with equal 64-bit
# hashes could be confused. For each n only places are counted at which both (n-1)-grams repeat.

#: Scratch for one document. `words` int32: the first place of each word. `first` int32: the first place of the n-gram that
#: begins at each word, -1 where it occurs once. `times` int32: at first places, the number of occurrences. `table` uint64.
NgramCounts = namedtuple("NgramCounts", "words first times table")


@kernel
def new_ngram_counts(limit):
    """Returns scratch for documents of up to `limit` words."""
    return NgramCounts(
        np.empty(limit + 1, np.int32),
        np.empty(limit + 1, np.int32),
        np.empty(limit + 1, np.int32),
        np.empty(2 * table_size(limit + 1), np.uint64),
    )


@kernel
def count_words(hashes, count, counts):
    """Counts single words: call before `count_ngrams` with n = 2. Returns the number of distinct words."""
    mask = cleared_copies(counts.table, count)
    different = 0
    for at in range(count):
        first = _first_place_of(counts.table, mask, hashes[at], at)
        counts.words[at] = first
        counts.first[at] = first
        if first == at:
            different += 1
            counts.times[at] = 1
        else:
            counts.times[first] += 1
    _forget_single(counts.first, counts.times, count)
    return different


@kernel
def count_ngrams(count, n, counts):
    """Replaces the counts of (n-1)-grams of a text of `count` words by those of n-grams. Returns how many places have a
    repeated one."""
    places = max(count - n + 1, 0)
    words, first, times = counts.words, counts.first, counts.times
    candidates = 0
    for at in range(places):
        candidates += (first[at] >= 0) & (first[at + 1] >= 0)
    if candidates == 0:
        first[:places] = -1
        return 0
    mask = cleared_copies(counts.table, candidates)
    for at in range(places):
        if first[at] < 0 or first[at + 1] < 0:
            first[at] = -1
            continue
        key = mix64(np.uint64(first[at] + 1) << np.uint64(32) | np.uint64(words[at + n - 1]))
        place = _first_place_of(counts.table, mask, key, at)
        first[at] = place
        if place == at:
            times[at] = 1
        else:
            times[place] += 1
    return _forget_single(first, times, places)


@kernel
def most_frequent(count, n, ends, counts):
    """Returns `(first place, times, characters)` of the most frequent n-gram; of equally frequent ones, of the earliest.

    `(0, 1, ...)` where all occur once, `(-1, 0, 0)` where there are none. Characters do not include spaces.
    """
    if count < n:
        return -1, 0, 0
    place, times = 0, 1
    for at in range(count - n + 1):
        if counts.first[at] == at and counts.times[at] > times:
            place, times = at, counts.times[at]
    return place, np.int64(times), ends[place + n] - ends[place]


@kernel
def covered_characters(count, n, ends, counts):
    """Returns the characters of all words in repeated n-grams, first copies included. Each word counts once."""
    total, free = np.int64(0), 0
    for at in range(count - n + 1):
        if counts.first[at] >= 0:
            total += ends[at + n] - ends[max(at, free)]
            free = at + n
    return total


@kernel
def _forget_single(first, times, places):
    """Sets `first` to -1 where an n-gram occurs once. Returns the number of other places."""
    repeated = 0
    for at in range(places):
        if first[at] >= 0:
            if times[first[at]] == 1:
                first[at] = -1
            else:
                repeated += 1
    return repeated


@kernel
def _first_place_of(table, mask, key, place):
    """Returns the place that first came with this key; for a new key that is `place`. Two items a slot: key, place + 1."""
    slot = np.int64(key) & mask
    while table[2 * slot + 1] != 0:
        if table[2 * slot] == key:
            return np.int64(table[2 * slot + 1]) - 1
        slot = (slot + 1) & mask
    table[2 * slot] = key
    table[2 * slot + 1] = np.uint64(place + 1)
    return place
