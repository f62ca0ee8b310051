# mypy: disallow-untyped-defs=False
"""Encodes texts over Arrow buffers: cuts some hundred pieces, looks them all up, and merges those that are not known.

Merging is byte-pair encoding as in `models::bpe::word::Word::merge_all` of `tokenizers`: the merge of the lowest rank first, the leftmost
where a pair occurs twice. An open hash table holds the pairs that merge; a plain table holds the pairs of single bytes as well.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import borrowed, prefetch_byte
from corpusmill.text.hashing import BASE, hash_span, mix64
from corpusmill.text.utf8 import eight_bytes
from corpusmill.tokenize.pieces import FIRST_MASKS, SECOND_MASKS, piece_ends
from corpusmill.tokenize.words import prefix_of

#: The rank of a pair that does not merge. Lower ranks merge first.
NONE = np.uint32(0xFFFFFFFF)
FREE = np.uint64(0xFFFFFFFFFFFFFFFF)
LOW = np.uint64(0xFFFFFFFF)
WORD = np.uint64(32)
#: A slot of the table: two ids of 20 bits each, and the rank of their merge.
ID_BITS, RANK_BITS = np.uint64(20), np.uint64(24)
RANK = np.uint64((1 << 24) - 1)
MOST_RANKS = 1 << 24
#: In pieces of up to SHORT bytes, scanning all pairs for the lowest rank, LANES at a time, is faster than a heap. A place takes seven bits.
SHORT, LANES = 128, 16
PLACE_BITS, PLACE = np.uint32(7), np.uint32(SHORT - 1)


class Merges(NamedTuple):
    """The merges of a vocabulary in arrays for kernels, small enough for the processor's cache.

    `bytes_` int32 [256]: the id of each byte; `of_bytes` uint32 [65536]: the rank of the merge of two bytes (first << 8 | second), or NONE;
    `table` uint64 [slots]: pairs with the ranks of their merges, FREE where empty; `merged` int32: the token that the merge of each rank
    makes.
    """

    bytes_: npt.NDArray[np.int32]
    of_bytes: npt.NDArray[np.uint32]
    table: npt.NDArray[np.uint64]
    merged: npt.NDArray[np.int32]


class MergeScratch(NamedTuple):
    """Scratch of `encode_short`, an item for each byte of a piece: tokens, keys of pairs, places of the next and the previous token."""

    ids: npt.NDArray[np.int32]
    keys: npt.NDArray[np.uint32]
    following: npt.NDArray[np.int64]
    before: npt.NDArray[np.int64]


def make_scratch() -> MergeScratch:
    return MergeScratch(np.empty(SHORT, np.int32), np.empty(SHORT, np.uint32), np.empty(SHORT, np.int64), np.empty(SHORT, np.int64))


def make_merges(byte_ids: npt.NDArray[np.int64], pairs: npt.NDArray[np.int64]) -> Merges:
    """Builds the tables. `byte_ids` int64 [256]; `pairs` int64 [merges, 4]: left id, right id, rank, merged id. If a pair occurs several
    times, its last row is used.

    Raises ValueError, whose message is a phrase, where a rank is too large.
    """
    most = int(pairs[:, 2].max(initial=0))
    if most >= MOST_RANKS:
        raise ValueError(f"it has a merge of rank {most:,}, and ranks below {MOST_RANKS:,} can be encoded with")
    size = 1024
    while size < 4 * len(pairs):  # sparse, because most pairs that are looked up do not merge
        size *= 2
    table, of_bytes, merged = np.full(size, FREE), np.full(1 << 16, NONE), np.zeros(most + 1, np.int32)
    merged[pairs[:, 2]] = pairs[:, 3]
    bytes_ = byte_ids.astype(np.int32)
    _fill(pairs, table)
    _fill_bytes(bytes_, table, of_bytes)
    return Merges(bytes_, of_bytes, table, merged)


@kernel
def _slot(key, mask):
    return np.int64(mix64(key * BASE)) & mask


@kernel
def _fill(pairs, table):
    mask = table.size - 1
    for row in range(pairs.shape[0]):
        key = np.uint64(pairs[row, 0]) << ID_BITS | np.uint64(pairs[row, 1])
        slot = _slot(key, mask)
        while table[slot] != FREE and table[slot] >> RANK_BITS != key:
            slot = (slot + 1) & mask
        table[slot] = key << RANK_BITS | np.uint64(pairs[row, 2])


@kernel
def _fill_bytes(bytes_, table, of_bytes):
    for first in range(256):
        for second in range(256):
            of_bytes[first << 8 | second] = rank_of(table, bytes_[first], bytes_[second])


@kernel
def rank_of(table, left, right):
    """Returns the rank of the merge of two tokens, or NONE."""
    key = np.uint64(left) << ID_BITS | np.uint64(right)
    mask = table.size - 1
    slot = _slot(key, mask)
    while True:
        found = table[slot]
        if found >> RANK_BITS == key:
            return np.uint32(found & RANK)
        if found == FREE:
            return NONE
        slot = (slot + 1) & mask


@kernel
def _of_bytes(of_bytes, data, at):
    return of_bytes[np.int64(data[at]) << 8 | np.int64(data[at + 1])]


@kernel
def encode_short(merges, data, start, end, scratch, out, at):
    """Writes the tokens of `data[start:end]` (up to SHORT bytes) to `out[at:]`. Returns where they end.

    A pair's key is its rank followed by its place, so the smallest key is the next merge. Finding it needs no branch.
    """
    bytes_, of_bytes, table, merged = merges
    ids, keys, following, before = scratch
    count = end - start
    lanes = (count + LANES - 1) & -LANES
    for place in range(count):
        ids[place] = bytes_[data[start + place]]
        following[place], before[place] = place + 1, place - 1
    for place in range(count - 1):
        keys[place] = _key(_of_bytes(of_bytes, data, start + place), place)
    for place in range(count - 1, lanes):
        keys[place] = NONE
    while True:
        best = NONE
        for place in range(lanes):
            best = min(best, keys[place])
        if best == NONE:
            break
        left = np.int64(best & PLACE)
        gone = following[left]
        ids[left] = merged[best >> PLACE_BITS]
        keys[gone] = NONE
        right, earlier = following[gone], before[left]
        following[left] = right
        if right < count:
            before[right] = left
            keys[left] = _key(rank_of(table, ids[left], ids[right]), left)
        else:
            keys[left] = NONE
        if earlier >= 0:
            keys[earlier] = _key(rank_of(table, ids[earlier], ids[left]), earlier)
    place = 0
    while place < count:
        out[at] = ids[place]
        at += 1
        place = following[place]
    return at


@kernel(inline="always")
def _key(rank, place):
    return NONE if rank == NONE else rank << PLACE_BITS | np.uint32(place)


@kernel
def encode_long(merges, data, start, end, out, at):
    """Writes the tokens of `data[start:end]` to `out[at:]`. Returns where they end. Time is n log n in the number of bytes, for any
    text."""
    bytes_, of_bytes, table, merged = merges
    count = end - start
    ids, following, before = np.empty(count, np.int32), np.empty(count, np.int64), np.empty(count, np.int64)
    ranks = np.full(count, NONE)
    heap, size = np.empty(3 * count, np.uint64), 0  # entries `rank << 32 | place`; a merge adds at most two
    for place in range(count):
        ids[place] = bytes_[data[start + place]]
        following[place], before[place] = place + 1, place - 1
        if place + 1 < count:
            ranks[place] = _of_bytes(of_bytes, data, start + place)
            size = _push(heap, size, ranks[place], place)
    while size:
        first = heap[0]
        size = _pop(heap, size)
        left = np.int64(first & LOW)
        if ranks[left] == NONE or ranks[left] != first >> WORD:
            continue  # out of date: this pair was merged
        gone = following[left]
        ids[left] = merged[ranks[left]]
        ranks[gone] = ranks[left] = NONE
        following[left] = following[gone]
        if following[left] < count:
            before[following[left]] = left
            ranks[left] = rank_of(table, ids[left], ids[following[left]])
            size = _push(heap, size, ranks[left], left)
        earlier = before[left]
        if earlier >= 0:
            ranks[earlier] = rank_of(table, ids[earlier], ids[left])
            size = _push(heap, size, ranks[earlier], earlier)
    place = 0
    while place < count:
        out[at] = ids[place]
        at += 1
        place = following[place]
    return at


@kernel
def _push(heap, size, rank, place):
    if rank == NONE:
        return size
    key, at = np.uint64(rank) << WORD | np.uint64(place), size
    while at and heap[(at - 1) >> 1] > key:
        heap[at] = heap[(at - 1) >> 1]
        at = (at - 1) >> 1
    heap[at] = key
    return size + 1


@kernel
def _pop(heap, size):
    """Removes the smallest entry. Returns the new size."""
    size -= 1
    key, at = heap[size], np.int64(0)
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = key
    return size


# ---- the cache of encoded pieces -------------------------------------------------------------------------


SHORT_BYTES, LONG_BYTES = 16, 112
#: Words of 8 bytes for a piece; an entry has two more, which hold its ids (`pack_ids`).
SHORT_WORDS, LONG_WORDS = 2, 14
SHORT_WIDTH, LONG_WIDTH = SHORT_WORDS + 2, LONG_WORDS + 2
#: Places of each cache, and entries that share a place: 32 MiB of short pieces, 16 MiB of long ones.
PLACES, WAYS = 1 << 18, 4
LONG_PLACES, LONG_WAYS = 1 << 17, 2
#: Places that an output needs after its last id.
SPARE = 3
#: The first of the two words holds the number of the piece's bytes in its lowest eight bits, and the number of its ids above them. The
#: second holds up to three ids of 21 bits; with more ids, it holds where they begin in `others`.
BYTES = np.uint64(0xFF)
COUNT = np.uint64(8)
MOST_IDS = np.uint64(3)
PACKED_ID_BITS = np.uint64(21)
ID = np.uint64((1 << 21) - 1)
OTHER_IDS = 1 << 22  # 16 MiB; when it is full, both caches are emptied
_ONE = np.uint64(1)


class KnownPieces(NamedTuple):
    """The cache of encoded pieces. `short` uint64 [WAYS * PLACES, SHORT_WIDTH]; `long` uint64 [LONG_WAYS * LONG_PLACES, LONG_WIDTH];
    `others` uint32 [OTHER_IDS]: ids of pieces with more than three; `used` int64 [1]: used places of `others`.

    Only one thread at a time may use it.
    """

    short: npt.NDArray[np.uint64]
    long: npt.NDArray[np.uint64]
    others: npt.NDArray[np.uint32]
    used: npt.NDArray[np.int64]


def make_known_pieces() -> KnownPieces:
    short, long = _aligned(WAYS * PLACES, SHORT_WIDTH), _aligned(LONG_WAYS * LONG_PLACES, LONG_WIDTH)
    return KnownPieces(short, long, np.zeros(OTHER_IDS, np.uint32), np.zeros(1, np.int64))


def _aligned(rows: int, words: int) -> npt.NDArray[np.uint64]:
    """Returns zeros that begin at a cache line."""
    block = np.zeros(rows * words + 8, np.uint64)
    skip = -block.ctypes.data % 64 // 8
    return block[skip : skip + rows * words].reshape(rows, words)


@kernel(inline="always")
def short_words(data, start, length):
    """Returns the bytes of a piece of 1 to 16 bytes as two integers, padded with zeros; of a longer piece the first 16 bytes."""
    size = np.uint64(min(length, SHORT_BYTES))
    if start + SHORT_BYTES <= data.size:
        return eight_bytes(data, start) & FIRST_MASKS[size], eight_bytes(data, start + 8) & SECOND_MASKS[size]
    return _last_words(data, start, start + np.int64(size))


@kernel
def _last_words(data, start, end):
    """Returns the same as `short_words` near the buffer's end."""
    return prefix_of(data, start, end), prefix_of(data, min(start + 8, end), end)


