# mypy: disallow-untyped-defs=False
"""Texts to ids over Arrow buffers: cut into pieces, look each up, and encode those that are not known."""

import numba
import numpy as np

from corpusmill.tokenize.ascii_words import ascii_word
from corpusmill.tokenize.known_pieces import (
    LONG_BYTES,
    SHORT_BYTES,
    find_long,
    find_short,
    keep_long,
    keep_short,
    long_row,
    pack_ids,
    short_row,
    short_words,
    write_ids,
)  # fmt: skip
from corpusmill.tokenize.merges import SHORT, encode_long, encode_short
from corpusmill.tokenize.pieces import next_piece
from corpusmill.tokenize.whole_tokens import whole_token


@numba.njit(cache=True, nogil=True)
def encode_texts(rule, digits, classes, vocabulary, known, data, offsets, after, out, counts):
    """Writes the ids of every text to `out`, one text after the other, and how many each has to `counts`; returns how many in all.

    `vocabulary` is `(Merges, WholeTokens)`; `after` is put after each text that is not empty (-1: nothing). `out` has room for
    an id a byte, one more a text, and SPARE at the end.
    """
    short, others = known.short, known.others  # taken out here: counting references to an array costs more than looking a piece up
    bytes_ = vocabulary[0].bytes_
    scratch = np.empty(SHORT, np.int64), np.empty(SHORT, np.uint64)
    total = 0
    for text in range(offsets.size - 1):
        begin = total
        at, end = offsets[text], offsets[text + 1]
        while at < end:
            length, first, second = ascii_word(rule, data, at, end)
            if length == 0:
                length = next_piece(rule, data, at, end, classes, digits) - at
                if length == 1:
                    out[total] = bytes_[data[at]]
                    total += 1
                    at += 1
                    continue
                if length <= SHORT_BYTES:
                    first, second = short_words(data, at, at + length)
            count, ids = np.uint64(0), np.uint64(0)
            if length <= SHORT_BYTES:
                count, ids = find_short(short, first, second, length, short_row(first, second, length))
            if count:
                total = write_ids(count, ids, others, out, total)
            else:
                total = _encode_unknown(vocabulary, known, scratch, data, at, at + length, out, total)
            at += length
        if after >= 0 and total > begin:
            out[total] = after
            total += 1
        counts[text] = total - begin
    return total


@numba.njit(cache=True, nogil=True)
def encode_pieces(vocabulary, known, data, offsets, out, counts):
    """As `encode_texts`, with each text as one piece."""
    short, others = known.short, known.others
    scratch = np.empty(SHORT, np.int64), np.empty(SHORT, np.uint64)
    total = 0
    for piece in range(offsets.size - 1):
        begin = total
        at, stop = offsets[piece], offsets[piece + 1]
        if at < stop:
            count, ids = _known_ids(short, data, at, stop)
            if count:
                total = write_ids(count, ids, others, out, total)
            else:
                total = _encode_unknown(vocabulary, known, scratch, data, at, stop, out, total)
        counts[piece] = total - begin
    return total


@numba.njit(cache=True, nogil=True, inline="always")
def _known_ids(short, data, start, end):
    """`(number of ids, ids)` of a piece that is in the table of short ones, else 0."""
    length = end - start
    if length > SHORT_BYTES:
        return np.uint64(0), np.uint64(0)
    first, second = short_words(data, start, end)
    return find_short(short, first, second, length, short_row(first, second, length))


@numba.njit(cache=True, nogil=True)
def _encode_unknown(vocabulary, known, scratch, data, start, end, out, at):
    """Encodes a piece that is not in the table of short ones, and remembers it."""
    length = end - start
    if SHORT_BYTES < length <= LONG_BYTES:
        row = long_row(data, start, end)
        count, ids = find_long(known.long, data, start, end, row)
        if count:
            return write_ids(count, ids, known.others, out, at)
        stop = merge_piece(vocabulary, scratch, data, start, end, out, at)
        size, ids = pack_ids(known, length, out, at, stop)
        keep_long(known.long, data, start, end, row, size, ids)
        return stop
    stop = merge_piece(vocabulary, scratch, data, start, end, out, at)
    if length <= SHORT_BYTES:
        size, ids = pack_ids(known, length, out, at, stop)
        first, second = short_words(data, start, end)
        keep_short(known.short, first, second, size, short_row(first, second, length), ids)
    return stop


@numba.njit(cache=True, nogil=True)
def merge_piece(vocabulary, scratch, data, start, end, out, at):
    """The ids of a piece that is not known: a token of its own, or what merging gives."""
    merges, whole = vocabulary
    token = whole_token(whole, data, start, end)
    if token >= 0:
        out[at] = token
        return at + 1
    if end - start > SHORT:
        return encode_long(merges, data, start, end, out, at)
    ids, values = scratch
    count = encode_short(merges, data, start, end, ids, values)
    for place in range(count):
        out[at + place] = ids[place]
    return at + count
