# mypy: disallow-untyped-defs=False, disable-error-code=assignment
"""Finds words by Unicode's word boundaries (UAX #29) as the package `uniseg` 0.8 does. DCLM counts n-grams of these words.

uniseg 0.8 has the rules WB3 to WB13c of Unicode 5.1: Hebrew letters, quotation marks (the apostrophe ', not ’), zero-width
joiners and runs of spaces have no rules of their own. Its properties are those of Unicode 15.0. Here they come from `regex`;
where a later version changed a character of Unicode 15.0, BEFORE restores its property. Only newer characters can differ.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.kernel import kernel
from corpusmill.text.hashing import hash_span
from corpusmill.text.utf8 import CODE_POINTS, count_characters, decode

OTHER, CR, LF, NEWLINE, EXTEND, FORMAT, REGIONAL, KATAKANA, LETTER, MID_BOTH, MID_LETTER, MID_NUMBER, NUMERIC, JOINER = range(14)
PROPERTIES = {
    "CR": CR, "LF": LF, "Newline": NEWLINE, "Extend": EXTEND, "Format": FORMAT, "Regional_Indicator": REGIONAL, "Katakana": KATAKANA,
    "ALetter": LETTER, "MidNumLet": MID_BOTH, "MidLetter": MID_LETTER, "MidNum": MID_NUMBER, "Numeric": NUMERIC, "ExtendNumLet": JOINER,
}  # fmt: skip
#: The properties in Unicode 15.0 of characters that a later version changed.
BEFORE = {
    OTHER: (0xB8, 0x19DA),
    FORMAT: (*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD),
    MID_NUMBER: (0xFE10, 0xFE14),
}
PROPERTY = 0x3F
ALNUM = 0x40  # str.isalnum


@cache
def word_break_table() -> npt.NDArray[np.uint8]:
    """Returns uint8 of length 0x110000: the word break property of each code point, and ALNUM. Takes half a second, once a process."""
    import regex

    table = np.zeros(CODE_POINTS, np.uint8)
    everything = "".join(map(chr, [*range(0xD800), *range(0xE000, CODE_POINTS)]))
    for name, value in PROPERTIES.items():
        for found in regex.finditer(rf"\p{{Word_Break={name}}}+", everything):
            table[ord(found.group()[0]) : ord(found.group()[-1]) + 1] = value
    for value, points in BEFORE.items():
        table[list(points)] = value
    for character in everything:
        if character.isalnum():
            table[ord(character)] |= ALNUM
    return table


@kernel
def hash_unicode_words(data, start, end, breaks, hashes, ends):
    """Fills in two arrays for those words of `data[start:end]` that begin with a letter or number, and returns the number of
    these words: `hashes` (uint64) and `ends` (int64, one item more: the characters before each word, other text not counted)."""
    count, characters, total = 0, 0, 0  # `characters`: those of the current word
    word, kept = start, False
    before, last = OTHER, OTHER
    ends[0] = 0
    at = start
    while at < end:
        point, width = decode(data, at)
        kind = np.int64(breaks[point])
        value = kind & PROPERTY
        following = OTHER
        if MID_BOTH <= value <= MID_NUMBER:
            after = _after_extensions(data, at + width, end, breaks)
            if after < end:
                following = np.int64(breaks[decode(data, after)[0]]) & PROPERTY
        if not _joins(before, last, value, following):
            if kept:
                hashes[count] = hash_span(data, word, at)
                total += characters
                count += 1
                ends[count] = total
            word, kept, characters = at, kind & ALNUM != 0, 0
        before, last = last, value
        at += width
        characters += 1
        if at < end and data[at] >= 0x80 and not CR <= value <= NEWLINE:  # WB4: an ASCII character never extends the one before it
            after = _after_extensions(data, at, end, breaks)
            characters += count_characters(data, at, after)
            at = after
        while is_core(last) and at < end and data[at] < 0x80:  # fast path for most characters: letters and digits in a row
            value = np.int64(breaks[data[at]]) & PROPERTY
            if not is_core(value) or (at + 1 < end and data[at + 1] >= 0x80):
                break
            last = value
            characters += 1
            at += 1
    if kept:
        hashes[count] = hash_span(data, word, end)
        count += 1
        ends[count] = total + characters
    return count


@kernel
def _after_extensions(data, at, end, breaks):
    """Returns the end of the run of Extend and Format characters at `at`."""
    while at < end:
        point, width = decode(data, at)
        value = breaks[point] & PROPERTY
        if value not in (EXTEND, FORMAT):
            break
        at += width
    return at


@kernel(inline="always")
def is_core(value):
    return value in (LETTER, NUMERIC)


@kernel
def _joins(before, last, value, following):
    """Whether there is no word boundary between two characters with the properties `last` and `value`. `before` and `following`
    are those of their neighbours."""
    if is_core(last) and is_core(value):  # WB5, 8, 9, 10
        return True
    if last == CR and value == LF:
        return True
    if value in (MID_BOTH, MID_LETTER, MID_NUMBER):  # WB6, 12
        return (last == following == LETTER and value != MID_NUMBER) or (last == following == NUMERIC and value != MID_LETTER)
    if last in (MID_BOTH, MID_LETTER, MID_NUMBER):  # WB7, 11
        return (before == value == LETTER and last != MID_NUMBER) or (before == value == NUMERIC and last != MID_LETTER)
    if value == JOINER:  # WB13a
        return is_core(last) or last in (KATAKANA, JOINER)
    if last == JOINER:  # WB13b
        return is_core(value) or value == KATAKANA
    return last == value and (value in (KATAKANA, REGIONAL))  # WB13, 13c
