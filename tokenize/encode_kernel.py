# mypy: disallow-untyped-defs=False
"""Texts to ids over Arrow buffers: cut into pieces, look each up, and encode those that are not known."""

from typing import NamedTuple

import numba
import numpy as np

from corpusmill.pipeline.text.addresses import borrowed
from corpusmill.tokenize.known_pieces import (
    COUNT,
    ID,
    ID_BITS,
    LONG_BYTES,
    MOST_IDS,
    SHORT_BYTES,
    Cut,
    KnownPieces,
    find_long,
    find_short,
    is_short,
    keep_long,
    keep_short,
    long_row,
    look_ahead,
    make_cut,
    make_known_pieces,
    pack_ids,
    short_row,
    short_words,
    write_ids,
)
from corpusmill.tokenize.merges import SHORT, Merges, Room, encode_long, encode_short, make_room
from corpusmill.tokenize.piece_ends import piece_ends
from corpusmill.tokenize.whole_tokens import WholeTokens, whole_token


class Memory(NamedTuple):
    """What encoding keeps from one call to the next: pieces and their ids, and room to work in. One thread at a time may use it."""

    known: KnownPieces
    cut: Cut
    room: Room


def make_memory() -> Memory:
    return Memory(make_known_pieces(), make_cut(), make_room())


@numba.njit(cache=True, nogil=True)
def encode_texts(rule, digits, classes, vocabulary, memory, data, offsets, after, out, counts):
    """Writes the ids of every text to `out`, one text after the other, and how many each has to `counts`; returns how many in all.

    `vocabulary` is `(Merges, WholeTokens)`; `after` is put after each text that is not empty (-1: nothing). `out` has room for
    an id a byte, one more a text, and SPARE at the end.
    """
    tables, cut = _borrowed(vocabulary, memory)
    return _encode_texts(rule, digits, borrowed(classes), tables, cut, borrowed(data), offsets, after, borrowed(out), counts)


@numba.njit(cache=True, nogil=True)
def encode_pieces(vocabulary, memory, data, offsets, out, counts):
    """As `encode_texts`, with each text as one piece."""
    tables, _ = _borrowed(vocabulary, memory)
    return _encode_pieces(tables, borrowed(data), offsets, borrowed(out), counts)


@numba.njit(nogil=True)
def _borrowed(vocabulary, memory):
    """`(Merges, WholeTokens, KnownPieces, Room)` as the functions below hand them on, piece by piece, and `Cut`."""
    merges, whole = vocabulary
    known, cut, room = memory
    tables = (
        Merges(borrowed(merges.bytes_), borrowed(merges.of_bytes), borrowed(merges.table), borrowed(merges.merged)),
        WholeTokens(borrowed(whole.data), borrowed(whole.starts), borrowed(whole.lengths), borrowed(whole.ids), whole.longest),
        KnownPieces(borrowed(known.short), borrowed(known.long), borrowed(known.others), borrowed(known.used)),
        Room(borrowed(room.ids), borrowed(room.keys), borrowed(room.following), borrowed(room.before)),
    )
    return tables, Cut(borrowed(cut.ends), borrowed(cut.firsts), borrowed(cut.seconds), borrowed(cut.rows))


@numba.njit(nogil=True)
def _encode_texts(rule, digits, classes, tables, cut, data, offsets, after, out, counts):
    short, others, ends = tables[2].short, tables[2].others, cut.ends
    total = 0
    for text in range(offsets.size - 1):
        begin = total
        at, end = offsets[text], offsets[text + 1]
        while at < end:
            pieces = piece_ends(rule, digits, classes, data, at, end, ends)
            look_ahead(short, data, at, pieces, cut)
            piece = 0
            while piece < pieces:
                piece, at, total = _encode_known(short, others, cut, piece, pieces, at, out, total)
                if piece < pieces:
                    total = encode_piece(tables, data, at, ends[piece], out, total)
                    at = ends[piece]
                    piece += 1
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


@numba.njit(nogil=True)
def _encode_known(short, others, cut, piece, pieces, at, out, total):
    """Encodes up to the first piece that is not in the table of short ones: `(its number, where it begins, ids)`.

    A function of its own: calling another from this loop would cost more than all that the loop does.
    """
    ends, firsts, seconds, rows = cut
    place = np.uint64(total)
    while piece < pieces:
        number = np.uint64(piece)
        stop = ends[number]
        row = rows[number]
        if not is_short(short, firsts[number], seconds[number], stop - at, row):
            break
        count, ids = short[row, 2] >> COUNT, short[row, 3]
        if count <= MOST_IDS:  # `write_ids`, written out: as a call it would count references to its arrays
            out[place] = ids & ID
            out[place + np.uint64(1)] = (ids >> ID_BITS) & ID
            out[place + np.uint64(2)] = ids >> (ID_BITS + ID_BITS)
        else:
            for other in range(count):
                out[place + np.uint64(other)] = others[ids + np.uint64(other)]
        place += count
        at = stop
        piece += 1
    return piece, at, np.int64(place)


@numba.njit(cache=True, nogil=True)
def encode_piece(tables, data, start, end, out, at):
    """Encodes any piece, and remembers it where the tables take it."""
    known = tables[2]
    length = end - start
    if length <= SHORT_BYTES:
        first, second = short_words(data, start, length)
        row = short_row(first, second, length)
        if find_short(known.short, first, second, length, row):
            return np.int64(write_ids(known.short[row, 2] >> COUNT, known.short[row, 3], known.others, out, np.uint64(at)))
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
    merges, whole, _, room = tables
    token = whole_token(whole, data, start, end)
    if token >= 0:
        out[at] = token
        return at + 1
    if end - start > SHORT:
        return encode_long(merges, data, start, end, out, at)
    return encode_short(merges, data, start, end, room, out, at)
