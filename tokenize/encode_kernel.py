# mypy: disallow-untyped-defs=False
"""Texts to ids over Arrow buffers: cut some hundred pieces, look them all up, and merge those that are not known."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.buffers import borrowed, prefetch_byte
from corpusmill.pipeline.text.hashing import hash_span
from corpusmill.tokenize.merges import (
    LONG_BYTES,
    LONG_WAYS,
    LONG_WIDTH,
    LONG_WORDS,
    SHORT,
    SHORT_BYTES,
    SHORT_WIDTH,
    SHORT_WORDS,
    WAYS,
    KnownPieces,
    Merges,
    MergeScratch,
    encode_long,
    encode_short,
    is_long,
    is_short,
    keep_long,
    keep_short,
    long_row,
    make_known_pieces,
    make_room,
    pack_ids,
    short_row,
    short_words,
    swap_rows,
    write_ids,
)
from corpusmill.tokenize.pieces import piece_ends

#: Pieces that are cut before the first of them is looked up.
AHEAD = 512


class Cut(NamedTuple):
    """Pieces to look up: where each ends, its first 16 bytes as `short_words`, and the first row where it may be known."""

    ends: npt.NDArray[np.int64]
    firsts: npt.NDArray[np.uint64]
    seconds: npt.NDArray[np.uint64]
    rows: npt.NDArray[np.int64]


class Memory(NamedTuple):
    """What encoding keeps from one call to the next: pieces and their ids, and room to work in. One thread at a time may use it."""

    known: KnownPieces
    cut: Cut
    room: MergeScratch


def make_memory() -> Memory:
    cut = Cut(np.empty(AHEAD, np.int64), np.empty(AHEAD, np.uint64), np.empty(AHEAD, np.uint64), np.empty(AHEAD, np.int64))
    return Memory(make_known_pieces(), cut, make_room())


@kernel
def encode_texts(rule, digits, classes, vocabulary, memory, data, offsets, after, out, counts):
    """Writes the ids of every text to `out`, one text after the other, and how many each has to `counts`; returns how many in all.

    `vocabulary` is `(Merges, WholeTokens)`; `after` is put after each text that is not empty (-1: nothing). `out` has room for
    an id a byte, one more a text, and SPARE at the end.
    """
    tables, cut = _borrowed(vocabulary, memory)
    return _encode_texts(rule, digits, borrowed(classes), tables, cut, borrowed(data), offsets, after, borrowed(out), counts)


@kernel
def encode_pieces(vocabulary, memory, data, offsets, out, counts):
    """As `encode_texts`, with each text as one piece."""
    tables, _ = _borrowed(vocabulary, memory)
    return _encode_pieces(tables, borrowed(data), offsets, borrowed(out), counts)


@kernel
def _borrowed(vocabulary, memory):
    """`(Merges, WholeTokens, KnownPieces, MergeScratch)` as the functions below hand them on, piece by piece, and `Cut`."""
    merges, whole = vocabulary
    known, cut, room = memory
    tables = (
        Merges(borrowed(merges.bytes_), borrowed(merges.of_bytes), borrowed(merges.table), borrowed(merges.merged)),
        WholeTokens(borrowed(whole.data), borrowed(whole.starts), borrowed(whole.lengths), borrowed(whole.ids), whole.longest),
        KnownPieces(borrowed(known.short), borrowed(known.long), borrowed(known.others), borrowed(known.used)),
        MergeScratch(borrowed(room.ids), borrowed(room.keys), borrowed(room.following), borrowed(room.before)),
    )
    return tables, Cut(borrowed(cut.ends), borrowed(cut.firsts), borrowed(cut.seconds), borrowed(cut.rows))


@kernel
def _encode_texts(rule, digits, classes, tables, cut, data, offsets, after, out, counts):
    known, ends = tables[2], cut.ends
    total = np.int64(0)  # 0 is a type of its own, for which numba would compile all that is called below once more
    for text in range(offsets.size - 1):
        begin = total
        at, end = offsets[text], offsets[text + 1]
        while at < end:
            pieces = piece_ends(rule, digits, classes, data, at, end, ends)
            _look_ahead(known.short, known.long, data, at, pieces, cut)
            piece = np.int64(0)
            while piece < pieces:
                piece, at, total = _encode_known(known.short, known.long, known.others, data, cut, piece, pieces, at, out, total)
                if piece < pieces:
                    total = _encode_piece(tables, data, at, ends[piece], out, total)
                    at = ends[piece]
                    piece += 1
        if after >= 0 and total > begin:
            out[total] = after
            total += 1
        counts[text] = total - begin
    return total


@kernel
def _encode_pieces(tables, data, offsets, out, counts):
    total = np.int64(0)
    for piece in range(offsets.size - 1):
        begin = total
        if offsets[piece] < offsets[piece + 1]:
            total = _encode_piece(tables, data, offsets[piece], offsets[piece + 1], out, total)
        counts[piece] = total - begin
    return total


@kernel
def _look_ahead(short, long, data, at, pieces, cut):
    """Says of pieces, of which the first begins at `at`, where they may be known, and has that fetched."""
    short, long, data = borrowed(short), borrowed(long), borrowed(data)
    ends, firsts, seconds, rows = borrowed(cut.ends), borrowed(cut.firsts), borrowed(cut.seconds), borrowed(cut.rows)
    for piece in range(pieces):
        number = np.uint64(piece)
        length = ends[number] - at
        firsts[number], seconds[number] = short_words(data, at, length)
        if length <= SHORT_BYTES:
            row = short_row(firsts[number], seconds[number], length)
            prefetch_byte(short, row * (8 * SHORT_WIDTH))
        else:
            row = long_row(data, at, length) if length <= LONG_BYTES else 0
            prefetch_byte(long, row * (8 * LONG_WIDTH))
            prefetch_byte(long, row * (8 * LONG_WIDTH) + 64)
        rows[number] = row
        at = ends[number]


@kernel
def _encode_known(short, long, others, data, cut, piece, pieces, at, out, total):
    """Encodes up to the first piece that is not found at once: `(its number, where it begins, ids)`.

    A function of its own: calling another from this loop would cost more than all that the loop does. Arrays are borrowed once more,
    so that the compiler sees here that nobody counts references to them.
    """
    short, long, others, data, out = borrowed(short), borrowed(long), borrowed(others), borrowed(data), borrowed(out)
    ends, firsts, seconds, rows = borrowed(cut.ends), borrowed(cut.firsts), borrowed(cut.seconds), borrowed(cut.rows)
    place = np.uint64(total)
    while piece < pieces:
        number = np.uint64(piece)
        length, row = ends[number] - at, np.uint64(rows[number])
        if length <= SHORT_BYTES:
            if not is_short(short, row, firsts[number], seconds[number], length):
                break
            size, ids = short[row, SHORT_WORDS], short[row, SHORT_WORDS + 1]
        else:
            if length > LONG_BYTES or not is_long(long, row, data, at, length):
                break
            size, ids = long[row, LONG_WORDS], long[row, LONG_WORDS + 1]
        place = write_ids(size, ids, others, out, place)
        at = ends[number]
        piece += 1
    return piece, at, np.int64(place)


@kernel
def _encode_piece(tables, data, start, end, out, at):
    """Encodes any piece, and remembers it where the tables take it."""
    known = tables[2]
    length = end - start
    if length > LONG_BYTES:
        return _merge_piece(tables, data, start, end, out, at)
    if length <= SHORT_BYTES:
        first, second = short_words(data, start, length)
        row = short_row(first, second, length)
        for other in range(row, row + WAYS):
            if is_short(known.short, other, first, second, length):
                swap_rows(known.short, row, other)
                return np.int64(
                    write_ids(known.short[row, SHORT_WORDS], known.short[row, SHORT_WORDS + 1], known.others, out, np.uint64(at))
                )
    else:
        row = long_row(data, start, length)
        for other in range(row, row + LONG_WAYS):
            if is_long(known.long, other, data, start, length):
                swap_rows(known.long, row, other)
                return np.int64(write_ids(known.long[row, LONG_WORDS], known.long[row, LONG_WORDS + 1], known.others, out, np.uint64(at)))
    stop = _merge_piece(tables, data, start, end, out, at)
    size, ids = pack_ids(known, length, out, at, stop)
    if length <= SHORT_BYTES:
        first, second = short_words(data, start, length)
        keep_short(known.short, row, first, second, size, ids)
    else:
        keep_long(known.long, row, data, start, length, size, ids)
    return stop


@kernel(inline="always")
def _merge_piece(tables, data, start, end, out, at):
    """The ids of a piece that is not known: a token of its own, or what merging gives."""
    merges, whole, _, room = tables
    token = whole_token(whole, data, start, end)
    if token >= 0:
        out[at] = token
        return at + 1
    if end - start > SHORT:
        return encode_long(merges, data, start, end, out, at)
    return encode_short(merges, data, start, end, room, out, at)


# ---- pieces that are one token ---------------------------------------------------------------------------


class WholeTokens(NamedTuple):
    """An open hash table: `ids` int64 [slots] (-1 where free), where each token's bytes lie in `data`, and the longest token's bytes."""

    data: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]
    longest: int


def make_whole_tokens(tokens: Mapping[bytes, int]) -> WholeTokens:
    size = 16
    while size < 2 * len(tokens):
        size *= 2
    starts, lengths, ids = np.zeros(size, np.int64), np.zeros(size, np.int64), np.full(size, -1, np.int64)
    data = np.frombuffer(b"".join(tokens), np.uint8) if tokens else np.zeros(0, np.uint8)
    start = 0
    for token, number in tokens.items():
        slot = int(hash_span(data, start, start + len(token))) & (size - 1)
        while ids[slot] >= 0:
            slot = (slot + 1) & (size - 1)
        starts[slot], lengths[slot], ids[slot] = start, len(token), number
        start += len(token)
    return WholeTokens(data, starts, lengths, ids, max(map(len, tokens), default=0))


@kernel
def whole_token(whole, data, start, end):
    """The id of the token that `data[start:end]` is, or -1."""
    if end - start > whole.longest:
        return -1
    mask = whole.ids.size - 1
    slot = np.int64(hash_span(data, start, end)) & mask
    while whole.ids[slot] >= 0:
        if whole.lengths[slot] == end - start and _equal(whole.data, whole.starts[slot], data, start, end - start):
            return whole.ids[slot]
        slot = (slot + 1) & mask
    return -1


@kernel
def _equal(left, left_start, right, right_start, length):
    for place in range(length):  # noqa: SIM110 - kernels know no generators
        if left[left_start + place] != right[right_start + place]:
            return False
    return True
