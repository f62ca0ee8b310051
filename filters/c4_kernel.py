# mypy: disallow-untyped-defs=False
"""C4's line rules as one compiled pass: reads a text buffer, writes that of the lines that stay, counts the others by reason."""

import numpy as np

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.lines import line_end, only_newlines
from corpusmill.pipeline.text.utf8 import DIGIT, NEWLINE, decode, find_byte, strip_end, strip_start
from corpusmill.pipeline.text.words import count_split_words, has_longer_word

#: What a row of the output counts.
LINES, KEPT, LONG_WORD, UNPUNCTUATED, SHORT, JAVASCRIPT, POLICY, LOREM_IPSUM, CURLY_BRACKET = range(9)
COUNTS = 9

#: Options, or-ed.
PUNCTUATED, NO_CITATIONS, NO_JAVASCRIPT, NO_POLICY, WORDS_WITHOUT_CITATIONS = 1, 2, 4, 8, 16

_DOT, _OPEN, _CLOSE, _CURLY = ord("."), ord("["), ord("]"), ord("{")

#: Phrases that are looked for in the lower-cased line, with what they mean and the place of their rarest letter.
_PHRASES = (
    ("javascript", JAVASCRIPT, 0), ("lorem ipsum", LOREM_IPSUM, 7), ("terms of use", POLICY, 7), ("privacy policy", POLICY, 3),
    ("cookie policy", POLICY, 3), ("uses cookies", POLICY, 8), ("use of cookies", POLICY, 10), ("use cookies", POLICY, 7),
)  # fmt: skip
_LETTERS = np.zeros((len(_PHRASES), 16), np.uint8)
for _number, (_phrase, _, _) in enumerate(_PHRASES):
    _LETTERS[_number, : len(_phrase)] = list(_phrase.encode())
_LENGTHS = np.array([len(phrase) for phrase, _, _ in _PHRASES])
_MEANINGS = np.array([1 << meaning for _, meaning, _ in _PHRASES])
_ANCHORS = np.array([anchor for _, _, anchor in _PHRASES])
#: First bytes of characters at which a search has to look closer: the rare letters, the Kelvin sign (whose lower case is k), {.
_KELVIN = 0xE2
_LOOK = np.zeros(256, np.bool_)
for _phrase, _, _anchor in _PHRASES:
    _LOOK[[ord(_phrase[_anchor]), ord(_phrase[_anchor].upper())]] = True
_LOOK[[_KELVIN, _CURLY]] = True

#: The first mark of a line whose tokens are not known.
CHANGED = np.uint8(0xFF)
_CITATIONS = (b"edit]", b"citation needed]")
_EDIT, _NEEDED = (np.frombuffer(name, np.uint8) for name in _CITATIONS)


@kernel
def rewrite_texts(data, offsets, marks, classes, end_marks, options, min_words, max_word_length, new_data, new_offsets, new_marks, counts):
    """Fills `new_data` (as long as the texts), `new_offsets` (int64, texts + 1) and `counts` (int64, texts x COUNTS).

    `marks` is empty or has one mark a byte; then `new_marks` gets those of the new texts, but CHANGED and zeros for lines
    from which citations were taken.

    The new texts are the kept lines with a newline between them; `strip_texts` remains to be called.
    `classes` are `character_classes`, `end_marks` (bool, 256) the last bytes of lines that end well, `options` the flags above.
    """
    place = np.int64(0)
    new_offsets[0] = 0
    for text in range(offsets.size - 1):
        at, end, row = offsets[text], offsets[text + 1], counts[text]
        newlines = only_newlines(data[at:end])
        while at < end:
            stop, after = line_end(data, at, end, newlines)
            start = strip_start(data, at, stop, classes)
            stop = strip_end(data, start, stop, classes)
            at = after
            begin = place + (row[KEPT] > 0)
            row[LINES] += 1
            if has_longer_word(data, start, stop, classes, max_word_length):
                row[LONG_WORD] += 1
                continue
            last = _copy_line(data, start, stop, classes, options & NO_CITATIONS, new_data, begin)
            if options & PUNCTUATED and not _ends_well(new_data, begin, last, end_marks):
                row[UNPUNCTUATED] += 1
                continue
            if options & WORDS_WITHOUT_CITATIONS:
                words = count_split_words(new_data, begin, last, classes, min_words)
            else:
                words = count_split_words(data, start, stop, classes, min_words)
            if words < min_words:
                row[SHORT] += 1
                continue
            if _content_speaks_against(_phrases_in(new_data, begin, last), options, row):
                continue
            if row[KEPT]:
                new_data[place] = NEWLINE
            if marks.size:
                _copy_marks(marks[start:stop], new_marks, place, begin, last)
            row[KEPT] += 1
            place = last
        new_offsets[text + 1] = place


