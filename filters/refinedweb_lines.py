# mypy: disallow-untyped-defs=False
"""RefinedWeb's line corrections (Penedo et al. 2023, arXiv 2306.01116, appendix G.2) as DCLM's code performs them.

The corrections run in DCLM's order (baselines/mappers/modifiers.py, with the options of
baselines_configs/dclm_baseline_refinedweb.yaml), each on the result of the one before. Lines are those of `text.split("\\n")`.

1. Drop lines with more than half upper-case characters (`str.isupper`).
2. Drop lines of digits alone (`str.isdigit`, more than .999999 of the characters).
3. Drop counters, such as "3 likes" and "1.2K views".
4. Drop lines of fewer than two words (`str.split`); empty lines stay.
5. In lines of at most ten words, remove "items in cart", "Read more..." at the end and "Sign-in" at the start, in any case; drop the
   line if nothing else is left. DCLM's dots belong to a regular expression, so any three characters may follow "read more".

The whole text is stripped after each correction except 4. The removed share counts fastText's words that begin with a letter or digit.
A document fails if more than 5 % of its words were removed, if it had none, or if nothing is left.
"""

from collections import namedtuple
from functools import cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from corpusmill.filters.rules import Rule
from corpusmill.filters.statistics import ratio
from corpusmill.filters.step import DocumentBatch, Step, StepOutput
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import text_array, text_buffers
from corpusmill.text.utf8 import (
    CODE_POINTS,
    DIGIT,
    NEWLINE,
    SPACE,
    SURROGATES,
    WORD,
    character_classes,
    decode,
    find_byte,
    previous,
    strip_end,
    strip_start,
)
from corpusmill.text.words import count_split_words

DCLM = (
    Rule("no_words", "refinedweb_words", "<", 1),
    Rule("no_lines_left", "refinedweb_kept_lines", "<", 1),
    Rule("words_removed", "refinedweb_removed_word_ratio", ">", 0.05),
)


class RefinedwebLinesConfig(Config):
    """RefinedWeb: drop lines of capitals, digits, counters and single words, and documents that lose much text with them."""

    preset: Literal["dclm", "refinedweb"] = Field("dclm", description="The pipeline whose rules decide.")


@cache
def _tables() -> Any:
    """The kernel's `Tables`. Their letters follow Python's `re.IGNORECASE`, for which a dotless i is an i, for example."""
    import re

    classes = character_classes() & np.uint8(DIGIT | SPACE | WORD)
    characters = "".join(chr(point) for point in range(CODE_POINTS) if point not in SURROGATES)
    for character in characters:
        if character.isupper() or character.isdigit():
            classes[ord(character)] |= character.isupper() * IS_UPPER | character.isdigit() * IS_DIGIT
    letters = np.zeros(CODE_POINTS, np.uint8)
    for letter in sorted(set(ANYWHERE + AT_END + AT_START)):
        for alike in re.findall(re.escape(letter), characters, re.IGNORECASE):
            letters[ord(alike)] = ord(letter)
    return Tables(classes, letters)


class RefinedwebLines(Step):
    Config = RefinedwebLinesConfig
    PRESETS = {"dclm": DCLM, "refinedweb": DCLM}
    MEANINGS = {
        "refinedweb_words": "{count} words",
        "refinedweb_kept_lines": "{count} lines left of the text",
        "refinedweb_removed_word_ratio": "{share} of the words go with lines of capitals, digits, counters and single words",
    }
    rewrites = True

    @property
    def columns(self) -> dict[str, pa.DataType]:
        counts = ("lines", "kept_lines", "uppercase_lines", "numeric_lines", "counter_lines", "one_word_lines", "phrase_lines",
                  "shortened_lines", "words", "kept_words")  # fmt: skip
        return {f"refinedweb_{name}": pa.int64() for name in counts} | {"refinedweb_removed_word_ratio": pa.float64()}

    def measure(self, batch: DocumentBatch) -> StepOutput:
        data, offsets = text_buffers(batch.text)
        new_data = np.empty(offsets[-1] - offsets[0], np.uint8)
        new_offsets = np.empty(len(offsets), np.int64)
        counts = np.zeros((len(batch), COUNTS), np.int64)
        correct_texts(data, offsets, _tables(), new_data, new_offsets, counts)
        removed = ratio(counts[:, WORDS] - counts[:, KEPT_WORDS], counts[:, WORDS])
        columns = dict(zip(self.columns, [*counts.T, removed]))
        return StepOutput(columns, text_array(new_data[: new_offsets[-1]], new_offsets))


# ---- The kernels: each pass drops or shortens lines of one document in place

#: The counts in a row of the output: lines before and after, lines dropped by reason, lines shortened, words before and after.
LINES, KEPT, UPPERCASE, NUMERIC, COUNTER, ONE_WORD, PHRASE, SHORTENED, WORDS, KEPT_WORDS = range(10)
COUNTS = 10

#: Bits of `Tables.classes`, in addition to those of `text.utf8`.
IS_UPPER, IS_DIGIT = 64, 128  # str.isupper, str.isdigit

#: Arrays uint8 of length 0x110000. `classes`: the classes of each character. `letters`: the letter of a phrase that a character equals if
#: case is ignored, else 0.
Tables = namedtuple("Tables", "classes letters")

