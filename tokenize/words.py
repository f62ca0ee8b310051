# mypy: disallow-untyped-defs=False
"""Counts the pieces that text is cut into ("words" in the language of BPE trainers), and adds up such counts.

Counts are divided into ranges of words by hash, so that the counts of many tasks can be added up range by range.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import text_array, text_buffers
from corpusmill.text.hashing import BASE, mix64
from corpusmill.text.utf8 import count_characters, eight_bytes
from corpusmill.tokenize.patterns import piece_classes, regex_of, rule_of
from corpusmill.tokenize.pieces import ascii_word, next_piece

COUNTS = pa.schema(
    [
        pa.field("language", pa.string()),  # null where the documents have no such column
        pa.field("word", pa.large_string(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
    ]
)
Column: TypeAlias = pa.ChunkedArray | pa.Array
#: Texts that `tokenizers` cuts in one batch.
CUT_AT_ONCE = 256


def splitter(pattern: str) -> Any:
    """Returns the `tokenizers` pre-tokenizer that only cuts text by a pattern (a known name, or a regular expression)."""
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Split(Regex(regex_of(pattern)), "isolated")


class WordCounts:
    """Counts each word in each language. Words of more than LONGEST_WORD characters are left out; `left_out` counts them."""

    def __init__(self) -> None:
        self.languages: dict[str | None, int] = {}
        self.arrays = np.zeros(1 << 15, np.uint64), np.empty((1 << 14, FIELDS), np.int64), np.empty(1 << 17, np.uint8)
        self.state = np.zeros(3, np.int64)

    @property
    def left_out(self) -> int:
        """Occurrences of words that were too long."""
        return int(self.state[LEFT_OUT])

    def __len__(self) -> int:
        return int(self.state[ENTRIES])

    def add_texts(self, texts: Column, languages: Column | None, regex: str) -> None:
        """Counts the pieces of each text: by a kernel where one knows the expression, else by `tokenizers`."""
        rule = rule_of(regex)
        if rule is None:
            self._cut_and_add(texts, languages, regex)
            return
        data, offsets = text_buffers(texts)
        groups = self._groups(languages, len(texts))
        self.arrays = count_texts(*self.arrays, self.state, data, offsets, groups, rule.number, rule.digits, piece_classes())

    def add_words(self, words: Column, languages: Column | None, counts: npt.NDArray[np.int64]) -> None:
        """Adds `counts[i]` to the count of word i."""
        data, offsets = text_buffers(words)
        self.arrays = count_words(*self.arrays, self.state, data, offsets, self._groups(languages, len(words)), counts)

    def _cut_and_add(self, texts: Column, languages: Column | None, regex: str) -> None:
        split = splitter(regex).pre_tokenize_str
        for start in range(0, len(texts), CUT_AT_ONCE):
            cut = [[word for word, _ in split(text)] for text in texts.slice(start, CUT_AT_ONCE).to_pylist()]
            words = pa.array([word for words in cut for word in words], pa.large_string())
            repeated = np.repeat(np.arange(start, start + len(cut)), [len(words) for words in cut])
            self.add_words(words, None if languages is None else languages.take(pa.array(repeated)), np.ones(len(words), np.int64))

    def _groups(self, languages: Column | None, rows: int) -> npt.NDArray[np.int32]:
        """Returns the number of each row's language."""
        if languages is None:
            return np.full(rows, self.languages.setdefault(None, len(self.languages)), np.int32)
        array = languages.combine_chunks() if isinstance(languages, pa.ChunkedArray) else languages
        coded = array.dictionary_encode("encode")
        names = coded.dictionary.to_pylist()
        numbers = np.array([self.languages.setdefault(name, len(self.languages)) for name in names], np.int32)
        return numbers[coded.indices.to_numpy(zero_copy_only=False)] if rows else np.zeros(0, np.int32)

    def tables(self, ranges: int = 1) -> list[pa.Table]:
        """Returns the counts (schema COUNTS), a table for each range of words by hash; words stand in the order of their first
        occurrence."""
        _, entries, letters = self.arrays
        entries = entries[: len(self)]
        found = ranges_of(entries, letters, ranges)
        names = pa.array(list(self.languages), pa.string())
        tables = []
        for number in range(ranges):
            order = np.flatnonzero(found == number)
            languages = names.take(pa.array(entries[order, SHAPE] >> 32)) if len(self) else names.slice(0, 0)
            columns = [languages, text_array(*gather_letters(entries, letters, order)), pa.array(entries[order, COUNT])]
            tables.append(pa.table(columns, schema=COUNTS))
        return tables


# ---- the table of words ----------------------------------------------------------------------------------


#: Longer words (in characters) are left out of training, whose time and memory grow with the length of a word.
LONGEST_WORD = 1 << 20

