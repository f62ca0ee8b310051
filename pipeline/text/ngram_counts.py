# mypy: disallow-untyped-defs=False
"""How often each word n-gram occurs, as exact counts for each place: what the peers' repetition values are made of.

An n-gram is known by the first place where it stands. It is counted as the pair of its first n-1 words (known by their
first place) and its last word (likewise), so that longer n-grams can't be mistaken for each other: only the 64-bit hashes
of single words could. One n needs a look at those places alone where both (n-1)-grams repeat.
"""

from collections import namedtuple

import numpy as np

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.hashing import mix64
from corpusmill.pipeline.text.table import table_size

#: Scratch for one document. `words` int32: the first place of each word. `first` int32: the first place of the n-gram that
#: begins at each word, -1 where that occurs once. `times` int32: at first places, how often. `table` uint64.
NgramCounts = namedtuple("NgramCounts", "words first times table")


@kernel
def new_ngram_counts(limit):
    """Scratch for documents of up to `limit` words."""
    return NgramCounts(
        np.empty(limit + 1, np.int32),
        np.empty(limit + 1, np.int32),
        np.empty(limit + 1, np.int32),
        np.empty(2 * table_size(limit + 1), np.uint64),
    )


@kernel
def count_words(hashes, count, counts):
    """Counts single words: call before `count_ngrams` with n = 2. Returns the number of different words."""
    mask = _cleared(counts.table, count)
    different = 0
    for at in range(count):
        first = _first_place(counts.table, mask, hashes[at], at)
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
    """Turns the counts of (n-1)-grams of a text of `count` words into those of n-grams; returns how many places repeat."""
    places = max(count - n + 1, 0)
    words, first, times = counts.words, counts.first, counts.times
    candidates = 0
    for at in range(places):
        candidates += (first[at] >= 0) & (first[at + 1] >= 0)
    if candidates == 0:
        first[:places] = -1
        return 0
    mask = _cleared(counts.table, candidates)
    for at in range(places):
        if first[at] < 0 or first[at + 1] < 0:
            first[at] = -1
            continue
        key = mix64(np.uint64(first[at] + 1) << np.uint64(32) | np.uint64(words[at + n - 1]))
        place = _first_place(counts.table, mask, key, at)
        first[at] = place
        if place == at:
            times[at] = 1
        else:
            times[place] += 1
    return _forget_single(first, times, places)


@kernel
def most_frequent(count, n, ends, counts):
    """`(first place, times, characters)` of the most frequent n-gram, of equally frequent ones the earliest.

    `(0, 1, ...)` where all occur once, `(-1, 0, 0)` where there are none. Characters are those of its words alone.
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
    """Characters of all words that lie in some repeated n-gram, the first copies included, each word once."""
    total, free = np.int64(0), 0
    for at in range(count - n + 1):
        if counts.first[at] >= 0:
            total += ends[at + n] - ends[max(at, free)]
            free = at + n
    return total


@kernel
def _forget_single(first, times, places):
    """Marks what occurs once; returns how many places are left."""
    repeated = 0
    for at in range(places):
        if first[at] >= 0:
            if times[first[at]] == 1:
                first[at] = -1
            else:
                repeated += 1
    return repeated


@kernel
def _cleared(table, entries):
    size = table_size(entries)
    table[: 2 * size] = np.uint64(0)
    return size - 1


@kernel
def _first_place(table, mask, key, place):
    """The place that came first with this key, which is `place` where none did before. Two items a slot: key, place + 1."""
    slot = np.int64(key) & mask
    while table[2 * slot + 1] != 0:
        if table[2 * slot] == key:
            return np.int64(table[2 * slot + 1]) - 1
        slot = (slot + 1) & mask
    table[2 * slot] = key
    table[2 * slot + 1] = np.uint64(place + 1)
    return place
