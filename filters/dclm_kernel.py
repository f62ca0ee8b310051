# mypy: disallow-untyped-defs=False
"""The compiled pass behind `filters.dclm`."""

import numpy as np

from corpusmill.filters.dclm import ALNUM, STOP_WORDS
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.hashing import hash_span, table_size
from corpusmill.pipeline.text.lines import cleared_copies, count_copy
from corpusmill.pipeline.text.ngrams import count_ngrams, count_words, covered_characters, most_frequent, new_ngram_counts
from corpusmill.pipeline.text.utf8 import ALPHA, NEWLINE, count_byte, count_characters, decode, find_byte, previous, strip_end, strip_start
from corpusmill.pipeline.text.word_breaks import hash_unicode_words
from corpusmill.pipeline.text.words import skip_space, walk_chunk

HASH, STAR, HYPHEN, DOT, SPACE = 0x23, 0x2A, 0x2D, 0x2E, 0x20
STOP_WORD_KEYS = tuple(int.from_bytes(b"\1" + word.encode()) for word in STOP_WORDS)
BULLET, BLACK_CIRCLE, ELLIPSIS = 0x2022, 0x25CF, 0x2026


@kernel
def measure_texts(data, offsets, kinds, breaks, counts, ratios):
    """Fills `counts` (int64, texts x 2) and `ratios` (float64, texts x 18, at first NaN) for each text, as the step's columns."""
    longest = 0
    for text in range(offsets.size - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    hashes, ends = np.empty(longest + 1, np.uint64), np.empty(longest + 2, np.int64)
    ngrams, table = new_ngram_counts(longest + 1), np.empty(2 * table_size(longest + 1), np.uint64)
    for text in range(offsets.size - 1):
        start, end = offsets[text], offsets[text + 1]
        counts[text, 0] = fasttext_words(data, start, end, kinds)
        counts[text, 1] = word_values(data, start, end, kinds, ratios[text])
        line_values(data, start, end, kinds, table, ratios[text, 3:7])
        paragraph_values(data, start, end, kinds, table, ratios[text, 7:9])
        count = hash_unicode_words(data, start, end, breaks, hashes, ends)
        if count:
            repetition(hashes, ends, count, ngrams, ratios[text, 9:])


@kernel
def fasttext_words(data, start, end, kinds):
    """Tokens of fastText (between ASCII spaces and NULs) whose first character is a letter or number."""
    count, inside = 0, False
    for at in range(start, end):
        byte = data[at]
        if byte == SPACE or 9 <= byte <= 13 or byte == 0:
            inside = False
        elif not inside:
            inside = True
            count += kinds[decode(data, at)[0]] & ALNUM != 0
    return count


@kernel
def word_values(data, start, end, kinds, row):
    """Over the words of `str.split`: mean length, symbols a word, the share without a letter. Returns the number of stop words."""
    words, characters, letterless, stops = 0, 0, 0, 0
    at = skip_space(data, start, end, kinds)
    while at < end:
        stop, length, found = walk_chunk(data, at, end, kinds)
        words += 1
        characters += length
        letterless += found & ALPHA == 0
        if 2 <= stop - at <= 4:
            stops += is_stop_word(data, at, stop)
        at = skip_space(data, stop, end, kinds)
    if words:
        row[0], row[1], row[2] = characters / words, count_symbols(data, start, end) / words, letterless / words
    return stops


@kernel
def is_stop_word(data, start, end):
    """Whether a word of two to four bytes is one of STOP_WORDS in lower case. No other characters than ASCII become such words."""
    key = np.uint64(1)  # so that a leading NUL counts
    for at in range(start, end):
        byte = np.uint64(data[at])
        key = key << np.uint64(8) | (byte | np.uint64(0x20) if 0x41 <= byte <= 0x5A else byte)
    return key in STOP_WORD_KEYS


@kernel
def count_symbols(data, start, end):
    """`sum(text.count(symbol) for symbol in ("#", "...", ". . .", "…"))`: each by itself, without overlaps."""
    symbols, dots, free = count_byte(data, start, end, HASH), 0, start
    for at in range(start, end):
        byte = data[at]
        if byte != DOT:
            dots = 0
            symbols += byte == 0xE2 and data[at + 1] == 0x80 and data[at + 2] == 0xA6
            continue
        dots += 1
        symbols += dots % 3 == 0
        if at >= free and ends_in_spaced_dots(data, at, min(at + 5, end)):
            symbols += 1
            free = at + 5
    return symbols


@kernel
def ends_in_spaced_dots(data, start, end):
    """Whether the span ends in ". . ."."""
    return (
        end - start >= 5
        and data[end - 1] == DOT
        and data[end - 2] == SPACE
        and data[end - 3] == DOT
        and data[end - 4] == SPACE
        and data[end - 5] == DOT
    )


@kernel
def line_values(data, start, end, kinds, table, row):
    """Lines of `text.split("\\n")`, stripped, that are not empty: bullets, ellipses, repeated ones and their characters."""
    lines, bullets, ellipses, repeated, characters, repeated_characters = 0, 0, 0, 0, 0, 0
    mask = cleared_copies(table, count_byte(data, start, end, NEWLINE) + 1)
    at = start
    while at < end:
        stop = find_byte(data, at, end, NEWLINE)
        first = strip_start(data, at, stop, kinds)
        if first < stop:
            last = strip_end(data, first, stop, kinds)
            lines += 1
            point = decode(data, first)[0]
            bullets += point in (STAR, HYPHEN, BULLET, BLACK_CIRCLE)
            ellipses += ends_in_ellipsis(data, first, last)
            length = count_characters(data, first, last)
            copies = count_copy(table, mask, hash_span(data, first, last))
            characters += length
            repeated += copies
            repeated_characters += copies * length
        at = stop + 1
    if lines:
        row[0], row[1], row[2], row[3] = bullets / lines, ellipses / lines, repeated / lines, repeated_characters / characters


@kernel
def ends_in_ellipsis(data, start, end):
    if data[end - 1] != DOT:
        return decode(data, previous(data, end))[0] == ELLIPSIS
    return (end - start >= 3 and data[end - 2] == DOT and data[end - 3] == DOT) or ends_in_spaced_dots(data, start, end)


@kernel
def paragraph_values(data, start, end, kinds, table, row):
    """Pieces of `text.split("\\n\\n")`, stripped, that are not empty: repeated ones and their characters."""
    pieces, repeated, characters, repeated_characters = 0, 0, 0, 0
    mask = cleared_copies(table, count_byte(data, start, end, NEWLINE) // 2 + 1)
    at = start
    while at < end:
        stop = find_byte(data, at, end, NEWLINE)
        while stop < end and not (stop + 1 < end and data[stop + 1] == NEWLINE):
            stop = find_byte(data, stop + 1, end, NEWLINE)
        first = strip_start(data, at, stop, kinds)
        if first < stop:
            last = strip_end(data, first, stop, kinds)
            length = count_characters(data, first, last)
            copies = count_copy(table, mask, hash_span(data, first, last))
            pieces += 1
            characters += length
            repeated += copies
            repeated_characters += copies * length
        at = stop + 2
    if pieces:
        row[0], row[1] = repeated / pieces, repeated_characters / characters


@kernel
def repetition(hashes, ends, count, ngrams, row):
    """The most frequent 2- to 4-gram that repeats, the longest of equally frequent ones; words in repeated 5- to 10-grams."""
    count_words(hashes, count, ngrams)
    for n in range(2, 11):
        repeats = count_ngrams(count, n, ngrams)
        if not repeats:
            row[n - 2] = 0.0
        elif n < 5:
            _, times, length = most_frequent(count, n, ends, ngrams)
            for at in range(count - n + 1):
                if ngrams.first[at] == at and ngrams.times[at] == times:
                    length = max(length, ends[at + n] - ends[at])
            row[n - 2] = times * length / ends[count]
        else:
            row[n - 2] = covered_characters(count, n, ends, ngrams) / ends[count]
