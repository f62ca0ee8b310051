# mypy: disallow-untyped-defs=False
"""The compiled pass behind `filters.redpajama`: over each text as it is, then over its normalised form."""

from collections.abc import Sequence
from math import log

import numpy as np
import numpy.typing as npt

from corpusmill.filters.redpajama import BULLETS, LATIN, NAMES, NUMERIC, SMALL, UPPER
from corpusmill.filters.statistics_kernel import ends_in_ellipsis, symbol_counts
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.hashing import BASE, find, hash_span, insert, mix64, table_size
from corpusmill.pipeline.text.ngrams import count_ngrams, count_words, covered_characters, most_frequent, new_ngram_counts
from corpusmill.pipeline.text.utf8 import (
    NEWLINE,
    SPACE,
    WORD,
    count_byte,
    count_characters,
    decode,
    find_byte,
    previous,
    strip_end,
    strip_start,
)
from corpusmill.pipeline.text.words import hash_chunks

(SENTENCES, WORDS, WORD_LENGTH, SYMBOLS, ELLIPSIS_LINES, NO_LETTERS, UNIQUE, ENTROPY, CAPITALS, LOREM_IPSUM, CURLY, STOP_WORDS,
 TOP_2, _3, _4, DUPLICATED_5, _6, _7, _8, _9, _10, JAVASCRIPT, TERMINAL, LINE_WORDS, LINE_UPPER, LINE_NUMERIC, BULLET, LINES, BAD_WORDS,
) = range(len(NAMES))  # fmt: skip
BULLET_POINTS = tuple(map(ord, BULLETS))
MARKS = tuple(map(ord, ".!?”"))
DOT, EXCLAMATION, QUESTION, CURLY_OPEN, CURLY_CLOSE = 0x2E, 0x21, 0x3F, 0x7B, 0x7D
LOREM, IPSUM, SCRIPT = (np.frombuffer(word, np.uint8) for word in (b"lorem", b"ipsum", b"javascript"))