@kernel(inline="always")
def short_row(first, second, length):
    """Returns the first row for a piece of up to 16 bytes."""
    mixed = mix64((first ^ (second + np.uint64(length)) * BASE) * BASE)
    return WAYS * (np.int64(mixed >> np.uint64(20)) & (PLACES - 1))


@kernel(inline="always")
def long_row(data, start, length):
    """Returns the first row for a piece of 17 to 112 bytes. The last eight bytes may overlap the others, so nothing after it is read."""
    mixed = np.uint64(length)
    for at in range(start, start + length - 8, 8):
        mixed = mix64((mixed ^ eight_bytes(data, at)) * BASE)
    mixed = mix64((mixed ^ eight_bytes(data, start + length - 8)) * BASE)
    return LONG_WAYS * (np.int64(mixed >> np.uint64(20)) & (LONG_PLACES - 1))


@kernel(inline="always")
def is_short(table, row, first, second, length):
    """Whether the entry in this row is this piece's."""
    return (table[row, 0] == first) & (table[row, 1] == second) & (table[row, SHORT_WORDS] & BYTES == np.uint64(length))


@kernel(inline="always")
def is_long(table, row, data, start, length):
    found = table[row, LONG_WORDS] & BYTES == np.uint64(length)
    word, at = 0, start
    while found and at < start + length - 8:
        found = table[row, word] == eight_bytes(data, at)
        word, at = word + 1, at + 8
    return found and table[row, word] == eight_bytes(data, start + length - 8)


