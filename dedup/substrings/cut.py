# mypy: disallow-untyped-defs=False
"""Texts without the words of repeated windows."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.dedup.substrings.windows import Data, Keys, Offsets, Scratch, kinds, walk, window_key
from corpusmill.dedup.words import read_only
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.buffers import text_array
from corpusmill.pipeline.text.hashing import find, insert, power, table_size
from corpusmill.pipeline.text.utf8 import NEWLINE, count_byte


class WindowTable:
    """Hashes of repeated windows, and for each the row and the word where its first occurrence stays (-1: nowhere here)."""

    def __init__(self, keys: Keys, rows: npt.NDArray[np.int64], words: npt.NDArray[np.int64]):
        self.table = np.zeros(table_size(len(keys)), np.uint64)
        self.rows, self.words = np.full(len(self.table), -1), np.full(len(self.table), -1)
        _fill(self.table, self.rows, self.words, keys, rows, words)


@kernel
def _fill(table, rows, words, keys, key_rows, key_words):
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
