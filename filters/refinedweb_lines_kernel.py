# mypy: disallow-untyped-defs=False
"""The compiled passes behind RefinedWeb's line corrections: each pass drops or shortens lines of one document in place."""

from collections import namedtuple

import numpy as np

from corpusmill.filters.counter_lines_kernel import is_counter
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.utf8 import NEWLINE, SPACE, WORD, decode, find_byte, previous, strip_end, strip_start
from corpusmill.pipeline.text.words import count_split_words

#: What a row of the output counts: lines before and after, lines dropped by reason, lines shortened, words before and after.
LINES, KEPT, UPPERCASE, NUMERIC, COUNTER, ONE_WORD, PHRASE, SHORTENED, WORDS, KEPT_WORDS = range(10)
COUNTS = 10

#: Bits of `Tables.classes` beside those of `pipeline.text.utf8`.
IS_UPPER, IS_DIGIT = 64, 128  # str.isupper, str.isdigit

#: `classes` uint8 and `letters` uint8 of length 0x110000: the letter of a phrase that a character stands for, whatever its case.
Tables = namedtuple("Tables", "classes letters")

UNDERSCORE = ord("_")
MAX_UPPERCASE, MAX_NUMERIC, MIN_WORDS, PHRASE_WORDS = 0.5, 0.999999, 2, 10

ANYWHERE, AT_END, AT_START = "items in cart", "read more...", "sign-in"
_ANYWHERE, _AT_START = (np.frombuffer(phrase.encode(), np.uint8) for phrase in (ANYWHERE, AT_START))
_AT_END = np.frombuffer(AT_END.rstrip(".").encode(), np.uint8)  # the dots are a regular expression's: any three characters
_ANY_CHARACTERS = 3
_ANY, _END, _START = range(3)


@kernel
def correct_texts(data, offsets, tables, new_data, new_offsets, counts):
    """Fills `new_data` (as long as the texts), `new_offsets` (int64, texts + 1) and `counts` (int64, texts x COUNTS)."""
    place = np.int64(0)
    new_offsets[0] = 0
    for text in range(offsets.size - 1):
        row, source = counts[text], offsets[text]
        start, end = place, place + offsets[text + 1] - source
        for at in range(start, end):
            new_data[at] = data[source + at - start]
        row[WORDS] = count_words(new_data, start, end, tables.classes)
        row[LINES] = _count_lines(new_data, start, end)
        for reason in (UPPERCASE, NUMERIC, COUNTER, ONE_WORD):
            end = _drop_lines(new_data, start, end, tables.classes, reason, row)
            if reason != ONE_WORD:
                end = strip_end(new_data, start, end, tables.classes)
                start = strip_start(new_data, start, end, tables.classes)
        for where, phrase in ((_ANY, _ANYWHERE), (_END, _AT_END), (_START, _AT_START)):
            end = _shorten_lines(new_data, start, end, tables, phrase, where, row)
            end = strip_end(new_data, start, end, tables.classes)
            start = strip_start(new_data, start, end, tables.classes)
        row[KEPT] = _count_lines(new_data, start, end)
        changed = end - start < offsets[text + 1] - source
        row[KEPT_WORDS] = count_words(new_data, start, end, tables.classes) if changed else row[WORDS]
        place = _move(new_data, start, end, place)
        new_offsets[text + 1] = place


@kernel
def _move(data, start, end, place):
    """Moves `data[start:end]` to the left; returns where it ends then."""
    if place != start:
        for at in range(start, end):
            data[place + at - start] = data[at]
    return place + end - start


@kernel
def _count_lines(data, start, end):
    """Lines of `text.split("\\n")`; 0 of an empty text."""
    lines, at = 0, start
    while at < end:
        lines += 1
        at = find_byte(data, at, end, NEWLINE) + 1
    return lines + (end > start and data[end - 1] == NEWLINE)


@kernel
def count_words(data, start, end, classes):
    """fastText's words (cut at the ASCII spaces and NUL) that begin with a letter or digit (`str.isalnum`)."""
    words, inside = 0, False
    for at in range(start, end):
        byte = data[at]
        if byte == 0x20 or 0x09 <= byte <= 0x0D or byte == 0:
            inside = False
        elif not inside:
            inside = True
            words += byte != UNDERSCORE and classes[decode(data, at)[0]] & WORD != 0
    return words


