# mypy: disallow-untyped-defs=False
"""The compiled pass behind `filters.nemo`."""

import numpy as np

from corpusmill.filters.nemo import (
    ALPHA,
    BULLETS,
    DIGIT,
    DUPLICATED,
    ELLIPSES,
    END_MARKS,
    HASH,
    NAMES,
    PARENTHESIS,
    PLAIN,
    TOP,
    URL,
    WHITE,
)
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.hashing import find, hash_span, insert, table_size
from corpusmill.pipeline.text.ngrams import count_ngrams, count_words, most_frequent, new_ngram_counts
from corpusmill.pipeline.text.utf8 import NEWLINE, count_byte, count_characters, decode, find_byte, strip_end, strip_start
from corpusmill.pipeline.text.words import hash_chunks, skip_space, walk_chunk

WORDS, CHARACTERS, LINES = NAMES.index("words"), NAMES.index("non_alnum_ratio"), NAMES.index("bullet_line_ratio")
PARAGRAPHS, DUPLICATED_5 = NAMES.index("unique_paragraph_ratio"), NAMES.index("dup_5_gram_ratio")
BULLET_POINTS, MARKS = tuple(map(ord, BULLETS)), tuple(map(ord, END_MARKS))
#: All marks in one array, and where each begins in it.
MARK_BYTES = np.frombuffer("".join(ELLIPSES).encode(), np.uint8)
MARK_PLACES = np.cumsum([0] + [len(mark.encode()) for mark in ELLIPSES])
COLON, SLASH, PERCENT = 0x3A, 0x2F, 0x25