UNDERSCORE = ord("_")
MAX_UPPERCASE, MAX_NUMERIC, MIN_WORDS, PHRASE_WORDS = 0.5, 0.999999, 2, 10

ANYWHERE, AT_END, AT_START = "items in cart", "read more...", "sign-in"
_ANYWHERE, _AT_START = (np.frombuffer(phrase.encode(), np.uint8) for phrase in (ANYWHERE, AT_START))
_AT_END = np.frombuffer(AT_END.rstrip(".").encode(), np.uint8)  # the dots belong to a regular expression: any three characters
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
        row[WORDS] = count_fasttext_words(new_data, start, end, tables.classes)
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
        row[KEPT_WORDS] = count_fasttext_words(new_data, start, end, tables.classes) if changed else row[WORDS]
        place = _move(new_data, start, end, place)
        new_offsets[text + 1] = place


@kernel
def _move(data, start, end, place):
    """Moves `data[start:end]` to the left, to `place`; returns its new end."""
    if place != start:
        for at in range(start, end):
            data[place + at - start] = data[at]
    return place + end - start


@kernel
def _count_lines(data, start, end):
    """Counts the lines of `text.split("\\n")`; an empty text has 0."""
    lines, at = 0, start
    while at < end:
        lines += 1
        at = find_byte(data, at, end, NEWLINE) + 1
    return lines + (end > start and data[end - 1] == NEWLINE)


@kernel
def count_fasttext_words(data, start, end, classes):
    """Counts fastText's words (cut at ASCII white space and NUL) that begin with a letter or digit (`str.isalnum`)."""
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
    """Drops and counts the lines to which a reason applies; returns the new end of the text."""
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
    capitals, others, characters = 0, 0, 0  # a quick count without branches rules out most lines
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
    others = 2 + (end - start) * 2e-6  # a numeric line can't have more other characters
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
    """Removes a phrase from lines of few words, and drops lines that are then blank; returns the new end of the text."""
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
    """Returns the position after the phrase and a space at the start of the line; `start` if the line begins otherwise."""
    rest = _phrase_end(data, start, end, tables.letters, phrase)
    if rest < 0:
        return start
    if rest < end:
        point, width = decode(data, rest)
        rest += width * (tables.classes[point] & SPACE != 0)
    return rest


@kernel
def _move_without_phrase(data, start, end, tables, phrase, place):
    """Moves a line to `place` without all occurrences of the phrase, each with a space before it; returns the line's new end."""
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
    """Returns the end of the line without the phrase, three characters after it and a space before it; `end` if there is no phrase."""
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
    """Returns the end of the phrase if it begins at `at`, in any case; else -1."""
    for letter in phrase:
        if at >= end:
            return -1
        point, width = decode(data, at)
        if letters[point] != letter:
            return -1
        at += width
    return at


# ---- Lines that are counters, such as "3 likes" and "1.2K views!", as DCLM's `counter_line_modifier` recognises them.

_COUNTED = ("likes", "shares", "comments", "retweets", "reposts", "quotes", "bookmarks", "upvotes", "downvotes", "downloads", "views",
            "followers")  # fmt: skip
_NAMES = np.zeros((len(_COUNTED), 10), np.int64)
for _number, _name in enumerate(_COUNTED):
    _NAMES[_number, : len(_name)] = list(_name.encode())
_K, _M, _B, _KELVIN = ord("k"), ord("m"), ord("b"), 0x212A
_COMMA, _DOT = ord(","), ord(".")


@kernel
def is_counter(data, start, end, classes):
    """Whether the lower-cased line matches `^\\W*\\d[,.\\d]*[kmb]?\\s+(likes|...)\\W*$`."""
    at = _skip(data, start, end, classes, WORD, False)
    if at == end or not classes[decode(data, at)[0]] & DIGIT:
        return False
    while at < end:
        point, width = decode(data, at)
        if not (classes[point] & DIGIT or point in (_COMMA, _DOT)):
            break
        at += width
    if at < end:
        point, width = decode(data, at)
        if _lower(point) in (_K, _M, _B):
            at += width
    word = _skip(data, at, end, classes, SPACE, True)
    if word == at:
        return False
    at = _skip(data, word, end, classes, WORD, True)
    return _is_counted(data, word, at) and _skip(data, at, end, classes, WORD, False) == end


@kernel
def _skip(data, at, end, classes, kind, wanted):
    """Returns the end of the run of characters that have the class (`wanted`), or that do not have it."""
    while at < end:
        point, width = decode(data, at)
        if (classes[point] & kind != 0) != wanted:
            break
        at += width
    return at


@kernel
def _is_counted(data, start, end):
    """Whether a word, lower-cased, is one of the things that counters count."""
    for name in _NAMES:
        at, letter = start, 0
        while at < end and name[letter]:
            point, width = decode(data, at)
            if _lower(point) != name[letter]:
                break
            at += width
            letter += 1
        if at == end and letter and not name[letter]:
            return True
    return False


@kernel
def _lower(point):
    """Returns the lower case of ASCII letters and the Kelvin sign; other code points unchanged."""
    if 0x41 <= point <= 0x5A:
        return point | 0x20
    return _K if point == _KELVIN else point
