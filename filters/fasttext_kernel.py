# mypy: disallow-untyped-defs=False
"""Labels' scores of a fastText classifier for Arrow texts, many times faster than fastText: the sum of a token's rows is kept.

A document's hidden vector is the mean of the rows of all its tokens' words and character n-grams (`Dictionary::getLine`,
`addSubwords`, `computeSubwords`, `pushHash`, `Model::computeHidden` of fastText 0.9.2). Tokens repeat, so their sums are kept in a
table of bounded size. What is in the table changes speed alone: a token's sum is made in one order, and sums are added in the text's order.
"""

import numba
import numpy as np
import numpy.typing as npt

from corpusmill.filters.fasttext_model import LABEL, FastTextModel
from corpusmill.filters.fasttext_output import NOT_LISTED, output_scores
from corpusmill.filters.fasttext_tokens import EOS_BYTES, LABEL_PREFIX, hash_token, is_space, starts_with, token_end
from corpusmill.pipeline.text.classes import ALPHA
from corpusmill.pipeline.text.table import find
from corpusmill.pipeline.text.utf8 import decode

BEGIN, END = 0x3C, 0x3E  # of a token
EOS_HASH = np.uint64(3617362777)  # `fnv` of them
FNV_START, FNV_FACTOR = np.uint32(2166136261), np.uint32(16777619)
NGRAM_FACTOR = np.uint64(116049371)
KEPT_BYTES = 48  # longer tokens hardly ever come twice
FOUND_ROWS = 1024
WAYS = 4  # places in the table for a token
TABLE_BYTES = 64 << 20
IGNORED = np.uint64(1 << 63)


class TokenSums:
    """Sums of rows by token: `entries` uint64 (slots, 2) of key (0: free) and `number of rows << 32 | fnv`, `sums` float32 (slots, dim).

    One thread at a time may use it.
    """

    def __init__(self, dim: int):
        slots = WAYS
        while 2 * slots * (16 + 4 * dim) <= TABLE_BYTES:
            slots *= 2
        self.entries: npt.NDArray[np.uint64] = np.zeros((slots, 2), np.uint64)
        self.sums: npt.NDArray[np.float32] = np.zeros((slots, dim), np.float32)


def label_scores(
    model: FastTextModel,
    kept: TokenSums,
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    classes: npt.NDArray[np.uint8],
    min_letters: int,
) -> npt.NDArray[np.float32]:
    """float32 (texts, labels): the scores that fastText's `predict(text, k=-1)` gives, NOT_LISTED for labels that it leaves out.

    Newlines are spaces. All labels are NOT_LISTED for a text with fewer letters than `min_letters` or without anything the model knows.
    """
    scores = np.empty((len(offsets) - 1, len(model.labels)), np.float32)
    settings = np.array([model.shortest, model.longest, model.bucket_count, model.word_count, model.word_ngrams, model.eos, model.loss])
    score_texts(
        data, offsets, classes, min_letters, settings, model.words, model.word_rows, model.buckets, model.rows,
        model.output, model.children, kept.entries, kept.sums, scores,
    )  # fmt: skip
    return scores


