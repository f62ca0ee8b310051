# mypy: disallow-untyped-defs=False
"""The compiled pass behind `filters.dolma`."""

import numpy as np

from corpusmill.filters.dolma import NAMES, SYMBOL
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.hashing import find, hash_span, table_size
from corpusmill.pipeline.text.lines import cleared_copies, count_copy, skip_newlines
from corpusmill.pipeline.text.ngrams import count_ngrams, count_words, most_frequent, new_ngram_counts
from corpusmill.pipeline.text.utf8 import ALPHA, NEWLINE, count_byte, count_characters, decode, find_byte, previous
from corpusmill.pipeline.text.words import hash_chunks

TOP_2, DUPLICATED_5 = NAMES.index("top_2"), NAMES.index("duplicated_5")
LINES = NAMES.index("bullet_lines")
#: Word lengths that are counted one by one; for a longer median the lengths are sorted.
LENGTHS = 256
STAR, HYPHEN, ELLIPSIS = 0x2A, 0x2D, 0x2026


@kernel
def measure_texts(data, offsets, kinds, required, skip_empty_lines, out):
    """Fills `out` (float64, texts x NAMES, at first NaN) for the texts `data[offsets[i]:offsets[i + 1]]`."""
    longest = 0
    for text in range(offsets.size - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    hashes, ends, seen = np.empty(longest + 1, np.uint64), np.empty(longest + 2, np.int64), np.empty(longest + 1, np.uint8)
    counts, table = new_ngram_counts(longest // 2 + 1), np.empty(2 * table_size(longest + 1), np.uint64)
    lengths = np.zeros(LENGTHS, np.int64)
    for text in range(offsets.size - 1):
        start, end, row = offsets[text], offsets[text + 1], out[text]
        count = hash_chunks(data, start, end, kinds, hashes, ends, seen)
        symbol, alpha, wanted = 0, 0, 0
        for word in range(count):
            symbol += seen[word] & SYMBOL != 0
            alpha += seen[word] & ALPHA != 0
            wanted += find(required, required.size - 1, hashes[word]) >= 0
        row[0] = count
        row[1] = median_length(ends, count, lengths)
        row[2], row[3], row[4] = symbol / max(count, 1), alpha / max(count, 1), wanted
        line_values(data, start, end, skip_empty_lines, table, ends[count], row)
        repetition(hashes, ends, count, counts, row)


@kernel
def median_length(ends, count, lengths):
    """`statistics.median` of the words' lengths, 0.0 where there are none."""
    if count == 0:
        return 0.0
    lengths[:] = 0
    for word in range(count):
        lengths[min(ends[word + 1] - ends[word], LENGTHS - 1)] += 1
    if count - lengths[LENGTHS - 1] <= count // 2:
        whole = np.sort(np.diff(ends[: count + 1]))
        return (whole[(count - 1) // 2] + whole[count // 2]) / 2
    return (_nth_length(lengths, (count - 1) // 2) + _nth_length(lengths, count // 2)) / 2


@kernel
def _nth_length(lengths, rank):
    length = 0
    while rank >= lengths[length]:
        rank -= lengths[length]
        length += 1
    return length


@kernel
def line_values(data, start, end, skip_empty_lines, table, characters, row):
    """Lines of `text.split("\\n")` or `re.split("\\n+", text)`: bullets, ellipses, repeated ones with all their copies."""
    if start == end:  # dolma returns at once
        row[LINES : LINES + 4] = 0
        return
    lines, bullets, ellipses, repeated, repeated_characters = 0, 0, 0, 0, 0
    mask = cleared_copies(table, count_byte(data, start, end, NEWLINE) + 1)
    at = start
    while True:
        stop = find_byte(data, at, end, NEWLINE)
        lines += 1
        if stop > at:
            bullets += data[at] == STAR or data[at] == HYPHEN
            ellipses += stop - at >= 3 and decode(data, previous(data, stop))[0] == ELLIPSIS
        copies = count_copy(table, mask, hash_span(data, at, stop))
        repeated += copies
        repeated_characters += copies * count_characters(data, at, stop)
        if stop == end:
            break
        at = skip_newlines(data, stop, end) if skip_empty_lines else stop + 1
    row[LINES], row[LINES + 1], row[LINES + 2] = bullets / lines, ellipses / lines, repeated / lines
    row[LINES + 3] = repeated_characters / max(characters, 1)


@kernel
def repetition(hashes, ends, count, counts, row):
    """The most frequent 2- to 4-gram (also where it occurs once), and the share of repeated 5- to 10-grams among all of them.

    Both by characters; those of overlapping n-grams count in each. Left alone (NaN) where a text has fewer than n words.
    """
    count_words(hashes, count, counts)
    characters = max(ends[count], 1)
    for n in range(2, 11):
        if count < n:
            break
        repeats = count_ngrams(count, n, counts)
        if n < 5:
            _, times, length = most_frequent(count, n, ends, counts)
            row[TOP_2 + n - 2] = times * length / characters
            continue
        repeated, total = 0, 0
        for at in range(count - n + 1):
            length = ends[at + n] - ends[at]
            total += length
            if repeats and counts.first[at] >= 0:
                repeated += length
        row[DUPLICATED_5 + n - 5] = repeated / max(total, 1)