@kernel
def _copy_marks(marks, new_marks, place, begin, end):
    """The marks of one line, and none for the newline between `place` and `begin`."""
    new_marks[place:end] = 0
    if end - begin == marks.size:
        for at in range(marks.size):
            new_marks[begin + at] = marks[at]
    elif end > begin:
        new_marks[begin] = CHANGED


@kernel
def line_spans(data, offsets, lines, starts, ends):
    """Fills `starts` and `ends` (int64) with where the lines lie, of which text i has `lines[i]`, cut at newlines."""
    span = 0
    for text in range(offsets.size - 1):
        at = offsets[text]
        for _ in range(lines[text]):
            starts[span] = at
            ends[span] = find_byte(data, at, offsets[text + 1], NEWLINE)
            at = ends[span] + 1
            span += 1


@kernel
def strip_texts(data, marks, offsets, classes):
    """Strips all texts in place (`str.strip`), and closes the gaps between them; `marks`, where there are any, move with their bytes."""
    place = first = offsets[0]
    for text in range(offsets.size - 1):
        last = strip_end(data, first, offsets[text + 1], classes)
        start = strip_start(data, first, last, classes)
        first = offsets[text + 1]
        if start > place:
            for at in range(start, last):
                data[place + at - start] = data[at]
                if marks.size:
                    marks[place + at - start] = marks[at]
        place += last - start
        offsets[text + 1] = place


@kernel
def _ends_well(data, start, end, end_marks):
    if end == start or not end_marks[data[end - 1]]:
        return False
    return end - start < 3 or data[end - 1] != _DOT or data[end - 2] != _DOT or data[end - 3] != _DOT


@kernel
def _content_speaks_against(found, options, row):
    """Whether the content of a line lets it go. Lines that speak against their document are counted on the way, in datatrove's order."""
    row[LOREM_IPSUM] += (found >> LOREM_IPSUM) & 1
    if options & NO_JAVASCRIPT and (found >> JAVASCRIPT) & 1:
        row[JAVASCRIPT] += 1
        return True
    row[CURLY_BRACKET] += (found >> CURLY_BRACKET) & 1
    if options & NO_POLICY and (found >> POLICY) & 1:
        row[POLICY] += 1
        return True
    return False


@kernel
def _copy_line(data, start, end, classes, without_citations, new_data, place):
    """Copies a line, without what `\\[\\d*]|\\[edit]|\\[citation needed]` matches; returns where the copy ends."""
    at = start
    while at < end:
        stop = find_byte(data, at, end, _OPEN) if without_citations else end
        for source in range(at, stop):
            new_data[place + source - at] = data[source]
        place += stop - at
        if stop == end:
            return place
        at = _citation_end(data, stop, end, classes)
        if at == stop:
            new_data[place] = _OPEN
            place += 1
            at += 1
    return place


@kernel
def _citation_end(data, at, end, classes):
    """Where the citation ends that begins with the bracket at `at`; `at` where none does."""
    inside = at + 1
    if inside + _EDIT.size <= end and _equal(data, inside, _EDIT):
        return inside + _EDIT.size
    if inside + _NEEDED.size <= end and _equal(data, inside, _NEEDED):
        return inside + _NEEDED.size
    while inside < end:
        if data[inside] == _CLOSE:
            return inside + 1
        point, width = decode(data, inside)
        if not classes[point] & DIGIT:
            return at
        inside += width
    return at


@kernel
def _equal(data, at, name):
    same = True
    for place in range(name.size):
        same &= data[at + place] == name[place]
    return same


@kernel
def _phrases_in(data, start, end):
    """The meanings of all phrases in the span, and CURLY_BRACKET, as bits."""
    found = 0
    for at in range(start, end):
        if _LOOK[data[at]]:
            if data[at] == _CURLY:
                found |= 1 << CURLY_BRACKET
            else:
                found |= _phrases_at(data, start, end, at)
    return found


@kernel
def _phrases_at(data, start, end, at):
    """The meanings of the phrases that have their rare letter at `at`. No phrase has a second k, so only this one can be a Kelvin sign."""
    letter, width = data[at] | 0x20, 1
    if data[at] == _KELVIN:
        if data[at + 1] != 0x84 or data[at + 2] != 0xAA:
            return 0
        letter, width = ord("k"), 3
    found = 0
    for phrase in range(_LENGTHS.size):
        anchor = _ANCHORS[phrase]
        rest = _LENGTHS[phrase] - anchor - 1
        if _LETTERS[phrase, anchor] != letter or at - anchor < start or at + width + rest > end:
            continue
        same = True
        for place in range(anchor):
            same &= _lower(data[at - anchor + place]) == _LETTERS[phrase, place]
        for place in range(rest):
            same &= _lower(data[at + width + place]) == _LETTERS[phrase, anchor + 1 + place]
        if same:
            found |= _MEANINGS[phrase]
    return found


@kernel(inline="always")
def _lower(byte):
    return byte | 0x20 if 0x41 <= byte <= 0x5A else byte