@kernel
def _drop_lines(data, start, end, classes, reason, row):
    """Drops the lines that a reason speaks against, and counts them; returns the new end of the text."""
    at, place, kept = start, start, 0
    while True:
        stop = find_byte(data, at, end, NEWLINE)
        if at < stop and _is_dropped(data, at, stop, classes, reason):
            row[reason] += 1
        else:
            if kept:
                data[place] = NEWLINE
                place += 1
            kept += 1
            place = _move(data, at, stop, place)
        if stop == end:
            return place
        at = stop + 1


@kernel
def _is_dropped(data, start, end, classes, reason):
    if reason == UPPERCASE:
        return _is_uppercase(data, start, end, classes)
    if reason == NUMERIC:
        return _is_numeric(data, start, end, classes)
    if reason == COUNTER:
        return is_counter(data, start, end, classes)
    return count_split_words(data, start, end, classes, MIN_WORDS) < MIN_WORDS


@kernel
def _is_uppercase(data, start, end, classes):
    capitals, others, characters = 0, 0, 0  # a count without branches says of most lines that they are not
    for byte in data[start:end]:
        capitals += (byte >= 0x41) & (byte <= 0x5A)
        others += byte >= 0xC0
        characters += (byte & 0xC0) != 0x80
    if (capitals + others) / characters <= MAX_UPPERCASE:
        return False
    upper, characters, at = 0, 0, start
    while at < end:
        point, width = decode(data, at)
        upper += classes[point] & IS_UPPER != 0
        characters += 1
        at += width
    return upper / characters > MAX_UPPERCASE


@kernel
def _is_numeric(data, start, end, classes):
    digits, characters, at = 0, 0, start
    others = 2 + (end - start) * 2e-6  # more than this can't be in a numeric line
    while at < end:
        point, width = decode(data, at)
        digits += classes[point] & IS_DIGIT != 0
        characters += 1
        if characters - digits > others:
            return False
        at += width
    return digits / characters > MAX_NUMERIC


@kernel
def _shorten_lines(data, start, end, tables, phrase, where, row):
    """Takes a phrase out of lines of few words, and drops those of which nothing but space is left; returns the new end."""
    at, place, kept = start, start, 0
    while True:
        stop = find_byte(data, at, end, NEWLINE)
        begin = place + (kept > 0)
        first, last = at, stop
        if where == _START:
            first = _start_without_phrase(data, at, stop, tables, phrase)
        elif where == _END:
            last = _end_without_phrase(data, at, stop, tables, phrase)
        changed = where == _ANY or last - first < stop - at
        if not changed or count_split_words(data, at, stop, tables.classes, PHRASE_WORDS + 1) > PHRASE_WORDS:
            last = _move(data, at, stop, begin)
        elif where == _ANY:
            last = _move_without_phrase(data, at, stop, tables, phrase, begin)
        else:
            last = _move(data, first, last, begin)
        if at < stop and strip_start(data, begin, last, tables.classes) == last:
            row[PHRASE] += 1
        else:
            row[SHORTENED] += last - begin < stop - at
            if kept:
                data[place] = NEWLINE
            kept += 1
            place = last
        if stop == end:
            return place
        at = stop + 1


@kernel
def _start_without_phrase(data, start, end, tables, phrase):
    """Where the line begins after the phrase and a space; `start` where it begins otherwise."""
    rest = _phrase_end(data, start, end, tables.letters, phrase)
    if rest < 0:
        return start
    if rest < end:
        point, width = decode(data, rest)
        rest += width * (tables.classes[point] & SPACE != 0)
    return rest


@kernel
def _move_without_phrase(data, start, end, tables, phrase, place):
    """Moves a line to `place` without the phrase and a space before it, however often it is there; returns the line's end there."""
    at = start
    while at < end:
        point, width = decode(data, at)
        rest = _phrase_end(data, at + width * (tables.classes[point] & SPACE != 0), end, tables.letters, phrase)
        if rest < 0:
            place = _move(data, at, at + width, place)
            at += width
        else:
            at = rest
    return place


@kernel
def _end_without_phrase(data, start, end, tables, phrase):
    """Where the line ends without the phrase and the characters after it that may be any; `end` where it ends otherwise."""
    first = end
    for _ in range(phrase.size + _ANY_CHARACTERS):
        if first == start:
            return end
        first = previous(data, first)
    if _phrase_end(data, first, end, tables.letters, phrase) < 0:
        return end
    if first > start and tables.classes[decode(data, previous(data, first))[0]] & SPACE:
        first = previous(data, first)
    return first


@kernel
def _phrase_end(data, at, end, letters, phrase):
    """Where the phrase ends that begins at `at`, in any case; -1 where there is another text."""
    for letter in phrase:
        if at >= end:
            return -1
        point, width = decode(data, at)
        if letters[point] != letter:
            return -1
        at += width
    return at