@kernel(inline="always")
def keep_short(table, row, first, second, size, ids):
    """Writes a piece into the second of its rows. Later entries move down one row, and the last one is dropped."""
    _move_on(table, row, WAYS)
    row += 1
    table[row, 0], table[row, 1], table[row, SHORT_WORDS], table[row, SHORT_WORDS + 1] = first, second, size, ids


@kernel(inline="always")
def keep_long(table, row, data, start, length, size, ids):
    _move_on(table, row, LONG_WAYS)
    row += 1
    word = 0
    for at in range(start, start + length - 8, 8):
        table[row, word] = eight_bytes(data, at)
        word += 1
    table[row, word] = eight_bytes(data, start + length - 8)
    table[row, LONG_WORDS], table[row, LONG_WORDS + 1] = size, ids


@kernel(inline="always")
def _move_on(table, row, ways):
    for other in range(row + ways - 1, row + 1, -1):
        for word in range(table.shape[1]):
            table[other, word] = table[other - 1, word]


@kernel(inline="always")
def swap_rows(table, row, other):
    for word in range(table.shape[1]):
        table[row, word], table[other, word] = table[other, word], table[row, word]


@kernel(inline="always")
def pack_ids(known, length, out, start, end):
    """Returns the last two words of a cache entry: for a piece of `length` bytes whose ids are `out[start:end]`."""
    count = end - start
    ids = np.uint64(0)
    if count <= MOST_IDS:
        for place in range(end - 1, start - 1, -1):
            ids = ids << PACKED_ID_BITS | np.uint64(out[place])
    else:
        place = known.used[0]
        if place + count > OTHER_IDS:
            known.short[:] = 0
            known.long[:] = 0
            place = 0
        known.used[0] = place + count
        for number in range(count):
            known.others[place + number] = out[start + number]
        ids = np.uint64(place)
    return np.uint64(length) | np.uint64(count) << COUNT, ids


