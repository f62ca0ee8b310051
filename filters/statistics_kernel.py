# mypy: disallow-untyped-defs=False
"""The compiled pass behind `statistics.measure`: one text after another, the asked-for groups for each."""

from collections import namedtuple

import numpy as np

from corpusmill.filters.statistics import LINES, NAMES, NEWLINE_LINES, REPETITION, TERMINAL, WORD_COUNT, WORDS
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.hashing import hash_span, insert, table_size
from corpusmill.pipeline.text.lines import line_duplicates, line_end, only_newlines, paragraph_duplicates
from corpusmill.pipeline.text.ngrams import duplicate_candidates, duplicated_ngram_characters, top_ngram_characters
from corpusmill.pipeline.text.utf8 import (
    ALPHA,
    NEWLINE,
    PUNCTUATION,
    count_byte,
    count_characters,
    decode,
    find_byte,
    previous,
    strip_end,
    strip_start,
)
from corpusmill.pipeline.text.words import count_words, new_words, walk_marked_words, walk_words

# Places in a row of the output.
CHARACTERS, NEWLINES = NAMES.index("characters"), NAMES.index("newlines")
FIRST_OF_WORDS, FIRST_OF_LINES = NAMES.index("words"), NAMES.index("lines")
PARAGRAPHS, LINE_RUNS = NAMES.index("paragraphs"), NAMES.index("line_runs")
TOP_2, DUPLICATED_5, FILLED_LINES = NAMES.index("top_2"), NAMES.index("duplicated_5"), NAMES.index("filled_lines")

HASH, DOT, HYPHEN, BULLET, ELLIPSIS = 0x23, 0x2E, 0x2D, 0x2022, 0x2026

#: Scratch for the longest text of a batch; memory is only touched as far as a text needs it.
Scratch = namedtuple("Scratch", "words repeats places slots table stop_seen")


@kernel
def measure_texts(data, offsets, marks, groups, classes, word_classes, powers, stop_words, short_line_length, out):
    """Fills `out` (int64, texts x NAMES) for the texts `data[offsets[i]:offsets[i + 1]]`.

    `classes` are those of `character_classes`. Words begin where `marks` says; where it is empty, `word_classes`, the word
    rule's, say what words are.
    """
    longest = 0
    for text in range(offsets.size - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
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
            row[FIRST_OF_WORDS] = marks[start:end].sum() if marks.size else count_words(data, start, end, word_classes)
        elif groups & (WORDS | REPETITION):
            if marks.size:
                count = walk_marked_words(data, start, end, marks, word_classes, powers, scratch.words)
            else:
                count = walk_words(data, start, end, word_classes, powers, scratch.words)
            word_statistics(scratch, count, text, stop_words, row)
            row[FIRST_OF_WORDS + 6], row[FIRST_OF_WORDS + 7] = symbol_counts(data, start, end)
        if groups & LINES:
            line_statistics(data, start, end, classes, row)
        if groups & REPETITION:
            repetition(data, start, end, classes, powers, scratch, count, row)
        if groups & NEWLINE_LINES:
            newline_line_statistics(data, start, end, classes, short_line_length, scratch.table, row)


@kernel
def word_statistics(scratch, count, text, stop_words, row):
    """Counts over the words that `walk_words` found; stop words count once each."""
    words, stop_seen = scratch.words, scratch.stop_seen
    nonsymbol, nonsymbol_characters, alpha = np.int64(0), np.int64(0), np.int64(0)
    for word in range(count):
        kind = np.int64(words.kinds[word])
        letters = 1 - (kind & PUNCTUATION) // PUNCTUATION
        nonsymbol += letters
        nonsymbol_characters += letters * (words.ends[word + 1] - words.ends[word])
        alpha += (kind & ALPHA) // ALPHA
    for word in range(count):  # marks whatever slot the search ends at: an empty one is nobody's
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
    at = find_byte(data, start, end, 0xE2)
    while at < end:
        ellipses += (data[at + 1] == 0x80) & (data[at + 2] == 0xA6)
        at = find_byte(data, at + 3, end, 0xE2)
    return count_byte(data, start, end, HASH), ellipses


@kernel
def _has_triple(text):
    """Whether three dots follow each other. Or-ing truth values from zero on, the compiler tries many places at once."""
    found = False
    for at in range(max(text.size - 2, 0)):
        found |= (text[at] == DOT) & (text[at + 1] == DOT) & (text[at + 2] == DOT)
    return found


@kernel
def _separate_triples(data, start, end):
    """`text.count("...")`: of a run of dots each three count once."""
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
    """Lines of `str.splitlines`: all, those that begin with a bullet, those that end in an ellipsis."""
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
    """Repeated paragraphs and lines, the most frequent 2- to 4-grams, the duplicated 5- to 10-grams."""
    place = PARAGRAPHS
    row[place], row[place + 1], row[place + 2] = paragraph_duplicates(data, start, end, classes, scratch.table)
    place = LINE_RUNS
    row[place], row[place + 1], row[place + 2] = line_duplicates(data, start, end, scratch.table)
    words, places, table = scratch.words, scratch.places, scratch.table
    repeating = 0
    for n in range(2, 5):
        row[TOP_2 + n - 2], repeating = top_ngram_characters(words, count, n, places, repeating, scratch.slots, table)
    candidates = duplicate_candidates(words, count, 5, powers, scratch.repeats, places, table)
    for n in range(5, 11):
        row[DUPLICATED_5 + n - 5] = duplicated_ngram_characters(words, count, n, powers, places, candidates, table)


@kernel
def newline_line_statistics(data, start, end, classes, short_line_length, table, row):
    """Lines of `text.split("\\n")` that are not blank: all, with a terminal mark at the end, short, characters of repeated ones."""
    size = table_size(row[NEWLINES] + 1)
    table[:size] = np.uint64(0)
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
            if insert(table, size - 1, hash_span(data, at, stop)):
                repeated += characters
        at = stop + 1
    place = FILLED_LINES
    row[place], row[place + 1], row[place + 2], row[place + 3] = lines, terminal, short, repeated
