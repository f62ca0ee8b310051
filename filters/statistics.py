# mypy: disallow-untyped-defs=False
"""Statistics of texts that the heuristic steps use, measured for a batch of texts in one pass of compiled kernels."""

from collections import namedtuple
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import longest_text, text_buffers
from corpusmill.text.hashing import cleared, hash_span, insert, table_size
from corpusmill.text.lines import line_duplicates, line_end, only_newlines, paragraph_duplicates
from corpusmill.text.ngrams import duplicate_candidates, duplicated_ngram_characters, top_ngram_characters
from corpusmill.text.utf8 import (
    ALPHA,
    NEWLINE,
    PUNCTUATION,
    character_classes,
    count_byte,
    count_characters,
    decode,
    find_byte,
    previous,
    strip_end,
    strip_start,
)
from corpusmill.text.words import (
    FoundWords,
    base_powers,
    count_words,
    find_words,
    hash_word,
    new_words,
    walk_marked_words,
    walk_words,
    word_rule_classes,
)

#: datatrove's TERMINAL_PUNCTUATION, in the spare bit of the character classes.
TERMINAL = 128

#: Groups of statistics that a step can ask for. A group that no step needs is not measured.
WORD_COUNT, LINES, REPETITION, NEWLINE_LINES = 1, 4, 8, 16
WORDS = 2 | WORD_COUNT  # all statistics of words; they include the number of words

#: The statistics, all int64, in the order of the kernel's output row. The kernel writes them by position (FIRST_OF_WORDS + 1 and so on): a
#: new statistic of words stands after `stop_words`, where `word_statistics` writes it.
NAMES = (
    "characters", "newlines",
    "words", "word_characters", "nonsymbol_words", "nonsymbol_characters", "alpha_words", "stop_words", "hashes", "ellipses",
    "lines", "bullet_lines", "ellipsis_lines",
    "paragraphs", "repeated_paragraphs", "repeated_paragraph_characters",
    "line_runs", "repeated_line_runs", "repeated_line_run_characters",
    "top_2", "top_3", "top_4", "duplicated_5", "duplicated_6", "duplicated_7", "duplicated_8", "duplicated_9", "duplicated_10",
    "filled_lines", "terminal_lines", "short_lines", "repeated_filled_line_characters",
)  # fmt: skip


@dataclass(frozen=True)
class Needs:
    """The statistics that a step needs. None for an option means that any value will do."""

    groups: int = 0
    stop_words: tuple[str, ...] | None = None
    short_line_length: int | None = None

    def covers(self, other: "Needs") -> bool:
        """Whether statistics measured for these needs also serve the needs `other`."""
        return self.groups | other.groups == self.groups and all(
            theirs is None or theirs == mine
            for mine, theirs in ((self.stop_words, other.stop_words), (self.short_line_length, other.short_line_length))
        )

    def joined(self, other: "Needs") -> "Needs":
        """The needs of both, to be measured in one pass; these needs alone if their options conflict."""
        stop_words = other.stop_words if self.stop_words is None else self.stop_words
        short = other.short_line_length if self.short_line_length is None else self.short_line_length
        both = Needs(self.groups | other.groups, stop_words, short)
        return both if both.covers(other) else self


@cache
def datatrove_classes() -> npt.NDArray[np.uint8]:
    """The character classes with datatrove's PUNCTUATION_SET as PUNCTUATION, and its TERMINAL_PUNCTUATION as TERMINAL."""
    from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION

    table = character_classes(frozenset(PUNCTUATION_SET)).copy()
    for character in TERMINAL_PUNCTUATION:
        table[ord(character)] |= TERMINAL
    return table


@cache
def _tables(word_rule: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint64]]:
    return word_rule_classes(word_rule, datatrove_classes()), base_powers()


@cache
def _stop_word_table(stop_words: tuple[str, ...]) -> npt.NDArray[np.uint64]:
    """Returns a hash table (open addressing) of the words' hashes, with so many empty slots that a look-up ends at once."""
    table = np.zeros(32 * table_size(len(stop_words)), np.uint64)
    for word in stop_words:
        insert(table, table.size - 1, hash_word(word))
    return table


class Statistics:
    """The statistics of a batch: `statistics["words"]` is an int64 array with a number for each text.

    Groups that no step needs are zero.
    """

    def __init__(self, values: npt.NDArray[np.int64]):
        self.values = values  # (len(NAMES), texts)

    def __getitem__(self, name: str) -> npt.NDArray[np.int64]:
        column: npt.NDArray[np.int64] = self.values[NAMES.index(name)]
        return column

    def of(self, name: str, below: str | None = None, without: str | None = None) -> npt.NDArray[Any]:
        """Returns a statistic, or its ratio to `below` minus `without`; NaN, which fails no rule, for a division by 0."""
        if below is None:
            return self[name]
        return ratio(self[name], self[below] if without is None else self[below] - self[without])