@kernel(inline="always")
def write_ids(size, ids, others, out, at):
    """Writes an entry's ids to `out[at:]` (`at` is unsigned; at least SPARE places are left). Returns where they end."""
    count = size >> COUNT
    if count <= MOST_IDS:  # always three stores: a loop's varying length would cost branch mispredictions
        out[at] = ids & ID
        out[at + _ONE] = (ids >> PACKED_ID_BITS) & ID
        out[at + _ONE + _ONE] = ids >> (PACKED_ID_BITS + PACKED_ID_BITS)
    else:
        for number in range(count):
            out[at + np.uint64(number)] = others[ids + np.uint64(number)]
    return at + count


# ---- texts to ids ----------------------------------------------------------------------------------------


#: Pieces that are cut before the first of them is looked up.
AHEAD = 512


class Cut(NamedTuple):
    """Pieces to look up: where each ends, its first 16 bytes as in `short_words`, and its first row in the cache."""

    ends: npt.NDArray[np.int64]
    firsts: npt.NDArray[np.uint64]
    seconds: npt.NDArray[np.uint64]
    rows: npt.NDArray[np.int64]


class Memory(NamedTuple):
    """State that encoding keeps between calls: the cache of pieces, and scratch arrays. Only one thread at a time may use it."""

    known: KnownPieces
    cut: Cut
    scratch: MergeScratch


