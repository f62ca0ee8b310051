# mypy: disallow-untyped-defs=False
"""Scores of fastText classifiers for the same texts, by label."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from llvmlite import ir  # numba depends on it
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from corpusmill.filters.fasttext_model import (
    HIERARCHICAL,
    LABEL,
    LABEL_PREFIX,
    SOFTMAX,
    FastTextModel,
    hash_token,
    split_tokens,
    starts_with,
)
from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import array_at, borrowed, matrix_at, prefetch
from corpusmill.text.hashing import find

#: Memory for the sums of tokens: for each model, and at most for all models.
TABLE_BYTES, MOST_TABLE_BYTES = 64 << 20, 256 << 20
#: Bytes of text that are scored at once, so that its tokens stay in the processor's cache. A longer text is not divided.
SLICE = 1 << 20


class TextTokens(NamedTuple):
    """Texts as tokens: token t is `data[starts[t]:ends[t]]`; text i has the tokens from `first[i]` up to `first[i + 1]`."""

    data: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]


class WindowScores(NamedTuple):
    """The scores of windows. Text i has the rows from `first[i]` up to `first[i + 1]`. `scores`: for each model, float32 (windows, labels);
    NOT_LISTED or UNKNOWN, both below 0, if there is no score.
    """

    first: npt.NDArray[np.int64]
    scores: list[npt.NDArray[np.float32]]


class FastTextScorer:
    """Scores texts by several models over the same tokens. It keeps a table of the tokens' sums. One thread at a time may use it.

    `window`: words of the windows that are scored; None: texts are scored as a whole. `bare`: a window without any word of a model gets
    fastText's scores for the end of a line, else it gets no scores.
    """

    def __init__(self, models: Sequence[FastTextModel], window: int | None = None, bare: bool = False, table_bytes: int | None = None):
        self.models = list(models)
        self._words, self._bare = window or 0, bare
        self._model_rows, width = _model_rows(self.models)
        size = min(TABLE_BYTES * len(self.models), MOST_TABLE_BYTES) if table_bytes is None else table_bytes
        sets = max(size // (WAYS * 4 * (2 + width)), 1)
        self._table: npt.NDArray[np.uint64] = np.zeros(sets * WAYS, np.uint64)
        self._entries = _aligned_rows(sets * WAYS + SPARE, width)
        self._clock = np.zeros(1, np.uint32)

    def score(self, slices: Iterator[tuple[int, TextTokens]], texts: int, size: int, new_line: bytes = b"") -> WindowScores:
        """Returns the scores by each model.

        `slices`: the number of the first text, and the tokens, for one run of texts after another. `size`: at least the number of all
        tokens. The token `new_line` does not count as a word of a window.
        """
        windows = np.zeros(texts + 1, np.int64)
        most = texts + size // self._words if self._words else texts
        found = [np.empty((most, len(model.labels)), np.float32) for model in self.models]
        results = np.array([scores.ctypes.data for scores in found], np.int64)
        key = np.uint64(hash_token(np.frombuffer(new_line, np.uint8), 0, len(new_line)) if new_line else 0)
        for offset, tokens in slices:
            score_tokens(
                *tokens, offset, key, self._model_rows, results, self._words, self._bare, windows, self._table, self._entries, self._clock
            )
        return WindowScores(windows, [scores[: windows[-1]] for scores in found])


def text_slices(offsets: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yields `(first, end)` of runs of texts with at most SLICE bytes; each run has at least one text, even a longer one."""
    start, last = 0, len(offsets) - 1
    while start < last:
        end = max(int(np.searchsorted(offsets, offsets[start] + SLICE, "right")) - 1, start + 1)
        yield start, min(end, last)
        start = min(end, last)


