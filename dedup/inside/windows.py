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
import pyarrow as pa

from corpusmill.dedup.words import read_only
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.buffers import text_array
from corpusmill.pipeline.text.hashing import BASE, find, insert, mix64, power, table_size
from corpusmill.pipeline.text.utf8 import NEWLINE, SPACE, WORD, character_classes, count_byte, decode
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


# ---- texts without repeated windows ----------------------------------------------------------------------


class WindowTable:
    """Hashes of repeated windows, and for each the row and the word where its first occurrence stays (-1: nowhere here)."""

    def __init__(self, keys: Keys, rows: npt.NDArray[np.int64], words: npt.NDArray[np.int64]):
        self.table = np.zeros(table_size(len(keys)), np.uint64)
        self.rows, self.words = np.full(len(self.table), -1), np.full(len(self.table), -1)
        _fill_windows(self.table, self.rows, self.words, keys, rows, words)


@kernel
def _fill_windows(table, rows, words, keys, key_rows, key_words):
    for k in range(len(keys)):
        insert(table, len(table) - 1, keys[k])
        slot = find(table, len(table) - 1, keys[k])
        rows[slot], words[slot] = key_rows[k], key_words[k]


@kernel(error_model="numpy")
def _mark(prefixes, count, tokens, weight, row, table, rows, words, changes):
    """Writes to `changes` (int32, count + 1) by how much the number of windows to cut that cover a word changes there; says if any does."""
    changes[: count + 1] = 0
    some = False
    for window in range(count - tokens + 1):
        slot = find(table, len(table) - 1, window_key(prefixes, window, tokens, weight))
        if slot < 0:
            continue
        first = window
        if rows[slot] == row:
            if words[slot] == window:
                continue
            if words[slot] + tokens > window:  # it overlaps its own first occurrence, which stays
                first = words[slot] + tokens
        changes[first] += 1
        changes[window + tokens] -= 1
        some = True
    return some


@kernel
def _copy(data, start, end, out, place):
    for at in range(end - start):
        out[place + at] = data[start + at]
    return place + end - start


@kernel(error_model="numpy")
def _join(data, left, cut, rest, right, out, place):
    """Between two words that meet stays what was before (`data[left:cut]`) or behind (`data[rest:right]`) what was cut: the one with more
    newlines. A space where there was nothing."""
    before, behind = count_byte(data, left, cut, NEWLINE), count_byte(data, rest, right, NEWLINE)
    if behind > before or (behind == before and left == cut):
        left, cut = rest, right
    if left == cut:
        out[place] = 32
        return place + 1
    return _copy(data, left, cut, out, place)


@kernel(error_model="numpy")
def _write(data, start, end, count, begins, ends, changes, out, place):
    """Writes the text without the words that `changes` cover; returns the place behind it and the number of passages cut."""
    depth, spans, word = 0, 0, 0
    kept = start  # from where on the text is still to be copied
    some = False  # whether a word was kept
    while word < count:
        depth += changes[word]
        if depth == 0:
            some = True
            word += 1
            continue
        first = word
        while word < count and depth > 0:
            word += 1
            depth += changes[word]
        depth -= changes[word]  # the outer loop adds it again
        spans += 1
        left = start + np.int64(ends[first - 1]) if first else start
        if some:
            place = _copy(data, kept, left, out, place)
        kept = start + np.int64(begins[word]) if word < count else end
        if some and word < count:
            place = _join(data, left, start + np.int64(begins[first]), start + np.int64(ends[word - 1]), kept, out, place)
    return _copy(data, kept, end, out, place), spans


@kernel(error_model="numpy")
def _cut(data, offsets, row_of, kind_table, tokens, table, rows, words, prefixes, begins, ends, changes, out, places, spans):
    weight = power(tokens)
    place = 0
    for d in range(len(offsets) - 1):
        start, end = offsets[d], offsets[d + 1]
        count = walk(data, start, end, kind_table, prefixes, begins, ends)
        if count >= tokens and _mark(prefixes, count, tokens, weight, row_of[d], table, rows, words, changes):
            place, spans[d] = _write(data, start, end, count, begins, ends, changes, out, place)
        else:
            place = _copy(data, start, end, out, place)
        places[d + 1] = place


def cut_windows(
    data: Data, offsets: Offsets, rows: npt.NDArray[np.int64], tokens: int, windows: WindowTable
) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """`(texts, spans)`: n texts (Arrow) without the words of the table's windows, and how many passages each lost. `rows`: what the
    table calls a text."""
    scratch = Scratch(offsets)
    out = np.empty(int(offsets[-1] - offsets[0]), np.uint8)
    places, spans = np.zeros(len(offsets), np.int64), np.zeros(len(offsets) - 1, np.int64)
    _cut(
        read_only(data), read_only(offsets), rows, kinds(), tokens, windows.table, windows.rows, windows.words,
        scratch.prefixes, scratch.begins, scratch.ends, np.empty(len(scratch.prefixes), np.int32), out, places, spans,
    )  # fmt: skip
    return text_array(out[: places[-1]], places), spans