@kernel
def measure_texts(data, offsets, kinds, word_sets, out, spans):
    """Fills `out` (float64, texts x NAMES, at first NaN) for the texts `data[offsets[i]:offsets[i + 1]]`.

    `spans` (int64, texts x 7, at first 0) gets for 2, 3 and 4 where in the text's bytes the most frequent n-gram begins and
    ends, and last the number of characters.
    """
    common, ellipses = word_sets
    longest = 0
    for text in range(offsets.size - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    hashes, ends, seen = np.empty(longest + 1, np.uint64), np.empty(longest + 2, np.int64), np.empty(longest + 1, np.uint8)
    counts, table = new_ngram_counts(longest // 2 + 1), np.empty(table_size(longest + 1), np.uint64)
    for text in range(offsets.size - 1):
        start, end, row = offsets[text], offsets[text + 1], out[text]
        characters = count_characters(data, start, end)
        spans[text, -1] = characters
        count = hash_chunks(data, start, end, kinds, hashes, ends, seen)
        word_values(hashes, ends, seen, count, common, row)
        if count:
            row[WORDS + 4] = symbol_words(data, start, end, kinds, ellipses) / count
        character_values(data, start, end, kinds, characters, row)
        line_values(data, start, end, kinds, table, row)
        paragraph_values(data, start, end, table, row)
        count_words(hashes, count, counts)
        for n in range(TOP[0], DUPLICATED[-1] + 1):
            count_ngrams(count, n, counts)
            if n > TOP[-1]:
                row[DUPLICATED_5 + n - DUPLICATED[0]] = later_copies(ends, count, n, counts) / characters if count >= n else 1.0
            elif count >= n:
                first = most_frequent(count, n, ends, counts)[0]
                place = 2 * (n - TOP[0])
                spans[text, place], spans[text, place + 1] = word_span(data, start, end, kinds, first, n)


@kernel
def word_values(hashes, ends, seen, count, common, row):
    longest, wanted, letters = 0, 0, 0
    for word in range(count):
        longest = max(longest, ends[word + 1] - ends[word])
        wanted += find(common, common.size - 1, hashes[word]) >= 0
        letters += seen[word] & ALPHA != 0
    row[WORDS], row[WORDS + 1], row[WORDS + 2] = count, longest, wanted
    if count:
        row[WORDS + 3], row[WORDS + 5] = ends[count] / count, letters / count


@kernel
def symbol_words(data, start, end, kinds, ellipses):
    """Words that are an ellipsis, or in which runs of "#" are more than half of the characters."""
    symbols = 0
    at = skip_space(data, start, end, kinds)
    while at < end:
        stop, characters, found = walk_chunk(data, at, end, kinds)
        if found & HASH:
            runs = 0
            for place in range(at, stop):
                runs += kinds[data[place]] & HASH != 0 and (place == at or kinds[data[place - 1]] & HASH == 0)
            symbols += runs / characters > 0.5
        elif stop - at <= 5 and not found & ALPHA:
            symbols += find(ellipses, ellipses.size - 1, hash_span(data, at, stop)) >= 0
        at = skip_space(data, stop, end, kinds)
    return symbols


@kernel
def character_values(data, start, end, kinds, characters, row):
    """Shares of characters; 1 for an empty text, as NeMo has it."""
    if not characters:
        row[CHARACTERS : CHARACTERS + 5] = 1.0
        return
    plain, digits, white, parentheses = 0, 0, 0, 0
    at = start
    while at < end:
        point, width = decode(data, at)
        kind = kinds[point]
        plain += kind & PLAIN != 0
        digits += kind & DIGIT != 0
        white += kind & WHITE != 0
        parentheses += kind & PARENTHESIS != 0
        at += width
    place = CHARACTERS
    row[place], row[place + 1], row[place + 2] = (characters - plain) / characters, digits / characters, white / characters
    row[place + 3], row[place + 4] = parentheses / characters, url_characters(data, start, end, kinds) / characters


@kernel
def url_characters(data, start, end, kinds):
    """Characters of `https?://(?:[A-Za-z0-9$\\-_@.&+/:=?#~!*(),]|%[0-9A-Fa-f]{2})+`."""
    total, free = 0, start
    colon = find_byte(data, start, end, COLON)
    while colon < end:
        at = colon + 3
        begin = _scheme_start(data, free, colon)
        if begin >= 0 and at < end and data[colon + 1] == SLASH and data[colon + 2] == SLASH:
            while at < end:
                if data[at] < 0x80 and kinds[data[at]] & URL:
                    at += 1
                elif at + 2 < end and data[at] == PERCENT and _is_hex(data[at + 1]) and _is_hex(data[at + 2]):
                    at += 3
                else:
                    break
            if at > colon + 3:
                total += at - begin
                free = at
        colon = find_byte(data, max(colon + 1, free), end, COLON)
    return total


@kernel
def _scheme_start(data, free, colon):
    """Where `https?` begins that ends before the colon, not before `free`; -1 where there is none."""
    begin = colon - 5 if colon - 5 >= free and data[colon - 1] == 0x73 else colon - 4
    if begin >= free and data[begin] == 0x68 and data[begin + 1] == 0x74 and data[begin + 2] == 0x74 and data[begin + 3] == 0x70:
        return begin
    return -1


@kernel
def _is_hex(byte):
    return 0x30 <= byte <= 0x39 or 0x41 <= byte <= 0x46 or 0x61 <= byte <= 0x66


@kernel
def line_values(data, start, end, kinds, table, row):
    """Lines of `text.split("\\n")` that are not blank: bullets, ellipses, no end mark; different ones and their characters."""
    size = table_size(count_byte(data, start, end, NEWLINE) + 1)
    table[:size] = np.uint64(0)
    lines, bullets, ellipses, unended, unique, characters, unique_characters = 0, 0, 0, 0, 0, 0, 0
    at = start
    while at < end:
        stop = find_byte(data, at, end, NEWLINE)
        first = strip_start(data, at, stop, kinds)
        if first < stop:
            last = strip_end(data, first, stop, kinds)
            lines += 1
            bullets += decode(data, first)[0] in BULLET_POINTS
            ellipses += ends_in_ellipsis(data, first, last)
            unended += data[last - 1] not in MARKS
            length = count_characters(data, at, stop)
            characters += length
            if not insert(table, size - 1, hash_span(data, at, stop)):
                unique += 1
                unique_characters += length
        at = stop + 1
    if lines:
        row[LINES], row[LINES + 1], row[LINES + 2] = bullets / lines, ellipses / lines, unended / lines
        row[LINES + 3], row[LINES + 4] = unique / lines, unique_characters / characters


@kernel
def ends_in_ellipsis(data, start, end):
    """Whether the span, in lower case, ends in one of ELLIPSES. No other characters than ASCII have their letters in lower case."""
    for mark in range(MARK_PLACES.size - 1):
        size = MARK_PLACES[mark + 1] - MARK_PLACES[mark]
        same = end - start >= size
        for place in range(size * same):
            byte = data[end - size + place]
            same &= (byte + 0x20 if 0x41 <= byte <= 0x5A else byte) == MARK_BYTES[MARK_PLACES[mark] + place]
        if same:
            return True
    return False


@kernel
def paragraph_values(data, start, end, table, row):
    """Pieces of `text.split("\\n\\n")`: different ones and their characters."""
    size = table_size(count_byte(data, start, end, NEWLINE) // 2 + 1)
    table[:size] = np.uint64(0)
    pieces, unique, characters, unique_characters = 0, 0, 0, 0
    at = start
    while True:
        stop = find_byte(data, at, end, NEWLINE)
        while stop < end and not (stop + 1 < end and data[stop + 1] == NEWLINE):
            stop = find_byte(data, stop + 1, end, NEWLINE)
        pieces += 1
        length = count_characters(data, at, stop)
        characters += length
        if not insert(table, size - 1, hash_span(data, at, stop)):
            unique += 1
            unique_characters += length
        if stop == end:
            break
        at = stop + 2
    row[PARAGRAPHS] = unique / pieces
    if characters:
        row[PARAGRAPHS + 1] = unique_characters / characters


@kernel
def later_copies(ends, count, n, counts):
    """Characters of n-grams that occurred before, with the spaces between their words, without what the last such one took."""
    total, overlap = 0, 0
    for at in range(count - n + 1):
        if counts.first[at] >= 0 and counts.first[at] != at:
            total += ends[at + n] - ends[at + overlap] + min(n - overlap, n - 1)
            overlap = n
        overlap = max(overlap - 1, 0)
    return total


@kernel
def word_span(data, start, end, kinds, first, n):
    """Where in the text's bytes the words `first` to `first + n - 1` begin and end."""
    begin = 0
    at = skip_space(data, start, end, kinds)
    for word in range(first + n):
        if word == first:
            begin = at - start
        stop = walk_chunk(data, at, end, kinds)[0]
        at = skip_space(data, stop, end, kinds)
    return begin, stop - start
