# mypy: disallow-untyped-defs=False
"""Scores of the labels of several fastText classifiers over the same texts."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from llvmlite import ir  # a part of numba
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
from corpusmill.pipeline.text.buffers import array_at, borrowed, matrix_at, prefetch
from corpusmill.pipeline.text.hashing import find

#: Memory for the sums of tokens, for each model and at most.
TABLE_BYTES, MOST_TABLE_BYTES = 64 << 20, 256 << 20
#: Text (bytes) that is scored at once, so that its tokens stay in the processor's cache; a longer text is taken whole.
SLICE = 1 << 20


class Unit(NamedTuple):
    """A request: the scores of the labels `first` up to `end` of a model, for windows of `window` words (None: for whole texts).

    `bare`: a window in which the model knows no word gets fastText's scores for the end of a line; without `bare` it gets none.
    """

    model: FastTextModel
    window: int | None
    first: int
    end: int
    bare: bool = False


class TextTokens(NamedTuple):
    """Texts as tokens: token t is `data[starts[t]:ends[t]]`, and those of text i are the tokens from `first[i]` up to `first[i + 1]`."""

    data: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]


class WindowScores(NamedTuple):
    """`scores` float32 (windows, labels): NOT_LISTED or UNKNOWN below 0, where there is none. Text i has
    the rows from `first[i]` up to `first[i + 1]`."""

    first: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


class FastTextScorer:
    """Scores several units over the same tokens, and keeps a table of the tokens' sums. One thread at a time may use it."""

    def __init__(self, units: Sequence[Unit], table_bytes: int | None = None):
        self.units = list(units)
        self.models = list({id(unit.model): unit.model for unit in units}.values())
        places = {id(model): place for place, model in enumerate(self.models)}
        layouts = sorted({unit.window or 0 for unit in units})
        self._layouts = np.array(layouts, np.int64)
        self._model_rows, width = _model_rows(self.models)
        self._units = np.array(
            [(places[id(unit.model)], layouts.index(unit.window or 0), unit.first, unit.end, 0, unit.bare) for unit in units], np.int64
        ).reshape(-1, 6)
        size = min(TABLE_BYTES * len(self.models), MOST_TABLE_BYTES) if table_bytes is None else table_bytes
        sets = max(size // (WAYS * 4 * (2 + width)), 1)
        self._table: npt.NDArray[np.uint64] = np.zeros(sets * WAYS, np.uint64)
        self._entries = _aligned_rows(sets * WAYS + SPARE, width)
        self._clock = np.zeros(1, np.uint32)

    def score(self, slices: Iterator[tuple[int, TextTokens]], texts: int, size: int, new_line: bytes = b"") -> list[WindowScores]:
        """The scores of each unit. `slices`: number of the first text and tokens, of all texts one after the other; `size`: a number of
        tokens that they all together do not exceed. The token `new_line` is no word of a window."""
        windows = np.zeros((len(self._layouts), texts + 1), np.int64)
        most = [texts if not words else texts + size // words for words in self._layouts.tolist()]
        units = self._units.copy()
        found = [np.empty((most[unit[1]], unit[3] - unit[2]), np.float32) for unit in units.tolist()]
        units[:, 4] = [scores.ctypes.data for scores in found]
        key = np.uint64(hash_token(np.frombuffer(new_line, np.uint8), 0, len(new_line)) if new_line else 0)
        for offset, tokens in slices:
            score_tokens(*tokens, offset, key, self._model_rows, units, self._layouts, windows, self._table, self._entries, self._clock)
        return [WindowScores(windows[unit[1]], scores[: windows[unit[1], -1]]) for unit, scores in zip(units.tolist(), found)]


def text_slices(offsets: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """`(first, end)` of runs of texts with SLICE bytes or a little less; at least a text each."""
    start, last = 0, len(offsets) - 1
    while start < last:
        end = max(int(np.searchsorted(offsets, offsets[start] + SLICE, "right")) - 1, start + 1)
        yield start, min(end, last)
        start = min(end, last)


def as_fasttext_reads(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> Iterator[tuple[int, TextTokens]]:
    """The tokens of texts as fastText finds them; newlines are spaces."""
    for start, end in text_slices(offsets):
        part = offsets[start : end + 1]
        room = int(part[-1] - part[0]) // 2 + end - start
        tokens = TextTokens(data, np.empty(room, np.int64), np.empty(room, np.int64), np.empty(end - start + 1, np.int64))
        split_tokens(data, part, *tokens[1:])
        yield start, tokens


def _model_rows(models: Sequence[FastTextModel]) -> tuple[npt.NDArray[np.int64], int]:
    """What the kernels know of models, a row each , and the number of items of an entry of the table."""
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
    """Rows of zeros of which each begins at a cache line's border (`width` is a multiple of 16)."""
    memory = np.zeros(count * width + BLOCK, np.uint32)
    skip = -memory.ctypes.data // 4 % BLOCK
    return memory[skip : skip + count * width].reshape(count, width)


# ---- The kernel. It is many times faster than fastText, as it keeps the sums of each token's rows
#
# A text's hidden vector is the mean of the rows of all its tokens' words and character n-grams, and of its word n-grams
# (`Dictionary::getLine`, `Model::computeHidden` of fastText 0.9.2). Tokens repeat, so their sums are kept in a table of bounded size, those
# of all models side by side; a text is read once for all of them. What is in the table changes speed alone: a token's sum is made in one
# order, and sums are added in the text's order.

WAYS = 4  # places in the table for a token
KEPT_BYTES = 48  # longer tokens hardly ever come twice
CHUNK = 256  # tokens that are looked up before their sums are added
SPARE = 64  # entries for tokens that are not kept
#: Items (of four bytes) at the start of an entry: `fnv`, number of the chunk that used it last; then each model's number of rows.
HASH, USED, COUNTS = 0, 1, 2
EOS_HASH = np.uint64(3617362777)  # `fnv` of `</s>`
#: What a unit is: a model, a way of cutting windows, and which labels are asked for. Items of its row:
MODEL, LAYOUT, FIRST_LABEL, END_LABEL, RESULT, BARE = range(6)
NEVER = 1 << 62
FLOAT32 = np.zeros(0, np.float32)  # a type for `matrix_at`


@kernel
def find_entries(data, starts, ends, keys, begin, end, chunk, models, table, entries, token, found, total, slots):
    """The entries of the tokens from `begin` up to `end` into `slots` (int64); returns how many have one before the spare ones run out."""
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
    """The place to give up for another token: one that is free, or that was not used for longest; -1 where this chunk uses all."""
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
    """Makes a token's sums for all models."""
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
    """Adds the sums of the tokens `slots[begin:end]` and the rows of their word n-grams to the float64 sum at the address `hidden`.

    Returns the number of rows.
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
def finish_window(unit, model, running, state, found, hidden, count, values, listed, place):
    """Adds the end of the line and writes the scores of the unit's labels as row `place` of its result, NOT_LISTED for those that fastText
    does not list, and clears what was summed up.

    Where there is nothing but the end of the line, they are UNKNOWN, unless the unit is asked for what fastText makes of that.
    """
    known, waiting = count > 0 or unit[BARE], 0
    if model[EOS] >= 0:
        found[0], waiting = model[ROWS] + model[EOS] * model[DIM] * FLOAT, 1
    if model[WORD_NGRAMS] > 1:
        waiting = find_word_ngrams(signed(EOS_HASH), running, state, model, found, waiting)
    add_rows(hidden.ctypes.data, found, waiting, model[DIM])
    count += waiting
    listed = listed[: model[LABELS]]
    listed[:] = NOT_LISTED if known and count else UNKNOWN
    if known and count:
        vector = hidden[: model[DIM]]
        vector /= count
        output = matrix_at(np.uint64(model[OUTPUT]), model[DIM], model[LABELS], FLOAT32)
        children = matrix_at(np.uint64(model[CHILDREN]), model[NODES], 2, INT32)
        output_scores(vector, output, children, model[LOSS], values, listed)
    width = unit[END_LABEL] - unit[FIRST_LABEL]
    scores = array_at(np.uint64(unit[RESULT] + place * width * FLOAT), width, FLOAT32)
    scores[:] = listed[unit[FIRST_LABEL] : unit[END_LABEL]]
    hidden[:] = 0.0
    state[:] = 0


@kernel
def cut_windows(keys, begin, end, words, new_line, begins):
    """Where the windows of a text begin, of which the tokens are those from `begin` up to `end`, into `begins`; returns their number.

    A window begins with every so manyth word; what is left at the end is a window of its own where it has half as many words or more,
    else it belongs to the window before. Each text has a window, if an empty one. A token with the key `new_line` is no word; `words`
    0: the text is one window.
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
def score_tokens(data, starts, ends, first, offset, new_line, models, units, layouts, windows, table, entries, clock):
    """Scores texts: the tokens of text i are those from `first[i]` up to `first[i + 1]`, and a token is `data[starts[t]:ends[t]]`.

    A layout is the number of words of a window, 0 for the whole text. Fills `windows` int64 (layouts, all texts + 1) from text `offset` on:
    text i has the windows from `windows[layout, i]` up to the next; and the unit's result, float32 (windows, labels that are asked for).
    """
    data, starts, ends, first = borrowed(data), borrowed(starts), borrowed(ends), borrowed(first)
    models, units, table, entries = borrowed(models), borrowed(units), borrowed(table), borrowed(entries)
    longest, most = 0, 0
    for at in range(first[0], first[-1]):
        longest = max(longest, ends[at] - starts[at])
    for text in range(first.size - 1):
        most = max(most, first[text + 1] - first[text])
    keys = np.empty(first[-1], np.uint64)
    for at in range(first[0], first[-1]):
        keys[at] = hash_token(data, starts[at], ends[at])
    token, found = np.empty(longest + 2, np.int8), np.empty(FOUND_ROWS + models[:, LONGEST].max() + 2, np.int64)
    wide, labels = -(-models[:, DIM].max() // BLOCK) * BLOCK, max(models[:, LABELS].max(), models[:, NODES].max())
    total, values, listed = np.empty(wide), np.empty(labels), np.empty(labels, np.float32)
    hidden = np.zeros((units.shape[0], wide))
    running = np.zeros((units.shape[0], max(models[:, WORD_NGRAMS].max() - 1, 1)), np.uint64)
    begins = np.empty((len(layouts), most + 2), np.int64)
    state, counts, window = np.zeros((units.shape[0], 2), np.int64), np.zeros(units.shape[0], np.int64), np.zeros(units.shape[0], np.int64)
    slots = np.empty(CHUNK, np.int64)
    for text in range(first.size - 1):
        begin, end = first[text], first[text + 1]
        for layout in range(len(layouts)):
            cut = cut_windows(keys, begin, end, layouts[layout], new_line, begins[layout])
            windows[layout, offset + text + 1] = windows[layout, offset + text] + cut
        window[:] = 0
        while begin < end:
            clock[0] += np.uint32(1)
            stop = begin + find_entries(
                data, starts, ends, keys, begin, min(begin + CHUNK, end), clock[0], models, table, entries, token, found, total, slots
            )
            for number in range(units.shape[0]):
                unit = units[number]
                model, layout = borrowed(models[unit[MODEL]]), unit[LAYOUT]
                at = begin
                while at < stop:
                    if at == begins[layout, window[number] + 1]:
                        place = windows[layout, offset + text] + window[number]
                        finish_window(
                            unit, model, running[number], state[number], found, hidden[number], counts[number], values, listed, place
                        )
                        counts[number] = 0
                        window[number] += 1
                    to = min(stop, begins[layout, window[number] + 1])
                    counts[number] += add_tokens(
                        slots, at - begin, to - begin, unit[MODEL], model, entries, running[number], state[number], found,
                        hidden[number].ctypes.data,
                    )  # fmt: skip
                    at = to
            begin = stop
        for number in range(units.shape[0]):
            unit = units[number]
            place = windows[unit[LAYOUT], offset + text] + window[number]
            model = borrowed(models[unit[MODEL]])
            finish_window(unit, model, running[number], state[number], found, hidden[number], counts[number], values, listed, place)
            counts[number] = 0


# ---- Scores from a text's hidden vector (`Loss::predict`, `HierarchicalSoftmaxLoss::dfs`)

NOT_LISTED = np.float32(-1.0)  # a label without a chance
UNKNOWN = np.float32(-2.0)  # all labels of a text with nothing that the model knows
MINIMUM = np.float32(np.log(1e-5))  # fastText's log of probability 0


@kernel
def output_scores(hidden, output, children, loss, values, scores):
    """Scores of all labels from the hidden vector (`Loss::predict` and `HierarchicalSoftmaxLoss::dfs` of fastText)."""
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
    """fastText's sigmoid: from a table of 512 values between -8 and 8."""
    if value < -8:
        return 0.0
    if value > 8:
        return 1.0
    return 1.0 / (1.0 + np.exp(8.0 - np.int64((value + np.float32(8)) * np.float32(32)) / 32))


@kernel
def tree_scores(values, children, scores):
    """Logarithms of the probabilities from the root down, rounded as fastText's; subtrees without a chance are left out."""
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


# ---- The rows of a token (its word's and its character n-grams'), and of word n-grams
#
# Source: `Dictionary::addSubwords`, `computeSubwords`, `pushHash`, `addWordNgrams` of fastText 0.9.2. A model is a row of numbers here
# (`_model_rows`): its settings, and the addresses of its arrays.

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


# ---- Rows of single precision are added to sums of double precision
#
# Both lie at addresses (int64), since rows of a mapped file need not be aligned, and one kernel adds rows of many models. Rows are added
# one after another, each column by itself: a sum is the same however many columns fit into a register, wherever the list of rows is cut.

BLOCK = 16  # columns that are added at once
FLOAT, DOUBLE = 4, 8  # bytes


def _adder(width):
    """An intrinsic of `(total, rows, count, skip)`: adds `width` columns of the `count` rows whose addresses lie at `rows`."""

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
    """Adds float32 rows to the float64 sum at `total`: the first `count` of the addresses in `rows`."""
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
    """Writes the float64 sum at `total` as a float32 row at `row`. Whole blocks are written."""
    for column in range(0, columns, BLOCK):
        _round_block(row + column * FLOAT, total + column * DOUBLE)