def make_memory() -> Memory:
    cut = Cut(np.empty(AHEAD, np.int64), np.empty(AHEAD, np.uint64), np.empty(AHEAD, np.uint64), np.empty(AHEAD, np.int64))
    return Memory(make_known_pieces(), cut, make_scratch())


@kernel
def encode_texts(rule, digits, classes, vocabulary, memory, data, offsets, after, out, counts):
    """Writes the ids of all texts to `out`, one text after the other, and the number of ids of each to `counts`. Returns the total.

    `vocabulary` is `(Merges, WholeTokens)`; the id `after` follows each text that is not empty (-1: nothing). `out` needs room for
    one id for each byte, one for each text, and SPARE at the end.
    """
    tables, cut = _borrowed(vocabulary, memory)
    return _encode_texts(rule, digits, borrowed(classes), tables, cut, borrowed(data), offsets, after, borrowed(out), counts)


@kernel
def encode_pieces(vocabulary, memory, data, offsets, out, counts):
    """Encodes as `encode_texts` does, but takes each text as one piece."""
    tables, _ = _borrowed(vocabulary, memory)
    return _encode_pieces(tables, borrowed(data), offsets, borrowed(out), counts)


@kernel
def _borrowed(vocabulary, memory):
    """Returns `(Merges, WholeTokens, KnownPieces, MergeScratch)` with borrowed arrays, which the functions below pass on, and `Cut`."""
    merges, whole = vocabulary
    known, cut, scratch = memory
    tables = (
        Merges(borrowed(merges.bytes_), borrowed(merges.of_bytes), borrowed(merges.table), borrowed(merges.merged)),
        WholeTokens(borrowed(whole.data), borrowed(whole.starts), borrowed(whole.lengths), borrowed(whole.ids), whole.longest),
        KnownPieces(borrowed(known.short), borrowed(known.long), borrowed(known.others), borrowed(known.used)),
        MergeScratch(borrowed(scratch.ids), borrowed(scratch.keys), borrowed(scratch.following), borrowed(scratch.before)),
    )
    return tables, Cut(borrowed(cut.ends), borrowed(cut.firsts), borrowed(cut.seconds), borrowed(cut.rows))


@kernel
def _encode_texts(rule, digits, classes, tables, cut, data, offsets, after, out, counts):
    known, ends = tables[2], cut.ends
    total = np.int64(0)  # a literal 0 has another type, for which numba would compile every function below once more
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
    """Writes to `cut` where each piece may be cached, and prefetches these rows. The first piece begins at `at`."""
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
    """Encodes pieces up to the first that is not in its first cache row. Returns `(its number, where it begins, number of ids)`.

    It is a function of its own because a call inside this loop would cost more than the whole loop. Arrays are borrowed again, so that
    the compiler sees here that nothing counts references to them.
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
    """Encodes any piece, and caches it where it is short enough. Returns where its ids end."""
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
    """Encodes a piece that is not cached: as one whole token, or by merging. Returns where its ids end."""
    merges, whole, _, scratch = tables
    token = whole_token(whole, data, start, end)
    if token >= 0:
        out[at] = token
        return at + 1
    if end - start > SHORT:
        return encode_long(merges, data, start, end, out, at)
    return encode_short(merges, data, start, end, scratch, out, at)


# ---- whole tokens, which merging does not reach ----------------------------------------------------------


class WholeTokens(NamedTuple):
    """An open hash table of tokens: `ids` int64 [slots] (-1 where free), the place of each token's bytes in `data`, the greatest length."""

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
    """Returns the id of the token whose bytes are `data[start:end]`, or -1."""
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