#: Columns of `entries`, int64 [words, FIELDS]: the word's first eight bytes, where it begins in `letters`, `group << 32 | length in bytes`,
#: and its count.
PREFIX, START, SHAPE, COUNT, FIELDS = 0, 1, 2, 3, 4
#: Places in `state`, int64: number of entries, number of letters, occurrences of words that were too long.
ENTRIES, LETTERS, LEFT_OUT = range(3)
#: Rows of the cache of recent words: a quarter of a megabyte.
RECENT = 1 << 12
_RECENT_SHIFT = np.uint64(64 - 12)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_ZERO, _ONE = np.uint64(0), np.uint64(1)


@kernel(inline="always")
def prefix_of(data, start, end):
    """Returns the first eight bytes of a word as a little-endian integer; a shorter word is padded with zeros."""
    if start + 8 <= data.size:
        value = eight_bytes(data, start)
        length = end - start
        return value if length >= 8 else value & ((_ONE << np.uint64(8 * length)) - _ONE)
    value = np.uint64(0)
    for place in range(start, min(end, start + 8)):
        value |= np.uint64(data[place]) << np.uint64(8 * (place - start))
    return value


@kernel(inline="always")
def hash_word(data, start, end, prefix):
    """Returns a 64-bit hash of the bytes `data[start:end]`; `prefix` is their `prefix_of`."""
    value = mix64((prefix ^ np.uint64(end - start)) * BASE) * BASE
    at = start + 8
    while at < end:
        value = mix64(value ^ prefix_of(data, at, end)) * BASE
        at += 8
    return mix64(value)


@kernel(inline="always")
def _hash_short(first, second, length):
    """Returns `hash_word` of a word of up to 16 bytes, given as two integers of eight bytes."""
    value = mix64((first ^ np.uint64(length)) * BASE) * BASE
    return mix64(mix64(value ^ second) * BASE if length > 8 else value)


@kernel(inline="always")
def _same(data, start, end, letters, at):
    """Whether two words are equal after their first eight bytes."""
    place = start + 8
    at += 8
    while place + 8 < end:
        if eight_bytes(data, place) != eight_bytes(letters, at):
            return False
        place, at = place + 8, at + 8
    return eight_bytes(data, end - 8) == eight_bytes(letters, at - (place - end + 8))


@kernel
def _find(slots, entries, letters, data, start, end, prefix, shape, value):
    """Returns the entry of a word, or -1."""
    mask = np.uint64(slots.size - 1)
    slot = value & mask
    tag = value >> _HALF
    while slots[slot] != 0:
        if slots[slot] >> _HALF == tag:
            entry = (slots[slot] & _LOW) - _ONE
            alike = entries[entry, SHAPE] == shape and entries[entry, PREFIX] == np.int64(prefix)
            if alike and (end - start <= 8 or _same(data, start, end, letters, entries[entry, START])):
                return np.int64(entry)
        slot = (slot + _ONE) & mask
    return -1


@kernel(inline="always")
def _grouped(value, group):
    """Returns the hash of a word in its group. Without the group, a word of many languages would make a long chain of slots."""
    return mix64(value + np.uint64(group) * BASE)


@kernel
def grown(array, size):
    """Returns a copy of the array with room for `size` rows."""
    larger = np.empty((size, *array.shape[1:]), array.dtype)
    larger[: array.shape[0]] = array
    return larger


@kernel
def _set(slots, value, entry):
    mask = np.uint64(slots.size - 1)
    slot = value & mask
    while slots[slot] != 0:
        slot = (slot + _ONE) & mask
    slots[slot] = value >> _HALF << _HALF | np.uint64(entry + 1)


@kernel
def _insert(slots, entries, letters, state, data, start, end, prefix, shape, value):
    """Enters a new word with the hash `value`. Returns the arrays, which may have been replaced by larger ones."""
    number = state[ENTRIES]
    if number == entries.shape[0]:
        entries = grown(entries, 2 * number)
    if state[LETTERS] + end - start > letters.size:
        letters = grown(letters, 2 * letters.size + end - start)
    if 2 * (number + 1) > slots.size:
        slots = np.zeros(4 * slots.size, np.uint64)
        for entry in range(number):
            first = entries[entry, START]
            last = first + (entries[entry, SHAPE] & 0xFFFFFFFF)
            old = hash_word(letters, first, last, np.uint64(entries[entry, PREFIX]))
            _set(slots, _grouped(old, entries[entry, SHAPE] >> 32), entry)
    _set(slots, value, number)
    first = state[LETTERS]
    entries[number, PREFIX], entries[number, START], entries[number, SHAPE], entries[number, COUNT] = np.int64(prefix), first, shape, 0
    for place in range(end - start):
        letters[first + place] = data[start + place]
    state[ENTRIES] += 1
    state[LETTERS] += end - start
    return slots, entries, letters


