# mypy: disallow-untyped-defs=False
"""Trains byte-level BPE on counted words: finds the same merges as `tokenizers.trainers.BpeTrainer`, with a few arrays as its state.

Training merges the most frequent pair of neighbouring tokens into one token, again and again. The words, as tokens, are the only state
(`fill_slots`). A table holds the pairs that occur at least a certain number of times. When it runs empty, that number is lowered and the
table is built anew, so memory holds the words and only the pairs that may be merged soon.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.interrupts import held_interrupts
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.special_tokens import SPECIAL_TOKENS
from corpusmill.pipeline.token_bytes import byte_characters
from corpusmill.text.buffers import text_buffers
from corpusmill.text.hashing import BASE, mix64
from corpusmill.tokenize.words import grown, splitter

#: Among equally frequent pairs, `ids` merges the one with the smallest ids, as `tokenizers` does; `bytes` the one with the greatest bytes.
Ties = Literal["ids", "bytes"]
#: The table holds pairs that are at most this many times rarer than the most frequent pair.
FALL = 16
#: Each pair adds its count to one of SUMS sums, chosen by a hash (`compact`). A small sum proves that all its pairs are rare.
SUMS = 1 << 19
#: Merges between two updates of the progress and checks for Ctrl-C.
CHUNK = 1000
MOST_SLOTS = 1 << 32
MOST_COUNT = 1 << 62


class LearnedMerges(NamedTuple):
    """The learned merges: `pairs` int64 [merges, 2], the ids of a merge's left and right token; `counts` int64 [merges], the number of
    occurrences of that pair.

    Merge i makes the id `first + i`.
    """

    first: int
    pairs: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]


class Fixed(NamedTuple):
    """The arrays that never move.

    `slots` and `large` are those of `fill_slots`; `widths` int64 [ids]: the slots that a token of this id spans; `merges` int64 [ids, 3]:
    left id, right id and count of the merge that made each id; `starts` int64 [ids + 1]: where each id's bytes begin in `letters`;
    `changes` int64 [ids, 8]: what a merge does to the pairs of each token (columns: LOST_BEFORE to TOUCHED), zero between merges;
    `touched` int64 [ids]: scratch.
    """

    slots: npt.NDArray[np.int32]
    large: npt.NDArray[np.int64]
    widths: npt.NDArray[np.int64]
    merges: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    changes: npt.NDArray[np.int64]
    touched: npt.NDArray[np.int64]


class GrowingArrays(NamedTuple):
    """The arrays that larger ones replace as they fill: the table of pairs (`tabulate`), the heap, and the events of one merge."""

    table: npt.NDArray[np.int32]
    pairs: npt.NDArray[np.int64]
    positions: npt.NDArray[np.uint32]
    heap: npt.NDArray[np.int64]
    letters: npt.NDArray[np.uint8]
    events: npt.NDArray[np.int64]


#: Places in `state`, int64: the numbers of pairs in the table, of reserved positions, and of entries in the heap; the next new id.
KNOWN, WRITTEN, SIZE, TOKEN = range(4)


def train(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    byte_ids: Sequence[int],
    vocabulary_size: int,
    minimum_frequency: int = 2,
    ties: Ties = "ids",
    progress: Callable[[int], None] = lambda merges: None,
) -> LearnedMerges:
    """Merges until there are `vocabulary_size` ids, or no pair that occurs `minimum_frequency` times.

    Word i is `data[offsets[i]:offsets[i + 1]]` and occurs `counts[i]` times (1 or more). `byte_ids` are the ids of the 256 bytes; new ids
    follow the greatest of them. `progress` is called with the number of merges since its last call. Raises InputError if there are
    too many words.
    """
    least = max(minimum_frequency, 1)
    first = max(byte_ids) + 1
    fixed, letters = _arrays(data, offsets, counts, byte_ids, max(vocabulary_size, first))
    used, state = len(fixed.slots), np.zeros(4, np.int64)
    state[TOKEN] = first
    bound = MOST_COUNT
    with held_interrupts() as look:
        while state[TOKEN] < vocabulary_size and bound > least:
            sums = np.zeros(SUMS, np.int64)
            used = compact(fixed.slots, fixed.large, used, fixed.widths, sums)
            fixed.widths[:] = 1
            bound = max(least, min(bound, int(sums.max())) // FALL)
            look()
            growing = _table(fixed, used, sums, bound, state, letters, ties)
            while state[SIZE] and state[TOKEN] < vocabulary_size:
                look()
                before = state[TOKEN]
                growing = merge_pairs(fixed, growing, state, bound, min(vocabulary_size, before + CHUNK), ties == "bytes")
                progress(int(state[TOKEN] - before))
            letters = growing.letters
    made = fixed.merges[first : state[TOKEN]]
    return LearnedMerges(first, made[:, :2].copy(), made[:, 2].copy())


def _arrays(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], byte_ids: Sequence[int], ids: int
) -> tuple[Fixed, npt.NDArray[np.uint8]]:
    """Returns the arrays of training, filled with the words, and `letters`: the bytes of all tokens, at first the single bytes."""
    size = slots_needed(offsets)
    if size >= MOST_SLOTS:
        raise InputError(f"tokenizer: the sample has {len(counts):,} different words, too many to train on: lower tokenizer.sample.mb.")
    slots = np.empty((size, 2), np.int32)
    large = fill_slots(data, offsets, counts, np.array(byte_ids, np.int32), slots)
    starts = np.zeros(ids + 1, np.int64)
    starts[np.array(byte_ids) + 1] = 1
    np.cumsum(starts, out=starts)
    letters = np.argsort(np.array(byte_ids)).astype(np.uint8)
    scratch = np.zeros((ids, 8), np.int64), np.zeros(ids, np.int64)
    return Fixed(slots, large, np.ones(ids, np.int64), np.zeros((ids, 3), np.int64), starts, *scratch), letters


def _table(
    fixed: Fixed,
    used: int,
    sums: npt.NDArray[np.int64],
    bound: int,
    state: npt.NDArray[np.int64],
    letters: npt.NDArray[np.uint8],
    ties: Ties,
) -> GrowingArrays:
    """Returns the table of pairs that occur at least `bound` times, with their positions, and the heap over them."""
    index, pairs = np.full(1 << 12, -1, np.int32), np.empty((1 << 10, FIELDS), np.int64)
    index, pairs, known, positions = tabulate(fixed.slots, fixed.large, used, sums, bound, index, pairs)
    heap, size = make_heap(pairs, known, bound, ties == "bytes", fixed.starts, letters)
    state[KNOWN], state[WRITTEN], state[SIZE] = known, len(positions), size
    return GrowingArrays(index, pairs, positions, heap, letters, np.empty((1 << 10, 2), np.int64))


# ---- the tokenizer made of the learned merges ------------------------------------------------------------


def train_bpe(
    counts: pa.Table,
    vocabulary_size: int,
    minimum_frequency: int,
    regex: str,
    special_tokens: Sequence[str] = SPECIAL_TOKENS,
    ties: Ties = "ids",
    progress: Callable[[int], None] = lambda merges: None,
) -> Any:
    """Trains and returns a `tokenizers.Tokenizer`: the special tokens as ids 0, 1, ..., then the 256 bytes, then the merges.

    `counts` has the columns `word` and `count`; a word may have several rows. `progress` is called with the number of merges since its
    last call. Raises InputError if the words give too few merges for the vocabulary.
    """
    characters = byte_characters()
    tokens = [*special_tokens, *sorted(characters)]  # as `tokenizers` orders them
    ids = {token: number for number, token in enumerate(tokens)}
    data, offsets = text_buffers(counts["word"])
    number = counts["count"].to_numpy()
    merges = train(data, offsets, number, [ids[c] for c in characters], vocabulary_size, minimum_frequency, ties, progress)
    reached = merges.first + len(merges.pairs)
    if reached < vocabulary_size:
        raise InputError(
            f"tokenizer: the sample supports a vocabulary of {reached}, not of {vocabulary_size}: "
            f"lower it (--set tokenizer.vocab_size={reached}; 512 is the least), or give more documents."
        )
    pairs = []
    for left, right in merges.pairs.tolist():
        pairs.append((tokens[left], tokens[right]))
        tokens.append(tokens[left] + tokens[right])
    if len(set(tokens)) != len(tokens):
        learned = next(token for token in special_tokens if tokens.count(token) > 1)
        raise InputError(f"tokenizer: the special token {learned!r} was learned as a word of the sample: put marks around it.")
    return make_tokenizer(tokens, pairs, regex, special_tokens)


def make_tokenizer(tokens: Sequence[str], merges: Sequence[tuple[str, str]], regex: str, special_tokens: Sequence[str]) -> Any:
    """Returns a byte-level BPE tokenizer of these tokens, in the order of their ids. `regex` cuts text into pieces."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, list(merges)))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special_tokens])
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([splitter(regex), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


# ---- kernels: the loop of training -----------------------------------------------------------------------
#
# The algorithm is `BpeTrainer::do_train` of `tokenizers`. A count in the heap may be out of date; this is noticed when its pair comes to
# the top. Counts are int64 here and int32 there. No two different pairs merge into the same string: between two token borders the same text
# is always merged in the same way. So each merge makes a new token, and a pair's count never grows after the merge that made the pair.


#: Columns of `changes`, int64 [ids, 8], which describe what one merge does to the pairs of token `id`: occurrences lost by (id, left) and
#: by (right, id); occurrences gained by (id, new) and by (new, id); the number of places of each gain; whether any of these is set.
LOST_BEFORE, LOST_AFTER, NEW_BEFORE, NEW_AFTER, PLACES_BEFORE, PLACES_AFTER, TOUCHED = range(7)


@kernel
def _greater_bytes(one, other, starts, letters):
    """Compares the bytes of two tokens: -1, 0 or 1."""
    first, second = starts[one], starts[other]
    while first < starts[one + 1] and second < starts[other + 1]:
        if letters[first] != letters[second]:
            return 1 if letters[first] > letters[second] else -1
        first, second = first + 1, second + 1
    return np.int64(first < starts[one + 1]) - np.int64(second < starts[other + 1])


@kernel
def _before(one_count, one, other_count, other, pairs, by_bytes, starts, letters):
    """Whether pair `one` is merged before `other`: the more frequent first, then smaller ids or greater bytes."""
    if one_count != other_count:
        return one_count > other_count
    first, second = pairs[one, KEY], pairs[other, KEY]
    if not by_bytes:
        return first < second
    order = _greater_bytes(first >> 32, second >> 32, starts, letters)
    if order == 0:
        order = _greater_bytes(first & 0xFFFFFFFF, second & 0xFFFFFFFF, starts, letters)
    return order > 0


@kernel
def sink(heap, size, at, pairs, by_bytes, starts, letters):
    """Moves the entry at `at` down to its place. `heap` is int64 [.., 2]: a count, which may be out of date, and the number of a pair."""
    count, number = heap[at, 0], heap[at, 1]
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        other = child + 1
        if other < size and _before(heap[other, 0], heap[other, 1], heap[child, 0], heap[child, 1], pairs, by_bytes, starts, letters):
            child = other
        if not _before(heap[child, 0], heap[child, 1], count, number, pairs, by_bytes, starts, letters):
            break
        heap[at, 0], heap[at, 1] = heap[child, 0], heap[child, 1]
        at = child
    heap[at, 0], heap[at, 1] = count, number


@kernel
def _rise(heap, at, pairs, by_bytes, starts, letters):
    """Moves the entry at `at` up to its place."""
    count, number = heap[at, 0], heap[at, 1]
    while at > 0:
        parent = (at - 1) >> 1
        if not _before(count, number, heap[parent, 0], heap[parent, 1], pairs, by_bytes, starts, letters):
            break
        heap[at, 0], heap[at, 1] = heap[parent, 0], heap[parent, 1]
        at = parent
    heap[at, 0], heap[at, 1] = count, number


@kernel
def make_heap(pairs, known, least, by_bytes, starts, letters):
    """Returns `(heap, size)`: the heap of all pairs that occur at least `least` times."""
    heap = np.empty((known + 16, 2), np.int64)
    size = 0
    for number in range(known):
        if pairs[number, COUNT] >= least:
            heap[size, 0], heap[size, 1] = pairs[number, COUNT], number
            size += 1
    for at in range(size // 2 - 1, -1, -1):
        sink(heap, size, at, pairs, by_bytes, starts, letters)
    return heap, size


@kernel(inline="always")
def _touch(changes, touched, many, token):
    """Adds a token to `touched`, the tokens whose pairs this merge changes, unless it is there. Returns the new length of the list."""
    if changes[token, TOUCHED] == 0:
        changes[token, TOUCHED] = 1
        touched[many] = token
        many += 1
    return many


@kernel
def _merge_places(places, slots, large, widths, left, right, new, changes, touched, events):
    """Merges a pair wherever it still stands. Returns `(many, seen, events)`: the number of touched tokens, the number of events, the
    events.

    An event (int64 [.., 2]: `2 * token + after`, slot) records that a new pair begins at the slot: (new, token) if `after`, else (token,
    new).
    """
    many = seen = 0
    left_width, width = widths[left], widths[new]
    for place in places:
        at = np.int64(place)
        middle = at + left_width
        if slots[at, 0] != left or slots[middle, 0] != right:
            continue
        if seen + 2 > events.shape[0]:
            events = grown(events, 2 * events.shape[0])
        count = count_at(slots, large, at)
        before, after = slots[at - 1, 0], slots[at + width, 0]
        if before != END:
            many = _touch(changes, touched, many, before)
            changes[before, NEW_BEFORE] += count
            changes[before, PLACES_BEFORE] += 1
            if before == new:  # merged a moment ago, when the token after it was still `left`
                changes[left, NEW_AFTER] -= count
            else:
                changes[before, LOST_BEFORE] += count
            events[seen, 0], events[seen, 1] = 2 * before, at - widths[before]
            seen += 1
        if after != END:
            many = _touch(changes, touched, many, after)
            changes[after, LOST_AFTER] += count
            changes[after, NEW_AFTER] += count
            changes[after, PLACES_AFTER] += 1
            events[seen, 0], events[seen, 1] = 2 * after + 1, at
            seen += 1
        slots[middle, 0] = INSIDE
        slots[at, 0] = slots[at + width - 1, 0] = new
    return many, seen, events


@kernel
def merge_pairs(fixed, growing, state, least, last, by_bytes):
    """Merges pairs that occur at least `least` times until there are `last` ids, or no such pair is left.

    Updates `state` in place and returns the growing arrays, some of which may be new.
    """
    index, pairs, positions, heap, letters, events = growing
    while state[SIZE] and state[TOKEN] < last:
        number = _top(heap, state, pairs, least, by_bytes, fixed.starts, letters)
        if number < 0:
            continue
        new, left, right = state[TOKEN], pairs[number, KEY] >> 32, pairs[number, KEY] & 0xFFFFFFFF
        fixed.merges[new, 0], fixed.merges[new, 1], fixed.merges[new, 2] = left, right, pairs[number, COUNT]
        letters = _append_letters(fixed.starts, letters, new, left, right)
        fixed.widths[new] = fixed.widths[left] + fixed.widths[right]
        places = positions[pairs[number, START] : pairs[number, START] + pairs[number, LENGTH]]
        many, seen, events = _merge_places(
            places, fixed.slots, fixed.large, fixed.widths, left, right, new, fixed.changes, fixed.touched, events
        )
        pairs[number, COUNT] = 0
        touched = fixed.touched[:many]
        _take(index, pairs, left, right, touched, fixed.changes)
        if state[SIZE] + 2 * many > heap.shape[0]:
            heap = grown(heap, 2 * (state[SIZE] + 2 * many))
        index, pairs = _give(index, pairs, heap, state, new, touched, fixed.changes, least, by_bytes, fixed.starts, letters)
        if state[WRITTEN] > positions.size:
            positions = grown(positions, state[WRITTEN] + positions.size // 2)
        _note_positions(pairs, positions, events[:seen], touched, fixed.changes)
        state[TOKEN] += 1
    return GrowingArrays(index, pairs, positions, heap, letters, events)


@kernel
def _top(heap, state, pairs, least, by_bytes, starts, letters):
    """Returns the pair at the top of the heap; -1 where its count was out of date, which is then corrected."""
    number = heap[0, 1]
    current = heap[0, 0] == pairs[number, COUNT]
    heap[0, 0] = pairs[number, COUNT]
    if current or heap[0, 0] < least:
        state[SIZE] -= 1
        heap[0, 0], heap[0, 1] = heap[state[SIZE], 0], heap[state[SIZE], 1]
    if state[SIZE]:
        sink(heap, state[SIZE], 0, pairs, by_bytes, starts, letters)
    return number if current else -1


@kernel
def _take(index, pairs, left, right, touched, changes):
    """Subtracts from the counts of pairs the occurrences that a merge has removed."""
    for other in touched:
        for column, key in ((LOST_BEFORE, pair_key(other, left)), (LOST_AFTER, pair_key(right, other))):
            if changes[other, column]:
                number = find_pair(index, pairs, key)
                if number >= 0:
                    pairs[number, COUNT] -= changes[other, column]
                changes[other, column] = 0


@kernel
def _give(index, pairs, heap, state, new, touched, changes, least, by_bytes, starts, letters):
    """Enters the new pairs that are frequent enough. The PLACES columns of `changes` become the pairs' numbers, -1 for rare ones."""
    for other in touched:
        for after in range(2):
            count, places = changes[other, NEW_BEFORE + after], changes[other, PLACES_BEFORE + after]
            changes[other, NEW_BEFORE + after], changes[other, PLACES_BEFORE + after] = 0, -1
            if count < least:
                continue
            number = state[KNOWN]
            index, pairs = with_capacity(index, pairs, number)
            key = pair_key(new, other) if after else pair_key(other, new)
            index[-1 - find_pair(index, pairs, key)] = number
            pairs[number, KEY], pairs[number, COUNT], pairs[number, START], pairs[number, LENGTH] = key, count, state[WRITTEN], 0
            changes[other, PLACES_BEFORE + after] = number
            heap[state[SIZE], 0], heap[state[SIZE], 1] = count, number
            _rise(heap, state[SIZE], pairs, by_bytes, starts, letters)
            state[KNOWN] += 1
            state[WRITTEN] += places
            state[SIZE] += 1
    return index, pairs


@kernel
def _note_positions(pairs, positions, events, touched, changes):
    """Writes the positions of the new pairs, and resets `changes` to zero."""
    for event in range(events.shape[0]):
        number = changes[events[event, 0] >> 1, PLACES_BEFORE + (events[event, 0] & 1)]
        if number >= 0:
            positions[pairs[number, START] + pairs[number, LENGTH]] = events[event, 1]
            pairs[number, LENGTH] += 1
    for other in touched:
        changes[other, PLACES_BEFORE] = changes[other, PLACES_AFTER] = changes[other, TOUCHED] = 0


@kernel
def _append_letters(starts, letters, token, left, right):
    """Appends the bytes of a new token to `letters`. Returns `letters`, which may be a larger array."""
    at = starts[token]
    length = starts[left + 1] - starts[left] + starts[right + 1] - starts[right]
    if at + length > letters.size:
        letters = grown(letters, 2 * letters.size + length)
    for part in (left, right):
        for place in range(starts[part], starts[part + 1]):
            letters[at] = letters[place]
            at += 1
    starts[token + 1] = at
    return letters


# ---- words in flat arrays --------------------------------------------------------------------------------
#
# `slots` int32 [.., 2] holds, for each byte of a word, a token and the word's count, then END after each word. A merged token spans as many
# slots as its parts did: its id stands in the first and the last of them, INSIDE at the seam. Counts from LARGE on lie in the array
# `large`; their slots hold `-1 - place` instead.


END, INSIDE = -1, -2
LARGE = 1 << 31

#: Columns of the table of pairs, int64 [pairs, FIELDS].
KEY, COUNT, START, LENGTH, FIELDS = 0, 1, 2, 3, 4


@kernel(inline="always")
def pair_key(left, right):
    """Returns both ids as one number; numbers sort by the left id, then the right one."""
    return np.int64(left) << 32 | np.int64(right)


@kernel(inline="always")
def _hash(key):
    return mix64(mix64(np.uint64(key) * BASE) * BASE)


@kernel(inline="always")
def count_at(slots, large, at):
    """Returns the count of the word to which this slot belongs."""
    weight = np.int64(slots[at, 1])
    return weight if weight >= 0 else large[-1 - weight]


@kernel
def slots_needed(offsets):
    """Returns the number of slots for all words. Words of one byte have no pair and take none."""
    size = 1
    for word in range(offsets.size - 1):
        length = offsets[word + 1] - offsets[word]
        if length > 1:
            size += length + 1
    return size


@kernel
def fill_slots(data, offsets, counts, byte_ids, slots):
    """Writes the words into `slots`, each byte as a token. Returns `large`, the counts that do not fit into a slot."""
    large = np.empty((counts >= LARGE).sum(), np.int64)
    slots[0, 0] = END
    at, known = 1, 0
    for word in range(offsets.size - 1):
        start, end = offsets[word], offsets[word + 1]
        if end - start < 2:
            continue
        weight = counts[word]
        if weight >= LARGE:
            large[known] = weight
            known += 1
            weight = -known
        for place in range(start, end):
            slots[at, 0], slots[at, 1] = byte_ids[data[place]], weight
            at += 1
        slots[at, 0] = END
        at += 1
    return large


@kernel
def compact(slots, large, used, widths, sums):
    """Moves the tokens together, one slot each, and drops words of a single token. Adds the count of each pair to one of the `sums`.

    Returns the number of used slots. `sums` is int64, its size a power of two. A pair's hash chooses its sum, so a sum is at least the
    count of each of its pairs, and a small sum shows that they are all rare.
    """
    mask = np.uint64(sums.size - 1)
    at = out = 1
    while at < used:
        left = slots[at, 0]
        following = at + widths[left]
        if slots[following, 0] == END:
            at = following + 1
            continue
        count, weight = count_at(slots, large, at), slots[at, 1]
        while left != END:
            slots[out, 0], slots[out, 1] = left, weight
            out += 1
            at += widths[left]
            right = slots[at, 0]
            if right != END:
                sums[_hash(pair_key(left, right)) & mask] += count
            left = right
        slots[out, 0] = END
        at, out = at + 1, out + 1
    return out


@kernel(inline="always")
def find_pair(index, pairs, key):
    """Returns the number of a pair in the table; where it has none, -1 minus its place in `index`."""
    mask = np.uint64(index.size - 1)
    place = _hash(key) & mask
    while index[place] >= 0:
        if pairs[index[place], KEY] == key:
            return np.int64(index[place])
        place = (place + np.uint64(1)) & mask
    return -1 - np.int64(place)


@kernel
def with_capacity(index, pairs, known):
    """Returns the table with room for one more pair. At least half of the index stays empty."""
    if known == pairs.shape[0]:
        pairs = grown(pairs, 2 * known)
    if 2 * (known + 1) > index.size:
        index = np.full(2 * index.size, -1, np.int32)
        for number in range(known):
            index[-1 - find_pair(index, pairs, pairs[number, KEY])] = number
    return index, pairs


@kernel
def tabulate(slots, large, used, sums, least, index, pairs):
    """Builds the table of pairs that occur at least `least` times, with their counts and positions. Needs slots after `compact`.

    Returns `(index, pairs, known, positions)`: `pairs` int64 [.., FIELDS], whose first `known` rows are used; `index`, the hash table over
    them; `positions` (uint32), the slots where each pair begins, ascending: LENGTH of them from START on. A pair that shares its sum with
    others may be rarer than `least`; it is in the table, but has no positions.
    """
    mask = np.uint64(sums.size - 1)
    known = 0
    for at in range(1, used - 1):
        left, right = slots[at, 0], slots[at + 1, 0]
        if left == END or right == END:
            continue
        key = pair_key(left, right)
        if sums[_hash(key) & mask] < least:
            continue
        number = find_pair(index, pairs, key)
        if number < 0:
            index, pairs = with_capacity(index, pairs, known)
            number = known
            index[-1 - find_pair(index, pairs, key)] = number
            pairs[number, KEY], pairs[number, COUNT], pairs[number, LENGTH] = key, 0, 0
            known += 1
        pairs[number, COUNT] += count_at(slots, large, at)
        pairs[number, LENGTH] += 1
    total = 0
    for number in range(known):
        pairs[number, START] = total
        if pairs[number, COUNT] >= least:
            total += pairs[number, LENGTH]
        pairs[number, LENGTH] = 0
    positions = np.empty(total, np.uint32)
    for at in range(1, used - 1):
        left, right = slots[at, 0], slots[at + 1, 0]
        if left == END or right == END:
            continue
        key = pair_key(left, right)
        if sums[_hash(key) & mask] < least:
            continue
        number = find_pair(index, pairs, key)
        if pairs[number, COUNT] >= least:
            positions[pairs[number, START] + pairs[number, LENGTH]] = at
            pairs[number, LENGTH] += 1
    return index, pairs, known, positions