def phrase_set(phrases: Sequence[str]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """A table for `find` of the `phrase_key` of each phrase, its words between single spaces; and the numbers of words that occur."""
    table = np.zeros(4 * table_size(len(phrases)), np.uint64)
    lengths = set()
    for phrase in phrases:
        spans = [np.frombuffer(word.encode(), np.uint8) for word in phrase.split(" ")]
        hashes = np.array([hash_span(span, 0, span.size) for span in spans], np.uint64)
        insert(table, table.size - 1, np.uint64(phrase_key(hashes, 0, hashes.size)))
        lengths.add(hashes.size)
    return table, np.array(sorted(lengths), np.int64)


@kernel
def phrase_key(hashes, at, n):
    key = np.uint64(n)
    for word in range(at, at + n):
        key = mix64(key * BASE + hashes[word])
    return key


@kernel
def measure_texts(data, offsets, plain, places, kinds, lists, out):
    """Fills `out` (float64, texts x NAMES, at first NaN) for the texts `data[offsets[i]:offsets[i + 1]]`, whose normalised
    forms are `plain[places[i]:places[i + 1]]`. `lists`: stop words, bad phrases, numbers of words of those."""
    stop_words, phrases, phrase_lengths = lists
    longest = 0
    for text in range(offsets.size - 1):
        longest = max(longest, places[text + 1] - places[text])
    hashes, ends, seen = np.empty(longest + 1, np.uint64), np.empty(longest + 2, np.int64), np.empty(longest + 1, np.uint8)
    counts = new_ngram_counts(longest // 2 + 1)
    for text in range(offsets.size - 1):
        start, end, row = offsets[text], offsets[text + 1], out[text]
        begin, stop = places[text], places[text + 1]
        count = hash_chunks(plain, begin, stop, kinds, hashes, ends, seen)
        row[WORDS] = count
        row[SENTENCES] = count_sentences(data, start, end, kinds)
        characters = max(count_characters(data, start, end), 1)
        row[CURLY] = (count_byte(data, start, end, CURLY_OPEN) + count_byte(data, start, end, CURLY_CLOSE)) / characters
        raw_word_values(data, start, end, kinds, stop_words, count, row)
        line_values(data, start, end, kinds, row)
        row[LINE_WORDS] = count / row[LINES] if row[LINES] else np.nan
        row[LINE_NUMERIC] = numeric_line_fraction(plain, begin, stop, kinds) / row[LINES] if row[LINES] else np.nan
        found, scripts = fixed_words(plain, begin, stop, kinds)
        row[LOREM_IPSUM], row[JAVASCRIPT] = found, scripts
        row[TOP_2 : DUPLICATED_5 + 6] = 0
        row[BAD_WORDS] = count_phrases(hashes, count, phrases, phrase_lengths)
        if count:
            unigram_values(hashes, ends, count, counts, row)
            repetition(ends, count, counts, row)


@kernel
def count_sentences(data, start, end, kinds):
    """Matches of `\\b[^.!?]+[.!?]*`: each begins at the first word character after the marks of the one before."""
    sentences = 0
    at = start
    while at < end:
        point, width = decode(data, at)
        if not kinds[point] & WORD:
            at += width
            continue
        sentences += 1
        while at < end and data[at] != DOT and data[at] != EXCLAMATION and data[at] != QUESTION:
            at += 1
        while at < end and (data[at] == DOT or data[at] == EXCLAMATION or data[at] == QUESTION):
            at += 1
    return sentences


@kernel
def raw_word_values(data, start, end, kinds, stop_words, normalised_words, row):
    """Over NLTK's WordPunct words (runs of `\\w`, runs of what is neither that nor space): letters, capitals, stop words."""
    words, letters, capitals, stops = 0, 0, 0, 0
    at = start
    while at < end:
        point, width = decode(data, at)
        kind = kinds[point]
        if kind & SPACE:
            at += width
            continue
        first, found = at, kind
        inside = kind & (WORD | SPACE)
        while True:
            found |= kind
            at += width
            if at >= end:
                break
            point, width = decode(data, at)
            kind = kinds[point]
            if kind & (WORD | SPACE) != inside:
                break
        words += 1
        letters += found & LATIN != 0
        capitals += found & (UPPER | SMALL) == UPPER
        stops += find(stop_words, stop_words.size - 1, hash_span(data, first, at)) >= 0
    row[STOP_WORDS] = stops / words if normalised_words else 0.0
    if words:
        hashes, ellipses = symbol_counts(data, start, end)
        row[SYMBOLS] = (hashes + ellipses) / words
        row[NO_LETTERS] = 1.0 - letters / words
        row[CAPITALS] = capitals / words


@kernel
def line_values(data, start, end, kinds, row):
    """Lines of `[^\\n]*\\n|[^\\n]+$`: how many, and the shares of those with a terminal mark, an ellipsis, a bullet; capitals."""
    lines, terminal, ellipses, bullets, upper = 0, 0, 0, 0, 0.0
    at = start
    while at < end:
        stop = find_byte(data, at, end, NEWLINE)
        lines += 1
        after = min(stop + 1, end)
        capitals, characters = 0, 0
        place = at
        while place < after:
            point, width = decode(data, place)
            capitals += kinds[point] & UPPER != 0
            characters += 1
            place += width
        upper += capitals / characters
        first = strip_start(data, at, stop, kinds)
        if first < stop:
            last = strip_end(data, first, stop, kinds)
            bullets += decode(data, first)[0] in BULLET_POINTS
            terminal += decode(data, previous(data, last))[0] in MARKS
            ellipses += ends_in_ellipsis(data, first, last)
        at = after
    row[LINES] = lines
    if lines:
        row[ELLIPSIS_LINES], row[TERMINAL], row[BULLET], row[LINE_UPPER] = (
            ellipses / lines,
            terminal / lines,
            bullets / lines,
            upper / lines,
        )


@kernel
def numeric_line_fraction(data, start, end, kinds):
    """The sum over normalised lines of their shares of numeric characters, spaces collapsed and stripped; 0 for an empty line."""
    total = 0.0
    at = start
    while at < end:
        stop = find_byte(data, at, end, NEWLINE)
        numeric, characters, space = 0, 0, True
        while at < stop:
            point, width = decode(data, at)
            if kinds[point] & SPACE:
                space = True
            else:
                characters += 1 + (space and characters > 0)
                space = False
                numeric += kinds[point] & NUMERIC != 0
            at += width
        if characters:
            total += numeric / characters
        at = stop + 1
    return total


@kernel
def fixed_words(data, start, end, kinds):
    """How often "lorem ipsum" stands in the text with spaces collapsed, and the word "javascript"."""
    found, scripts, lorem = 0, 0, False
    at = strip_start(data, start, end, kinds)
    while at < end:
        stop = at
        while stop < end:
            point, width = decode(data, stop)
            if kinds[point] & SPACE:
                break
            stop += width
        found += lorem and _equal(data, at, min(at + 5, stop), IPSUM)
        lorem = stop - at >= 5 and _equal(data, stop - 5, stop, LOREM)
        scripts += stop - at == 10 and _equal(data, at, stop, SCRIPT)
        at = strip_start(data, stop, end, kinds)
    return found, scripts


@kernel
def _equal(data, start, end, wanted):
    same = end - start == wanted.size
    for place in range(wanted.size * same):
        same &= data[start + place] == wanted[place]
    return same


@kernel
def count_phrases(hashes, count, phrases, lengths):
    found = 0
    for n in lengths:
        for at in range(count - n + 1):
            found += find(phrases, phrases.size - 1, phrase_key(hashes, at, n)) >= 0
    return found


@kernel
def unigram_values(hashes, ends, count, counts, row):
    """Mean length, different words, and the entropy in nats, summed in the order of first occurrence."""
    row[UNIQUE] = count_words(hashes, count, counts) / count
    row[WORD_LENGTH] = ends[count] / count
    entropy = 0.0
    for at in range(count):
        if counts.words[at] == at:
            share = np.float64(counts.times[at]) / count
            entropy += -share * log(share)
    row[ENTROPY] = entropy


@kernel
def repetition(ends, count, counts, row):
    """The most frequent 2- to 4-gram where it repeats; words in repeated 5- to 10-grams. After `count_words`."""
    for n in range(2, 11):
        if not count_ngrams(count, n, counts):
            continue
        if n < 5:
            _, times, length = most_frequent(count, n, ends, counts)
            row[TOP_2 + n - 2] = times * length / ends[count]
        else:
            row[DUPLICATED_5 + n - 5] = covered_characters(count, n, ends, counts) / ends[count]