@numba.njit(cache=True, nogil=True)
def score_texts(data, offsets, classes, min_letters, settings, words, word_rows, buckets, rows, output, children, entries, sums, scores):
    longest = 0
    for text in range(offsets.size - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    token, found = np.empty(longest + 2, np.int8), np.empty(FOUND_ROWS + settings[1], np.uint32)
    hidden, total, values = np.empty(rows.shape[1]), np.empty(rows.shape[1]), np.empty(max(output.shape[1], children.shape[0]))
    for text in range(offsets.size - 1):
        start, end = offsets[text], offsets[text + 1]
        scores[text] = NOT_LISTED
        if has_letters(data, start, end, classes, min_letters):
            count = add_tokens(data, start, end, settings, words, word_rows, buckets, rows, entries, sums, token, found, total, hidden)
            if count:
                hidden /= count
                output_scores(hidden, output, children, settings[6], values, scores[text])


@numba.njit(cache=True, nogil=True)
def has_letters(data, start, end, classes, wanted):
    """Whether a text has so many letters; looks no further than needed."""
    at = start
    while wanted > 0 and at < end:
        point, width = decode(data, at)
        wanted -= (classes[point] & ALPHA) != 0
        at += width
    return wanted <= 0


@numba.njit(cache=True, nogil=True)
def add_tokens(data, start, end, settings, words, word_rows, buckets, rows, entries, sums, token, found, total, hidden):
    """The sum of the rows of a text into `hidden`; returns their number."""
    dim, window, eos = rows.shape[1], settings[4] - 1, settings[5]
    running, tokens, count = np.zeros(max(window, 0), np.uint64), 0, 0
    hidden[:] = 0.0
    sets = np.uint64(entries.shape[0] // WAYS - 1)
    at = start
    while True:
        while at < end and is_space(data[at]):
            at += 1
        if at >= end:
            break
        stop = token_end(data, at, end)
        if stop - at == 4 and starts_with(data, at, stop, EOS_BYTES):
            break
        key = hash_token(data, at, stop)
        slot = kept_slot(entries, key, sets)
        if entries[slot, 0] == key:
            info = entries[slot, 1]
            for column in range(dim):
                hidden[column] += sums[slot, column]
        else:
            info = sum_token(data, at, stop, key, settings, words, word_rows, buckets, rows, token, found, total)
            for column in range(dim):
                hidden[column] += np.float32(total[column])
            if stop - at <= KEPT_BYTES:
                entries[slot, 0], entries[slot, 1] = key, info
                for column in range(dim):
                    sums[slot, column] = total[column]
        if info & IGNORED == 0:
            count += int(info >> np.uint64(32))
            if window > 0:
                count += add_word_ngrams(np.uint64(np.int64(np.int32(np.uint32(info)))), running, tokens, settings, buckets, rows, hidden)
            tokens += 1
        at = stop
    if eos >= 0:
        for column in range(dim):
            hidden[column] += rows[eos, column]
        count += 1
    if window > 0:
        count += add_word_ngrams(np.uint64(np.int64(np.int32(np.uint32(EOS_HASH)))), running, tokens, settings, buckets, rows, hidden)
    return count


@numba.njit(cache=True, nogil=True, inline="always")
def kept_slot(entries, key, sets):
    """The slot of a token's sum; where it is not kept: a free one for it, or the one to give up."""
    first = (key & sets) * np.uint64(WAYS)
    for way in range(WAYS):
        slot = first + np.uint64(way)
        if entries[slot, 0] == key or entries[slot, 0] == 0:
            return slot
    return first + (key >> np.uint64(62))


@numba.njit(cache=True, nogil=True)
def sum_token(data, start, end, key, settings, words, word_rows, buckets, rows, token, found, total):
    """The sum of a token's rows into `total`; returns their number and the token's `fnv` as an entry of the table has them."""
    total[:] = 0.0
    place = find(words, words.size - 1, key)
    row = word_rows[place] if place >= 0 else -1
    if row == LABEL or (row < 0 and starts_with(data, start, end, LABEL_PREFIX)):
        return IGNORED
    count = 0
    if row >= 0:
        count = 1
        for column in range(total.size):
            total[column] += rows[row, column]
    token[0] = BEGIN
    for at in range(start, end):
        token[at - start + 1] = np.int8(data[at])
    token[end - start + 1] = END
    if settings[1] > 0:
        count += add_ngrams(token, end - start + 2, settings, buckets, rows, found, total)
    return np.uint64(count) << np.uint64(32) | np.uint64(fnv(token, 1, end - start + 1))


@numba.njit(cache=True, nogil=True, inline="always")
def fnv_step(value, byte):
    """One step of 32-bit FNV-1a as fastText has it: bytes above 127 are negative."""
    return np.uint32((value ^ np.uint32(np.int32(byte))) * FNV_FACTOR)


@numba.njit(cache=True, nogil=True)
def fnv(token, start, end):
    value = FNV_START
    for at in range(start, end):
        value = fnv_step(value, token[at])
    return value


@numba.njit(cache=True, nogil=True)
def add_ngrams(token, size, settings, buckets, rows, found, total):
    """Adds the rows of a token's character n-grams, its marks of begin and end counted, and returns their number."""
    shortest, longest, bucket_count, word_count = settings[0], settings[1], settings[2], settings[3]
    if bucket_count == 0:
        return 0
    reciprocal, count = 1.0 / bucket_count, 0
    waiting = 0
    for start in range(size):
        if token[start] & 0xC0 == 0x80:
            continue
        if waiting >= FOUND_ROWS:
            add_rows(rows, found, waiting, total)
            waiting = 0
        value, at = FNV_START, start
        for length in range(1, longest + 1):
            if at >= size:
                break
            value = fnv_step(value, token[at])
            at += 1
            while at < size and token[at] & 0xC0 == 0x80:
                value = fnv_step(value, token[at])
                at += 1
            if length >= shortest and not (length == 1 and (start == 0 or at == size)):
                bucket = np.int64(value) - np.int64(np.float64(value) * reciprocal) * bucket_count  # faster than %
                if bucket < 0:
                    bucket += bucket_count
                elif bucket >= bucket_count:
                    bucket -= bucket_count
                if buckets.size:
                    bucket = np.int64(buckets[bucket])
                found[waiting] = word_count + bucket
                waiting += bucket >= 0
                count += bucket >= 0
    add_rows(rows, found, waiting, total)
    return count


@numba.njit(cache=True, nogil=True)
def add_rows(rows, found, count, total):
    for place in range(count):
        row = rows[found[place]]
        for column in range(total.size):
            total[column] += row[column]


@numba.njit(cache=True, nogil=True)
def add_bucket(bucket, settings, buckets, rows, total):
    if buckets.size:
        bucket = np.int64(buckets[bucket])
        if bucket < 0:
            return 0
    row = np.uint64(settings[3] + bucket)
    for column in range(total.size):
        total[column] += rows[row, column]
    return 1


@numba.njit(cache=True, nogil=True)
def add_word_ngrams(value, running, tokens, settings, buckets, rows, hidden):
    """Adds the rows of the word n-grams that end in this token: `running` has the hashes of those that begin in the tokens before."""
    count = 0
    if settings[2]:
        for place in range(min(tokens, running.size)):
            running[place] = running[place] * NGRAM_FACTOR + value
            count += add_bucket(np.int64(running[place] % np.uint64(settings[2])), settings, buckets, rows, hidden)
    running[tokens % running.size] = value
    return count