def as_fasttext_reads(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> Iterator[tuple[int, TextTokens]]:
    """Yields the tokens of texts as fastText finds them; a newline is a space."""
    for start, end in text_slices(offsets):
        part = offsets[start : end + 1]
        capacity = int(part[-1] - part[0]) // 2 + end - start
        tokens = TextTokens(data, np.empty(capacity, np.int64), np.empty(capacity, np.int64), np.empty(end - start + 1, np.int64))
        split_tokens(data, part, *tokens[1:])
        yield start, tokens


def _model_rows(models: Sequence[FastTextModel]) -> tuple[npt.NDArray[np.int64], int]:
    """Returns a row of settings and addresses for each model, for the kernels, and the number of items in an entry of the table."""
    rows = np.empty((len(models), NUMBERS), np.int64)
    place = -(-(COUNTS + len(models)) // BLOCK) * BLOCK
    for row, model in zip(rows, models):
        row[:] = (
            model.shortest, model.longest, model.bucket_count, model.word_count, model.word_ngrams, model.eos, model.loss,
            len(model.labels), model.rows.shape[1], len(model.children),
            model.words.ctypes.data, model.word_rows.ctypes.data, len(model.words), model.buckets.ctypes.data if model.buckets.size else 0,
            model.rows.ctypes.data, model.output.ctypes.data, model.children.ctypes.data, place,
        )  # fmt: skip
        place += -(-model.rows.shape[1] // BLOCK) * BLOCK
    return rows, place


def _aligned_rows(count: int, width: int) -> npt.NDArray[np.uint32]:
    """Returns rows of zeros. Each begins at the start of a cache line (`width` is a multiple of 16)."""
    memory = np.zeros(count * width + BLOCK, np.uint32)
    skip = -memory.ctypes.data // 4 % BLOCK
    return memory[skip : skip + count * width].reshape(count, width)


# ---- The kernel. It is many times faster than fastText, because it keeps the sums of each token's rows
#
# A text's hidden vector is the mean of the rows of its words, of their character n-grams, and of its word n-grams (`Dictionary::getLine`,
# `Model::computeHidden` of fastText 0.9.2). Tokens repeat, so their sums stay in a table of bounded size. An entry has the token's sums for
# all models, so that a text is read once for all of them. The table changes only the speed: the rows of a token are always added in the
# same order, and the sums of tokens in the order of the text.

WAYS = 4  # the number of places in the table where a token may be
KEPT_BYTES = 48  # bytes; longer tokens rarely repeat, so the table does not keep them
CHUNK = 256  # number of tokens to look up before their sums are added
SPARE = 64  # entries for tokens that are not kept
#: Items (of four bytes) at the start of an entry: the token's `fnv`, the number of the chunk that used it last, the rows of each model.
HASH, USED, COUNTS = 0, 1, 2
EOS_HASH = np.uint64(3617362777)  # `fnv` of `</s>`
NEVER = 1 << 62
FLOAT32 = np.zeros(0, np.float32)  # a type for `matrix_at`


@kernel
def find_entries(data, starts, ends, keys, begin, end, chunk, models, table, entries, token, found, total, slots):
    """Writes the places of the entries of the tokens from `begin` up to `end` into `slots` (int64), and makes missing entries.

    Returns the number of tokens with an entry; fewer than all if the spare entries run out.
    """
    sets = np.uint64(table.size // WAYS)
    width = entries.shape[1] * FLOAT
    address, base = table.ctypes.data, entries.ctypes.data
    spare, last_spare = table.size, entries.shape[0]
    for at in range(begin, end):
        prefetch(address + np.int64((keys[at] >> np.uint64(32)) * sets >> np.uint64(32)) * (WAYS * 8))
    for at in range(begin, end):
        key = keys[at]
        first = np.int64((key >> np.uint64(32)) * sets >> np.uint64(32)) * WAYS
        one, two, three = table[first + 1] == key, table[first + 2] == key, table[first + 3] == key
        slot = first + one + 2 * two + 3 * three
        if table[slot] == key:
            entries[slot, USED] = chunk
        else:
            if ends[at] - starts[at] <= KEPT_BYTES:
                slot = oldest(table, entries, first, chunk)
            else:
                slot = -1
            if slot >= 0:
                table[slot] = key
            elif spare == last_spare:
                return at - begin
            else:
                slot = spare
                spare += 1
            entries[slot, USED] = chunk
            fill_entry(data, starts[at], ends[at], key, models, entries, slot, token, found, total)
        slots[at - begin] = slot
        for line in range(0, width, CACHE_LINE):
            prefetch(base + slot * width + line)
    return end - begin


@kernel
def oldest(table, entries, first, chunk):
    """Returns the place for a new token: a free one, else the one that was not used for longest; -1 if the current chunk uses all."""
    best, age = -1, np.uint32(0)
    for slot in range(first, first + WAYS):
        if table[slot] == 0:
            return slot
        unused = np.uint32(chunk - entries[slot, USED])
        if unused > age:
            best, age = slot, unused
    return best


@kernel
def fill_entry(data, start, end, key, models, entries, slot, token, found, total):
    """Computes a token's sums for all models."""
    size = end - start + 2
    token[0], token[size - 1] = BEGIN, END
    for at in range(start, end):
        token[at - start + 1] = np.int8(data[at])
    entries[slot, HASH] = fnv(token, 1, size - 1)
    for model in range(models.shape[0]):
        numbers = borrowed(models[model])
        total[:] = 0.0
        entries[slot, COUNTS + model] = sum_token(data, start, end, key, numbers, token, size, found, total.ctypes.data)
        round_row(entries.ctypes.data + (slot * entries.shape[1] + numbers[PLACE]) * FLOAT, total.ctypes.data, numbers[DIM])


@kernel
def add_tokens(slots, begin, end, number, model, entries, running, state, found, hidden):
    """Adds the sums of the tokens `slots[begin:end]`, and the rows of their word n-grams, to the float64 sum at the address `hidden`.

    Returns the number of rows that were added.
    """
    place, width = entries.ctypes.data + model[PLACE] * FLOAT, entries.shape[1] * FLOAT
    pairs = model[WORD_NGRAMS] > 1
    count = waiting = 0
    for at in range(begin, end):
        rows = entries[slots[at], COUNTS + number]
        if rows == IGNORED:
            continue
        if waiting + model[WORD_NGRAMS] >= FOUND_ROWS:
            add_rows(hidden, found, waiting, model[DIM])
            waiting = 0
        found[waiting] = place + slots[at] * width
        waiting += 1
        count += rows
        if pairs:
            more = find_word_ngrams(signed(entries[slots[at], HASH]), running, state, model, found, waiting)
            count, waiting = count + more - waiting, more
    add_rows(hidden, found, waiting, model[DIM])
    return count


@kernel
def finish_window(model, bare, running, state, found, hidden, count, values, scores):
    """Adds the end of the line, writes the scores of all labels to the address `scores` (float32), and clears the sums.

    Labels that fastText does not list get NOT_LISTED. If the window has nothing but the end of the line, all labels get UNKNOWN, unless
    it may be `bare`.
    """
    known, waiting = count > 0 or bare, 0
    if model[EOS] >= 0:
        found[0], waiting = model[ROWS] + model[EOS] * model[DIM] * FLOAT, 1
    if model[WORD_NGRAMS] > 1:
        waiting = find_word_ngrams(signed(EOS_HASH), running, state, model, found, waiting)
    add_rows(hidden.ctypes.data, found, waiting, model[DIM])
    count += waiting
    listed = array_at(np.uint64(scores), model[LABELS], FLOAT32)
    listed[:] = NOT_LISTED if known and count else UNKNOWN
    if known and count:
        vector = hidden[: model[DIM]]
        vector /= count
        output = matrix_at(np.uint64(model[OUTPUT]), model[DIM], model[LABELS], FLOAT32)
        children = matrix_at(np.uint64(model[CHILDREN]), model[NODES], 2, INT32)
        output_scores(vector, output, children, model[LOSS], values, listed)
    hidden[:] = 0.0
    state[:] = 0


@kernel
def cut_windows(keys, begin, end, words, new_line, begins):
    """Writes where a text's windows begin into `begins`, and returns their number. The text has the tokens from `begin` up to `end`.

    A window has `words` words. A rest with at least half as many words is a window of its own; a smaller rest belongs to the last window.
    Even an empty text has one window. A token with the key `new_line` is no word. `words` 0: the text is one window.
    """
    begins[0] = begin
    windows, inside = 1, 0
    if words:
        for at in range(begin, end):
            if keys[at] != new_line:
                if inside == words:
                    begins[windows] = at
                    windows, inside = windows + 1, 0
                inside += 1
        if windows > 1 and 2 * inside < words:
            windows -= 1
    begins[windows] = NEVER
    return windows


@kernel
def score_tokens(data, starts, ends, first, offset, new_line, models, results, words, bare, windows, table, entries, clock):
    """Scores texts: token t is `data[starts[t]:ends[t]]`; text i has the tokens from `first[i]` up to `first[i + 1]`.

    The kernel fills `windows`, int64 (all texts + 1,), from text `offset` on: text i has the windows from `windows[i]` up to
    `windows[i + 1]`. It also fills each model's result, float32 (windows, labels), at the address in `results`.
    """
    data, starts, ends, first = borrowed(data), borrowed(starts), borrowed(ends), borrowed(first)
    models, results, table, entries = borrowed(models), borrowed(results), borrowed(table), borrowed(entries)
    longest, most = 0, 0
    for at in range(first[0], first[-1]):
        longest = max(longest, ends[at] - starts[at])
    for text in range(first.size - 1):
        most = max(most, first[text + 1] - first[text])
    keys = np.empty(first[-1], np.uint64)
    for at in range(first[0], first[-1]):
        keys[at] = hash_token(data, starts[at], ends[at])
    token, found = np.empty(longest + 2, np.int8), np.empty(FOUND_ROWS + models[:, LONGEST].max() + 2, np.int64)
    wide, count = -(-models[:, DIM].max() // BLOCK) * BLOCK, models.shape[0]
    total, values = np.empty(wide), np.empty(max(models[:, LABELS].max(), models[:, NODES].max()))
    hidden = np.zeros((count, wide))
    running = np.zeros((count, max(models[:, WORD_NGRAMS].max() - 1, 1)), np.uint64)
    begins = np.empty(most + 2, np.int64)
    state, counts, window = np.zeros((count, 2), np.int64), np.zeros(count, np.int64), np.zeros(count, np.int64)
    slots = np.empty(CHUNK, np.int64)
    for text in range(first.size - 1):
        begin, end = first[text], first[text + 1]
        before = windows[offset + text]
        windows[offset + text + 1] = before + cut_windows(keys, begin, end, words, new_line, begins)
        window[:] = 0
        while begin < end:
            clock[0] += np.uint32(1)
            stop = begin + find_entries(
                data, starts, ends, keys, begin, min(begin + CHUNK, end), clock[0], models, table, entries, token, found, total, slots
            )
            for number in range(count):
                model = borrowed(models[number])
                at = begin
                while at < stop:
                    if at == begins[window[number] + 1]:
                        scores = results[number] + (before + window[number]) * model[LABELS] * FLOAT
                        finish_window(model, bare, running[number], state[number], found, hidden[number], counts[number], values, scores)
                        counts[number] = 0
                        window[number] += 1
                    to = min(stop, begins[window[number] + 1])
                    counts[number] += add_tokens(
                        slots, at - begin, to - begin, number, model, entries, running[number], state[number], found,
                        hidden[number].ctypes.data,
                    )  # fmt: skip
                    at = to
            begin = stop
        for number in range(count):
            model = borrowed(models[number])
            scores = results[number] + (before + window[number]) * model[LABELS] * FLOAT
            finish_window(model, bare, running[number], state[number], found, hidden[number], counts[number], values, scores)
            counts[number] = 0


# ---- Scores from a text's hidden vector (`Loss::predict`, `HierarchicalSoftmaxLoss::dfs`)

NOT_LISTED = np.float32(-1.0)  # the label is too improbable, so fastText does not list it
UNKNOWN = np.float32(-2.0)  # the text has no word or n-gram of the model
MINIMUM = np.float32(np.log(1e-5))  # fastText's logarithm of the probability 0


@kernel
def output_scores(hidden, output, children, loss, values, scores):
    """Computes the scores of all labels from the hidden vector (fastText's `Loss::predict` and `HierarchicalSoftmaxLoss::dfs`)."""
    labels = output.shape[1]
    values[:] = 0.0
    for row in range(hidden.size):
        for column in range(labels):
            values[column] += hidden[row] * output[row, column]
    if loss == HIERARCHICAL:
        tree_scores(values, children, scores)
    elif loss == SOFTMAX:
        values[:labels] = np.exp(values[:labels] - values[:labels].max())
        scores[:] = values[:labels] / values[:labels].sum() + 1e-5
    else:
        for label in range(labels):
            scores[label] = table_sigmoid(np.float32(values[label])) + 1e-5


@kernel
def table_sigmoid(value):
    """fastText's sigmoid, which reads it from a table of 512 values between -8 and 8."""
    if value < -8:
        return 0.0
    if value > 8:
        return 1.0
    return 1.0 / (1.0 + np.exp(8.0 - np.int64((value + np.float32(8)) * np.float32(32)) / 32))


@kernel
def tree_scores(values, children, scores):
    """Computes the probabilities of labels from the root of the tree down, by logarithms that are rounded as in fastText.

    Improbable subtrees are left out.
    """
    labels = scores.size
    logs = np.full(children.shape[0], -np.inf, np.float32)
    logs[children.shape[0] - 1] = 0.0
    for node in range(children.shape[0] - 1, labels - 1, -1):  # a child has a lower number than its parent
        if logs[node] >= MINIMUM:
            right = np.float32(1.0 / (1.0 + np.exp(-values[node - labels])))
            logs[children[node, 0]] = logs[node] + np.float32(np.log(np.float32(1.0 - right) + 1e-5))
            logs[children[node, 1]] = logs[node] + np.float32(np.log(right + 1e-5))
    for label in range(labels):
        if logs[label] >= MINIMUM:
            scores[label] = np.exp(logs[label])


# ---- The rows of a token (its word's and its character n-grams'), and the rows of word n-grams
#
# Source: `Dictionary::addSubwords`, `computeSubwords`, `pushHash`, `addWordNgrams` of fastText 0.9.2. The kernels get a model as a row of
# numbers (`_model_rows`): its settings, and the addresses of its arrays.

#: Settings in a model's row.
SHORTEST, LONGEST, BUCKET_COUNT, WORD_COUNT, WORD_NGRAMS, EOS, LOSS, LABELS, DIM, NODES = range(10)
#: Then the addresses of the model's arrays, the size of the table of words, and the place of its sums in an entry (in items of four bytes).
WORDS, WORD_ROWS, WORDS_SIZE, BUCKETS, ROWS, OUTPUT, CHILDREN, PLACE = range(10, 18)
NUMBERS = 18
BEGIN, END = 0x3C, 0x3E  # marks of a token's begin and end: < and >
FNV_START, FNV_FACTOR = np.uint32(2166136261), np.uint32(16777619)
NGRAM_FACTOR = np.uint64(116049371)
FOUND_ROWS = 1024  # number of n-gram rows that wait to be added together
IGNORED = np.uint32(1 << 31)  # instead of a number of rows: the model ignores this token
CACHE_LINE = 64
INT32, UINT64 = np.zeros(0, np.int32), np.zeros(0, np.uint64)  # types for `array_at`


@kernel
def sum_token(data, start, end, key, model, token, size, found, total):
    """Adds a token's rows to the float64 sum at the address `total`; returns the number of rows, or IGNORED.

    `token` int8: the token between its marks of begin and end, `size` bytes.
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
    """One step of 32-bit FNV-1a as in fastText, which treats bytes above 127 as negative."""
    return np.uint32((value ^ np.uint32(np.int32(byte))) * FNV_FACTOR)


@kernel
def fnv(token, start, end):
    value = FNV_START
    for at in range(start, end):
        value = fnv_step(value, token[at])
    return value


@kernel
def add_ngrams(token, size, model, found, waiting, total):
    """Adds the waiting rows and the rows of a token's character n-grams; returns the number of rows.

    The marks of begin and end count as characters.
    """
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
    """Converts a 32-bit hash as fastText does: to int32, then to 64 bits."""
    return np.uint64(np.int64(np.int32(np.uint32(value))))


@kernel
def find_word_ngrams(value, running, state, model, found, waiting):
    """Writes the row addresses of the word n-grams that end in this token to `found`, from `waiting` on; returns the place after them.

    `running` uint64: the hashes of the n-grams that begin in earlier tokens. `state` int64: `(tokens, place of the oldest)`.
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


# ---- Rows of single precision are added to sums of double precision
#
# Both are given by addresses (int64): rows of a mapped file need not be aligned, and one kernel adds the rows of many models. Rows are
# added one after another, each column by itself. So a sum does not depend on how many columns fit into a register, nor on how the list of
# rows is divided.

BLOCK = 16  # number of columns that are added at once
FLOAT, DOUBLE = 4, 8  # bytes


def _adder(width):
    """Returns an intrinsic `(total, rows, count, skip)`.

    It adds `width` columns of `count` rows to `total`. The addresses of the rows lie at `rows`; each row's first column is `skip` bytes
    after its address.
    """

    @intrinsic
    def add(typing_context, total, rows, count, skip):
        def generate(context, builder, _, arguments):
            total, rows, count, skip = arguments
            kind = ir.VectorType(ir.DoubleType(), width)
            place = builder.inttoptr(total, kind.as_pointer())
            addresses = builder.inttoptr(rows, ir.IntType(64).as_pointer())
            sums = cgutils.alloca_once_value(builder, builder.load(place, align=1))
            with cgutils.for_range(builder, count) as loop:
                address = builder.add(builder.load(builder.gep(addresses, [loop.index])), skip)
                row = builder.load(builder.inttoptr(address, ir.VectorType(ir.FloatType(), width).as_pointer()), align=1)
                builder.store(builder.fadd(builder.load(sums), builder.fpext(row, kind)), sums)
            builder.store(builder.load(sums), place, align=1)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64, types.int64), generate

    return add


_add_blocks, _add_fours, _add_ones = _adder(BLOCK), _adder(4), _adder(1)


@intrinsic
def _round_block(typing_context, row, total):
    def generate(context, builder, _, arguments):
        sums = builder.load(builder.inttoptr(arguments[1], ir.VectorType(ir.DoubleType(), BLOCK).as_pointer()), align=1)
        rounded = builder.fptrunc(sums, ir.VectorType(ir.FloatType(), BLOCK))
        builder.store(rounded, builder.inttoptr(arguments[0], rounded.type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@kernel(inline="always")
def add_rows(total, rows, count, columns):
    """Adds float32 rows to the float64 sum at `total`: those at the first `count` addresses in `rows`."""
    addresses, column = rows.ctypes.data, 0
    while column + BLOCK <= columns:
        _add_blocks(total + column * DOUBLE, addresses, count, column * FLOAT)
        column += BLOCK
    while column + 4 <= columns:
        _add_fours(total + column * DOUBLE, addresses, count, column * FLOAT)
        column += 4
    while column < columns:
        _add_ones(total + column * DOUBLE, addresses, count, column * FLOAT)
        column += 1


@kernel(inline="always")
def round_row(row, total, columns):
    """Writes the float64 sum at `total` as a float32 row at `row`, BLOCK columns at a time."""
    for column in range(0, columns, BLOCK):
        _round_block(row + column * FLOAT, total + column * DOUBLE)