@kernel
def _add(slots, entries, letters, state, data, start, end, group, count):
    """Adds to the count of a word. Returns the arrays, which may have been replaced by larger ones."""
    if end - start > LONGEST_WORD and count_characters(data, start, end) > LONGEST_WORD:
        state[LEFT_OUT] += count
        return slots, entries, letters
    prefix = prefix_of(data, start, end)
    value = _grouped(hash_word(data, start, end, prefix), group)
    shape = np.int64(group) << 32 | np.int64(end - start)
    found = _find(slots, entries, letters, data, start, end, prefix, shape, value)
    if found < 0:
        found = state[ENTRIES]
        slots, entries, letters = _insert(slots, entries, letters, state, data, start, end, prefix, shape, value)
    entries[found, COUNT] += count
    return slots, entries, letters


@kernel
def _count_known(slots, entries, letters, recent, data, offsets, groups, rule, digits, classes, text, at):
    """Counts pieces from byte `at` of a text on, up to the first that is not in the table. Returns `(text, start, end)` of that piece;
    at the end `text` is the number of texts.

    The loop enters no word, so the arrays stay the same, which makes it fast.
    """
    while text < offsets.size - 1:
        end, group = offsets[text + 1], np.int64(groups[text]) << 32
        while at < end:
            length, first, second = ascii_word(rule, data, at, end)
            if length == 0:
                length = next_piece(rule, data, at, end, classes, digits) - at
                first = prefix_of(data, at, at + length)
                second = prefix_of(data, at + 8, at + length) if 8 < length <= 16 else _ZERO
            short, shape = length <= 16, np.uint64(group | np.int64(length))
            value = _hash_short(first, second, length) if short else hash_word(data, at, at + length, first)
            row = value >> _RECENT_SHIFT
            if short and recent[row, 0] == first and recent[row, 1] == second and recent[row, 2] == shape:
                recent[row, 4] += _ONE
            else:
                found = _find(slots, entries, letters, data, at, at + length, first, np.int64(shape), _grouped(value, groups[text]))
                if found < 0:
                    return text, at, at + length
                entries[recent[row, 3], COUNT] += np.int64(recent[row, 4])
                recent[row, 0], recent[row, 1], recent[row, 2] = first, second, shape
                recent[row, 3], recent[row, 4] = np.uint64(found), _ONE
            at += length
        text += 1
        at = offsets[text]
    return text, at, at


@kernel
def count_texts(slots, entries, letters, state, data, offsets, groups, rule, digits, classes):
    """Counts the pieces of each text `data[offsets[i]:offsets[i + 1]]` of group `groups[i]`, cut as `pieces.next_piece` does.

    Returns `(slots, entries, letters)`, which may have been replaced by larger ones. `recent` caches recent words close to the processor.
    It has one row for all words of a hash: the word as two integers, its shape, its entry, and the count not yet added to the entry.
    """
    recent = np.zeros((RECENT, 8), np.uint64)
    text, at, one = np.int64(0), offsets[0], np.int64(1)  # literal 0 and 1 have other types, for which numba would compile again
    while True:
        text, at, stop = _count_known(slots, entries, letters, recent, data, offsets, groups, rule, digits, classes, text, at)
        if text == offsets.size - 1:
            break
        slots, entries, letters = _add(slots, entries, letters, state, data, at, stop, groups[text], one)
        at = stop
    for row in range(RECENT):
        entries[recent[row, 3], COUNT] += np.int64(recent[row, 4])
    return slots, entries, letters


@kernel
def count_words(slots, entries, letters, state, data, offsets, groups, counts):
    """Adds `counts[i]` to the count of the word `data[offsets[i]:offsets[i + 1]]` in group `groups[i]`. Returns what `count_texts` does."""
    for word in range(offsets.size - 1):
        slots, entries, letters = _add(slots, entries, letters, state, data, offsets[word], offsets[word + 1], groups[word], counts[word])
    return slots, entries, letters


@kernel
def ranges_of(entries, letters, ranges):
    """Returns int64 [words]: the range (0 to `ranges` - 1) of each word's hash, which is the same in every group."""
    found = np.empty(entries.shape[0], np.int64)
    for entry in range(entries.shape[0]):
        first = entries[entry, START]
        last = first + (entries[entry, SHAPE] & 0xFFFFFFFF)
        value = hash_word(letters, first, last, np.uint64(entries[entry, PREFIX]))
        found[entry] = np.int64((value >> _HALF) * np.uint64(ranges) >> _HALF)
    return found


@kernel
def gather_letters(entries, letters, order):
    """Returns `(data, offsets)` of the words of these entries, in the order of `order`."""
    offsets = np.zeros(order.size + 1, np.int64)
    for place in range(order.size):
        offsets[place + 1] = offsets[place] + (entries[order[place], SHAPE] & 0xFFFFFFFF)
    data = np.empty(offsets[-1], np.uint8)
    for place in range(order.size):
        first = entries[order[place], START]
        for step in range(offsets[place + 1] - offsets[place]):
            data[offsets[place] + step] = letters[first + step]
    return data, offsets
