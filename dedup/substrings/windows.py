# mypy: disallow-untyped-defs=False
"""Hashes of words, of the windows of words of a text, and of the anchors that stand for the windows.

Of the `tokens - anchor + 1` runs of `anchor` words that lie in a window of `tokens` words, the one with the least hash is the
window's anchor (winnowing: Schleimer, Wilkerson and Aiken, 2003). It depends on the window's words alone. So where a window occurs
twice its anchor does, too: looking only at windows whose anchor repeats loses no repeat of at least `tokens` words. Of the places
of a text about 2 in `tokens - anchor + 2` are an anchor (7.4% for 50 words).
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from corpusmill.dedup.words import read_only
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.hashing import BASE, find, insert, mix64, power, table_size
from corpusmill.pipeline.text.utf8 import SPACE, WORD, character_classes, decode
from corpusmill.pipeline.text.words import VISIBLE, word_rule_classes

#: What a character is to a word: space, part of one, one by itself, or a mark that belongs to the character before it.
BETWEEN, PART, ALONE, MARK = range(4)
#: The first code point of the first script without spaces. Before it are apostrophes and accents that such scripts only use, too.
_FIRST_UNSPACED = 0x0E00

Data = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]


@cache
def kinds() -> npt.NDArray[np.uint8]:
    """uint8 of length 0x110000: BETWEEN, PART, ALONE or MARK."""
    classes = character_classes()
    characters = word_rule_classes("characters", classes)
    table = np.full(len(classes), PART, np.uint8)
    table[(classes & WORD != 0) & (characters & WORD == 0)] = ALONE
    table[characters & VISIBLE == 0] = MARK
    table[:_FIRST_UNSPACED] = PART
    table[classes & SPACE != 0] = BETWEEN
    return table


@kernel(error_model="numpy")
def walk(data, start, end, table, prefixes, begins, ends):
    """The words of `data[start:end]`: their number, where they begin and end (uint32, counted from `start`), and `prefixes`
    (uint64, one more): `prefixes[w]` is the hash of the first w words. Each array has room for `most_words`."""
    count = 0
    value = np.uint64(0)
    state = BETWEEN  # kind of the character that the word under way began with
    prefixes[0] = 0
    i = start
    while i < end:
        point = np.int64(data[i])
        width = 1
        if point >= 0x80:
            point, width = decode(data, i)
        kind = table[point]
        if kind != state or kind == ALONE:
            if kind == MARK and state != BETWEEN:
                kind = state
            else:
                if state != BETWEEN:
                    ends[count] = i - start
                    count += 1
                    prefixes[count] = prefixes[count - 1] * BASE + mix64(value)
                if kind != BETWEEN:
                    begins[count] = i - start
                    kind = PART if kind == MARK else kind
                value = np.uint64(0)
                state = kind
        value = value * BASE + np.uint64(point + 1)
        i += width
    if state != BETWEEN:
        ends[count] = end - start
        count += 1
        prefixes[count] = prefixes[count - 1] * BASE + mix64(value)
    return count


def most_words(offsets: Offsets) -> int:
    """Room for the words of the longest text: of two that touch, one has three bytes or more."""
    return int(np.diff(offsets).max(initial=0)) // 2 + 2


@kernel(inline="always")
def window_key(prefixes, at, words, weight):
    """The hash of the `words` words from `at`; `weight` is `power(words)`."""
    return mix64(prefixes[at + words] - prefixes[at] * weight)


@kernel(error_model="numpy")
def _least(hashes, first, last):
    """Where the least of `hashes[first:last + 1]` is, the last of equal ones."""
    best = first
    for at in range(first + 1, last + 1):
        if hashes[at] <= hashes[best]:
            best = at
    return best


@kernel(error_model="numpy")
def _anchor_hashes(prefixes, count, anchor, hashes):
    weight = power(anchor)
    for at in range(count - anchor + 1):
        hashes[at] = window_key(prefixes, at, anchor, weight)


@kernel(error_model="numpy")
def _anchors(data, offsets, table, tokens, anchor, prefixes, begins, ends, hashes, keys):
    found = 0
    for d in range(len(offsets) - 1):
        count = walk(data, offsets[d], offsets[d + 1], table, prefixes, begins, ends)
        if count < tokens:
            continue
        _anchor_hashes(prefixes, count, anchor, hashes)
        best = -1
        for window in range(count - tokens + 1):
            last = window + tokens - anchor
            before = best
            if best < window:
                best = _least(hashes, window, last)
            elif hashes[last] <= hashes[best]:
                best = last
            if best != before:
                keys[found] = hashes[best]
                found += 1
    return found


@kernel
def _fill(table, keys):
    for key in keys:
        insert(table, len(table) - 1, key)


def key_set(keys: Keys) -> Keys:
    """A table for `find` of these keys."""
    table = np.zeros(2 * table_size(len(keys)), np.uint64)
    _fill(table, keys)
    return table


class Scratch:
    """Arrays for the words of the longest of some texts."""

    def __init__(self, offsets: Offsets):
        size = most_words(offsets)
        self.prefixes = np.empty(size + 1, np.uint64)
        self.begins, self.ends = np.empty(size, np.uint32), np.empty(size, np.uint32)
        self.hashes = np.empty(size, np.uint64)


def anchors(data: Data, offsets: Offsets, tokens: int, anchor: int) -> Keys:
    """The hashes of the anchors of n texts, one for each place that is an anchor of some window."""
    scratch = Scratch(offsets)
    keys = np.empty(int((np.diff(offsets) // 2 + 2).sum()), np.uint64)
    found = _anchors(
        read_only(data), read_only(offsets), kinds(), tokens, anchor,
        scratch.prefixes, scratch.begins, scratch.ends, scratch.hashes, keys,
    )  # fmt: skip
    return keys[:found].copy()


@kernel(error_model="numpy")
def _windows(data, offsets, table, tokens, anchor, repeated, prefixes, begins, ends, hashes, keys, texts, words):
    found = 0
    weight = power(tokens)
    for d in range(len(offsets) - 1):
        count = walk(data, offsets[d], offsets[d + 1], table, prefixes, begins, ends)
        if count < tokens:
            continue
        _anchor_hashes(prefixes, count, anchor, hashes)
        best, known = -1, False
        for window in range(count - tokens + 1):
            last = window + tokens - anchor
            before = best
            if best < window:
                best = _least(hashes, window, last)
            elif hashes[last] <= hashes[best]:
                best = last
            if best != before:
                known = find(repeated, len(repeated) - 1, hashes[best]) >= 0
            if known:
                keys[found] = window_key(prefixes, window, tokens, weight)
                texts[found] = d
                words[found] = window
                found += 1
    return found


def windows(
    data: Data, offsets: Offsets, tokens: int, anchor: int, repeated: Keys
) -> tuple[Keys, npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """`(keys, texts, words)` of the windows whose anchor is in the table `repeated`: their hash, their text and their first word."""
    scratch = Scratch(offsets)
    most = int((np.diff(offsets) // 2 + 2).sum())
    keys, texts, words = np.empty(most, np.uint64), np.empty(most, np.uint32), np.empty(most, np.uint32)
    found = _windows(
        read_only(data), read_only(offsets), kinds(), tokens, anchor, repeated,
        scratch.prefixes, scratch.begins, scratch.ends, scratch.hashes, keys, texts, words,
    )  # fmt: skip
    return keys[:found].copy(), texts[:found].copy(), words[:found].copy()