def ratio(above: Any, below: Any) -> npt.NDArray[np.float64]:
    """`above / below` as Python's `/` gives it, NaN if `below` is 0."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below != 0)


def measure(text: pa.Array | pa.ChunkedArray, word_rule: str, needs: Needs, found: FoundWords | None = None) -> Statistics:
    """Measures the statistics of every text of a column.

    The texts must be valid UTF-8. `word_rule`: one of `text.words`. `found`: their words by this rule, if the caller has them.
    """

    data, offsets = text_buffers(text)
    if not needs.groups & (WORD_COUNT | REPETITION):
        found = find_words("words", data, offsets)
    elif found is None:
        found = find_words(word_rule, data, offsets)
    word_classes, powers = _tables(word_rule)
    stop_words = _stop_word_table(needs.stop_words or ())
    values = np.zeros((len(offsets) - 1, len(NAMES)), np.int64)
    measure_texts(
        data, offsets, found, needs.groups, datatrove_classes(), word_classes, powers, stop_words, needs.short_line_length or 0, values
    )
    return Statistics(np.ascontiguousarray(values.T))


# ---- The kernel: measures the wanted groups of statistics, text by text

# Places in a row of the output.
CHARACTERS, NEWLINES = NAMES.index("characters"), NAMES.index("newlines")
FIRST_OF_WORDS, FIRST_OF_LINES = NAMES.index("words"), NAMES.index("lines")
HASHES, ELLIPSES = NAMES.index("hashes"), NAMES.index("ellipses")
PARAGRAPHS, LINE_RUNS = NAMES.index("paragraphs"), NAMES.index("line_runs")
TOP_2, DUPLICATED_5, FILLED_LINES = NAMES.index("top_2"), NAMES.index("duplicated_5"), NAMES.index("filled_lines")

HASH, DOT, FIRST_OF_ELLIPSIS = np.uint8(0x23), np.uint8(0x2E), np.uint8(0xE2)
HYPHEN, BULLET, ELLIPSIS = 0x2D, 0x2022, 0x2026

#: Working memory, allocated for the longest text of a batch. The system provides its pages only as texts use them.
Scratch = namedtuple("Scratch", "words repeats places slots table stop_seen")


@kernel
def measure_texts(data, offsets, found, groups, classes, word_classes, powers, stop_words, short_line_length, out):
    """Fills `out` (int64, texts x NAMES) for the texts `data[offsets[i]:offsets[i + 1]]`.

    `classes` are the `character_classes`. `found`: the words of the texts (`FoundWords`). `word_classes`: the classes of the word rule.
    """
    longest = max(longest_text(offsets), longest_text(found.offsets))
    scratch = Scratch(
        new_words(longest + 1),
        np.empty(longest + 1, np.uint8),
        np.empty(longest + 1, np.int64),
        np.empty(longest + 1, np.int64),
        np.empty(2 * table_size(longest + 2), np.uint64),
        np.full(stop_words.size, -1, np.int64),
    )
    for text in range(offsets.size - 1):
        start, end, row = offsets[text], offsets[text + 1], out[text]
        row[CHARACTERS] = count_characters(data, start, end)
        row[NEWLINES] = count_byte(data, start, end, NEWLINE)
        if groups & (WORDS | REPETITION) == WORD_COUNT:
            first, last = found.offsets[text], found.offsets[text + 1]
            row[FIRST_OF_WORDS] = found.marks[first:last].sum() if found.marks.size else count_words(data, start, end, word_classes)
        elif groups & (WORDS | REPETITION):
            first, last = found.offsets[text], found.offsets[text + 1]
            if found.marks.size:
                count = walk_marked_words(found.data, first, last, found.marks, word_classes, powers, scratch.words)
            else:
                count = walk_words(found.data, first, last, word_classes, powers, scratch.words)
            word_statistics(scratch, count, text, stop_words, row)
            row[HASHES], row[ELLIPSES] = symbol_counts(data, start, end)
        if groups & LINES:
            line_statistics(data, start, end, classes, row)
        if groups & REPETITION:
            repetition(data, start, end, classes, powers, scratch, count, row)
        if groups & NEWLINE_LINES:
            newline_line_statistics(data, start, end, classes, short_line_length, scratch.table, row)


@kernel
def word_statistics(scratch, count, text, stop_words, row):
    """Counts over the words that `walk_words` found. Each distinct stop word counts once."""
    words, stop_seen = scratch.words, scratch.stop_seen
    nonsymbol, nonsymbol_characters, alpha = np.int64(0), np.int64(0), np.int64(0)
    for word in range(count):
        kind = np.int64(words.kinds[word])
        letters = 1 - (kind & PUNCTUATION) // PUNCTUATION
        nonsymbol += letters
        nonsymbol_characters += letters * (words.ends[word + 1] - words.ends[word])
        alpha += (kind & ALPHA) // ALPHA
    for word in range(count):  # marks the slot at which each search ends; an empty slot belongs to no stop word
        slot = np.int64(words.hashes[word]) & (stop_words.size - 1)
        while not ((stop_words[slot] == words.hashes[word]) | (stop_words[slot] == 0)):
            slot = (slot + 1) & (stop_words.size - 1)
        stop_seen[slot] = text
    stops = 0
    for slot in range(stop_words.size):
        stops += (stop_words[slot] != 0) & (stop_seen[slot] == text)
    place = FIRST_OF_WORDS
    row[place], row[place + 1] = count, words.ends[count]
    row[place + 2], row[place + 3], row[place + 4], row[place + 5] = nonsymbol, nonsymbol_characters, alpha, stops


@kernel
def symbol_counts(data, start, end):
    """`(text.count("#"), text.count("...") + text.count("…"))`."""
    ellipses = _separate_triples(data, start, end) if _has_triple(data[start:end]) else 0
    at = find_byte(data, start, end, FIRST_OF_ELLIPSIS)
    while at < end:
        ellipses += (data[at + 1] == 0x80) & (data[at + 2] == 0xA6)
        at = find_byte(data, at + 3, end, FIRST_OF_ELLIPSIS)
    return count_byte(data, start, end, HASH), ellipses


@kernel
def _has_triple(text):
    """Whether the text has three dots in a row. The loop has no branch, so that the compiler vectorises it."""
    found = False
    for at in range(max(text.size - 2, 0)):
        found |= (text[at] == DOT) & (text[at + 1] == DOT) & (text[at + 2] == DOT)
    return found


@kernel
def _separate_triples(data, start, end):
    """`text.count("...")`: each three dots of a run count once."""
    triples = 0
    at = find_byte(data, start, end, DOT)
    while at < end:
        dots = 1
        while at + dots < end and data[at + dots] == DOT:
            dots += 1
        triples += dots // 3
        at = find_byte(data, at + dots, end, DOT)
    return triples


@kernel
def line_statistics(data, start, end, classes, row):
    """Counts lines of `str.splitlines`: all, with a bullet at the start, with an ellipsis at the end."""
    lines, bullets, ellipses = 0, 0, 0
    at, newlines = start, only_newlines(data[start:end])
    while at < end:
        stop, after = line_end(data, at, end, newlines)
        lines += 1
        first = strip_start(data, at, stop, classes)
        if first < stop:
            bullets += _is_bullet(decode(data, first)[0])
            ellipses += ends_in_ellipsis(data, first, strip_end(data, first, stop, classes))
        at = after
    row[FIRST_OF_LINES], row[FIRST_OF_LINES + 1], row[FIRST_OF_LINES + 2] = lines, bullets, ellipses


@kernel
def _is_bullet(point):
    return point in (HYPHEN, BULLET)


@kernel
def ends_in_ellipsis(data, start, end):
    if end - start < 3:
        return False
    if data[end - 1] == DOT:
        return data[end - 2] == DOT and data[end - 3] == DOT
    return decode(data, previous(data, end))[0] == ELLIPSIS


@kernel
def repetition(data, start, end, classes, powers, scratch, count, row):
    """Measures repeated paragraphs and lines, the most frequent 2- to 4-grams, and the duplicated 5- to 10-grams."""
    place = PARAGRAPHS
    row[place], row[place + 1], row[place + 2] = paragraph_duplicates(data, start, end, classes, scratch.table)
    place = LINE_RUNS
    row[place], row[place + 1], row[place + 2] = line_duplicates(data, start, end, scratch.table)
    words, places, table = scratch.words, scratch.places, scratch.table
    repeating = np.int64(0)
    for n in range(2, 5):
        row[TOP_2 + n - 2], repeating = top_ngram_characters(words, count, n, places, repeating, scratch.slots, table)
    candidates = duplicate_candidates(words, count, 5, powers, scratch.repeats, places, table)
    for n in range(5, 11):
        row[DUPLICATED_5 + n - 5] = duplicated_ngram_characters(words, count, n, powers, places, candidates, table)


@kernel
def newline_line_statistics(data, start, end, classes, short_line_length, table, row):
    """Counts lines of `text.split("\\n")` that are not blank: all, with terminal punctuation, short; and characters of repeated lines."""
    mask = cleared(table, row[NEWLINES] + 1)
    lines, terminal, short, repeated = 0, 0, 0, 0
    at = start
    while at < end:
        stop = find_byte(data, at, end, NEWLINE)
        if strip_start(data, at, stop, classes) < stop:
            lines += 1
            characters = count_characters(data, at, stop)
            short += characters <= short_line_length
            if classes[decode(data, previous(data, stop))[0]] & TERMINAL:
                terminal += 1
            if insert(table, mask, hash_span(data, at, stop)):
                repeated += characters
        at = stop + 1
    place = FILLED_LINES
    row[place], row[place + 1], row[place + 2], row[place + 3] = lines, terminal, short, repeated
