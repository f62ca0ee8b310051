# mypy: disallow-untyped-defs=False
"""Texts to ids over Arrow buffers: cut into pieces, look each up, and encode those that are not known."""

import numba
import numpy as np

from corpusmill.pipeline.text.addresses import borrowed
from corpusmill.tokenize.ascii_words import ascii_word
from corpusmill.tokenize.known_pieces import (
    ID,
    ID_BITS,
    LONG_BYTES,
    MOST_IDS,
    SHORT_BYTES,
    KnownPieces,
    find_long,
    find_short,
    keep_long,
    keep_short,
    long_row,
    pack_ids,
    short_row,
    short_words,
    write_ids,
)
from corpusmill.tokenize.merges import SHORT, Merges, encode_long, encode_short
from corpusmill.tokenize.pieces import next_piece
from corpusmill.tokenize.whole_tokens import WholeTokens, whole_token


@numba.njit(cache=True, nogil=True)
def encode_texts(rule, digits, classes, vocabulary, known, data, offsets, after, out, counts):
    """Writes the ids of every text to `out`, one text after the other, and how many each has to `counts`; returns how many in all.

    `vocabulary` is `(Merges, WholeTokens)`; `after` is put after each text that is not empty (-1: nothing). `out` has room for
    an id a byte, one more a text, and SPARE at the end.
    """
    tables = _borrowed_tables(vocabulary, known)
    return _encode_texts(rule, digits, borrowed(classes), tables, borrowed(data), offsets, after, borrowed(out), counts)


@numba.njit(cache=True, nogil=True)
def encode_pieces(vocabulary, known, data, offsets, out, counts):
    """As `encode_texts`, with each text as one piece."""
    return _encode_pieces(_borrowed_tables(vocabulary, known), borrowed(data), offsets, borrowed(out), counts)


@numba.njit(nogil=True)
def _borrowed_tables(vocabulary, known):
    """`(Merges, WholeTokens, KnownPieces, scratch)` as the functions below hand them on, piece by piece."""
    merges, whole = vocabulary
    return (
        Merges(borrowed(merges.bytes_), borrowed(merges.of_bytes), borrowed(merges.table), borrowed(merges.merged)),
        WholeTokens(borrowed(whole.data), borrowed(whole.starts), borrowed(whole.lengths), borrowed(whole.ids), whole.longest),
        KnownPieces(borrowed(known.short), borrowed(known.long), borrowed(known.others), borrowed(known.used)),
        (np.empty(SHORT, np.int32), np.empty(SHORT, np.uint32)),
    )


@numba.njit(nogil=True)
def _encode_texts(rule, digits, classes, tables, data, offsets, after, out, counts):
    short, others, bytes_ = tables[2].short, tables[2].others, tables[0].bytes_
    total = 0
    for text in range(offsets.size - 1):
        begin = total
        at, end = offsets[text], offsets[text + 1]
        while at < end:
            at, stop, total = _encode_known(rule, digits, classes, bytes_, short, others, data, at, end, out, total)
            if stop > at:
                total = encode_piece(tables, data, at, stop, out, total)
                at = stop
        if after >= 0 and total > begin:
            out[total] = after
            total += 1
        counts[text] = total - begin
    return total


@numba.njit(nogil=True)
def _encode_pieces(tables, data, offsets, out, counts):
    total = 0
    for piece in range(offsets.size - 1):
        begin = total
        if offsets[piece] < offsets[piece + 1]:
            total = encode_piece(tables, data, offsets[piece], offsets[piece + 1], out, total)
        counts[piece] = total - begin
    return total


@numba.njit(cache=True, nogil=True)
def _encode_known(rule, digits, classes, bytes_, short, others, data, at, end, out, total):
    """Encodes up to the first piece that is not in the table of short ones: `(where it begins, where it ends, ids)`.

    A function of its own: calling another from this loop would cost more than all that the loop does.
    """
    place = np.uint64(total)
    while at < end:
        length, first, second = ascii_word(rule, data, at, end)
        if length == 0:
            length = next_piece(rule, data, at, end, classes, digits) - at
            if length == 1:
                out[place] = bytes_[data[at]]
                place += np.uint64(1)
                at += 1
                continue
            if length > SHORT_BYTES:
                return at, at + length, np.int64(place)
            first, second = short_words(data, at, at + length)
        count, ids = find_short(short, first, second, length, short_row(first, second, length))
        if count == 0:
            return at, at + length, np.int64(place)
        if count <= MOST_IDS:  # `write_ids`, written out: as a call it would count references to its arrays
            out[place] = ids & ID
            out[place + np.uint64(1)] = (ids >> ID_BITS) & ID
            out[place + np.uint64(2)] = ids >> (ID_BITS + ID_BITS)
        else:
            for number in range(count):
                out[place + np.uint64(number)] = others[ids + np.uint64(number)]
        place += count
        at += length
    return at, at, np.int64(place)


@numba.njit(cache=True, nogil=True)
def encode_piece(tables, data, start, end, out, at):
    """Encodes any piece, and remembers it where the tables take it."""
    known = tables[2]
    length = end - start
    if length <= SHORT_BYTES:
        first, second = short_words(data, start, end)
        row = short_row(first, second, length)
        count, ids = find_short(known.short, first, second, length, row)
        if count:
            return np.int64(write_ids(count, ids, known.others, out, np.uint64(at)))
        stop = merge_piece(tables, data, start, end, out, at)
        size, ids = pack_ids(known, length, out, at, stop)
        keep_short(known.short, first, second, size, row, ids)
        return stop
    if length <= LONG_BYTES:
        row = long_row(data, start, end)
        count, ids = find_long(known.long, data, start, end, row)
        if count:
            return np.int64(write_ids(count, ids, known.others, out, np.uint64(at)))
        stop = merge_piece(tables, data, start, end, out, at)
        size, ids = pack_ids(known, length, out, at, stop)
        keep_long(known.long, data, start, end, row, size, ids)
        return stop
    return merge_piece(tables, data, start, end, out, at)


@numba.njit(cache=True, nogil=True)
def merge_piece(tables, data, start, end, out, at):
    """The ids of a piece that is not known: a token of its own, or what merging gives."""
    merges, whole, _, scratch = tables
    token = whole_token(whole, data, start, end)
    if token >= 0:
        out[at] = token
        return at + 1
    if end - start > SHORT:
        return encode_long(merges, data, start, end, out, at)
    ids, ranks = scratch
    count = encode_short(merges, data, start, end, ids, ranks)
    for place in range(count):
        out[at + place] = ids[place]
    return at + count
