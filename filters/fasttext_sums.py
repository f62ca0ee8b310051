# mypy: disallow-untyped-defs=False
"""The rows of a token (its word's and its character n-grams') and of word n-grams, inside kernels.

Source: `Dictionary::addSubwords`, `computeSubwords`, `pushHash`, `addWordNgrams` of fastText 0.9.2. A model is a row of numbers here
(`filters.fasttext_kernel.model_rows`): its settings, and the addresses of its arrays.
"""

import numpy as np

from corpusmill.filters.fasttext_model import LABEL
from corpusmill.filters.fasttext_rows import FLOAT, add_rows
from corpusmill.filters.fasttext_tokens import LABEL_PREFIX, starts_with
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.buffers import array_at, prefetch
from corpusmill.pipeline.text.hashing import find

#: A model's numbers.
SHORTEST, LONGEST, BUCKET_COUNT, WORD_COUNT, WORD_NGRAMS, EOS, LOSS, LABELS, DIM, NODES = range(10)
#: Addresses of its arrays, the size of the table of words, and where its sums begin in an entry (in items of four bytes).
WORDS, WORD_ROWS, WORDS_SIZE, BUCKETS, ROWS, OUTPUT, CHILDREN, PLACE = range(10, 18)
NUMBERS = 18
BEGIN, END = 0x3C, 0x3E  # of a token
FNV_START, FNV_FACTOR = np.uint32(2166136261), np.uint32(16777619)
NGRAM_FACTOR = np.uint64(116049371)
FOUND_ROWS = 1024  # n-grams of which the rows wait to be added
IGNORED = np.uint32(1 << 31)  # in place of a number of rows: the model sees no word here
CACHE_LINE = 64
INT32, UINT64 = np.zeros(0, np.int32), np.zeros(0, np.uint64)  # types for `array_at`


@kernel
def sum_token(data, start, end, key, model, token, size, found, total):
    """Adds a token's rows to the float64 sum at the address `total`; returns their number, or IGNORED.

    `token` int8 has the token with its marks of begin and end, `size` bytes.
    """
    words = array_at(np.uint64(model[WORDS]), model[WORDS_SIZE], UINT64)
    place = find(words, words.size - 1, key)
    row = array_at(np.uint64(model[WORD_ROWS]), model[WORDS_SIZE], INT32)[place] if place >= 0 else -1
    if row == LABEL or (row < 0 and starts_with(data, start, end, LABEL_PREFIX)):
        return IGNORED
    waiting = 0
    if row >= 0:
        found[0] = model[ROWS] + row * model[DIM] * FLOAT
        waiting = 1
    if model[LONGEST] > 0 and model[BUCKET_COUNT] > 0:
        return np.uint32(add_ngrams(token, size, model, found, waiting, total))
    add_rows(total, found, waiting, model[DIM])
    return np.uint32(waiting)


@kernel(inline="always")
def fnv_step(value, byte):
    """One step of 32-bit FNV-1a as fastText has it: bytes above 127 are negative."""
    return np.uint32((value ^ np.uint32(np.int32(byte))) * FNV_FACTOR)


@kernel
def fnv(token, start, end):
    value = FNV_START
    for at in range(start, end):
        value = fnv_step(value, token[at])
    return value


@kernel
def add_ngrams(token, size, model, found, waiting, total):
    """Adds the rows that wait and those of a token's character n-grams, its marks of begin and end counted; returns their number."""
    shortest, longest, bucket_count = model[SHORTEST], model[LONGEST], model[BUCKET_COUNT]
    pruned = model[BUCKETS] != 0
    buckets = array_at(np.uint64(model[BUCKETS]), bucket_count, INT32)
    first, width = model[ROWS] + model[WORD_COUNT] * model[DIM] * FLOAT, model[DIM] * FLOAT
    reciprocal, count = 1.0 / bucket_count, 0
    for start in range(size):
        if token[start] & 0xC0 == 0x80:
            continue
        if waiting >= FOUND_ROWS:
            add_rows(total, found, waiting, model[DIM])
            count, waiting = count + waiting, 0
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
                if pruned:
                    bucket = np.int64(buckets[bucket])
                found[waiting] = first + bucket * width
                prefetch(found[waiting])
                waiting += bucket >= 0
    add_rows(total, found, waiting, model[DIM])
    return count + waiting


@kernel(inline="always")
def signed(value):
    """A 32-bit hash as fastText calculates with it: as an int32 that became 64 bits wide."""
    return np.uint64(np.int64(np.int32(np.uint32(value))))


@kernel
def find_word_ngrams(value, running, state, model, found, waiting):
    """Puts the addresses of the rows of the word n-grams that end in this token at `found[waiting]` and after it; returns their end.

    `running` uint64 has the hashes of those that begin in the tokens before, `state` int64 `(tokens, place of the oldest)`.
    """
    size = model[WORD_NGRAMS] - 1
    if model[BUCKET_COUNT]:
        pruned = model[BUCKETS] != 0
        buckets = array_at(np.uint64(model[BUCKETS]), model[BUCKET_COUNT], INT32)
        first, width = model[ROWS] + model[WORD_COUNT] * model[DIM] * FLOAT, model[DIM] * FLOAT
        for place in range(min(state[0], size)):
            running[place] = running[place] * NGRAM_FACTOR + value
            bucket = np.int64(running[place] % np.uint64(model[BUCKET_COUNT]))
            if pruned:
                bucket = np.int64(buckets[bucket])
            found[waiting] = first + bucket * width
            prefetch(found[waiting])
            waiting += bucket >= 0
    running[state[1]] = value
    state[0] += 1
    state[1] = state[1] + 1 if state[1] + 1 < size else 0
    return waiting
