# mypy: disallow-untyped-defs=False
"""Scans for personal data: texts as bytes, the candidates that pass a kind's check, and their replacement."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.buffers import text_buffers

Spans = npt.NDArray[np.int64]  # (spans, 2): start and end, as bytes of the batch, ascending, disjoint
#: `check(document, start, end)` gives the spans, as bytes of the document, that a candidate holds.
Check = Callable[[bytes, int, int], Iterable[tuple[int, int]]]

#: Digits of the shortest number that anything looks for: nine, or eight before a letter (Spain's DNI) or behind a `+` (+43 1 72570).
FEWEST_DIGITS, FEWEST_MARKED = 9, 8
FEWEST_CODE_DIGITS = 6
PORTION = 50_000  # candidates
BYTES_A_FIND = 256  # a guess that saves the second scan

NONE: Spans = np.zeros((0, 2), np.int64)


class TextColumn:
    """A column of texts as one buffer, and the scans that more than one kind asks for."""

    def __init__(self, column: pa.Array):
        self.data, self.offsets = text_buffers(column)

    def scan(self, kernel: Callable[..., int], *options: Any) -> Spans:
        """The finds of a kernel, which is called again if there was not enough room for them."""
        room = len(self.data) // BYTES_A_FIND + 16
        while True:
            spans = np.empty((room, 2), np.int64)
            count = kernel(self.data, self.offsets, spans, CLASSES, *options)
            if count <= room:
                return spans[:count].copy()
            room = count

    @cached_property
    def numbers(self) -> Spans:
        return self.scan(numbers, FEWEST_DIGITS, FEWEST_MARKED)

    @cached_property
    def codes(self) -> Spans:
        return self.scan(codes, FEWEST_CODE_DIGITS)

    def documents_of(self, spans: Spans) -> npt.NDArray[np.int64]:
        """The number of the document that each span lies in."""
        return np.searchsorted(self.offsets, spans[:, 0], "right") - 1

    def checked(self, candidates: Spans, check: Check) -> Spans:
        """What the check finds in the candidates: where two finds overlap the first one stays."""
        found: list[tuple[int, int]] = []
        here, document, base, done = -1, b"", 0, 0
        for start, end, place in self._rows(candidates):
            if place != here:
                base, stop = int(self.offsets[place]), int(self.offsets[place + 1])
                here, document = place, self.data[base:stop].tobytes()
            for first, last in check(document, start - base, end - base):
                if base + first >= done:
                    done = base + last
                    found.append((base + first, done))
        return np.array(found, np.int64).reshape(-1, 2)

    def _rows(self, candidates: Spans) -> Iterator[tuple[int, int, int]]:
        """Start, end and document of each candidate. Hostile texts have millions, so that they become Python objects in portions."""
        for first in range(0, len(candidates), PORTION):
            portion = candidates[first : first + PORTION]
            yield from zip(portion[:, 0].tolist(), portion[:, 1].tolist(), self.documents_of(portion).tolist())


def without_overlaps(kinds: Sequence[Spans]) -> list[Spans]:
    """The spans of each kind that touch no span of a kind before it."""
    taken, kept = NONE, []
    for spans in kinds:
        if len(taken) and len(spans):
            after = np.searchsorted(taken[:, 1], spans[:, 0], "right")  # the first taken one that ends behind the start
            begins = np.append(taken[:, 0], np.iinfo(np.int64).max)[after]
            spans = spans[begins >= spans[:, 1]]
        kept.append(spans)
        taken = np.concatenate([taken, spans])
        taken = taken[np.argsort(taken[:, 0], kind="stable")]
    return kept


def counts(texts: TextColumn, spans: Spans) -> npt.NDArray[np.int64]:
    """How many of the spans each document holds."""
    return np.bincount(texts.documents_of(spans), minlength=len(texts.offsets) - 1).astype(np.int64)


def replaced(column: pa.Array, texts: TextColumn, replacements: Sequence[tuple[Spans, str]]) -> pa.Array:
    """The column with a text in place of each span. The spans of all replacements must be disjoint."""
    spans = np.concatenate([spans for spans, _ in replacements]) if replacements else NONE
    if not len(spans):
        return column
    which = np.repeat(np.arange(len(replacements)), [len(spans) for spans, _ in replacements])
    order = np.argsort(spans[:, 0], kind="stable")
    spans, which = spans[order], which[order]
    placeholders = [text.encode() for _, text in replacements]
    data, at = texts.data.data, int(texts.offsets[0])
    pieces: list[Any] = []
    for (start, end), kind in zip(spans.tolist(), which.tolist()):
        pieces += [data[at:start], placeholders[kind]]
        at = end
    pieces.append(data[at : int(texts.offsets[-1])])
    grown = np.cumsum(np.array([len(text) for text in placeholders])[which] - (spans[:, 1] - spans[:, 0]))
    before = np.searchsorted(spans[:, 0], texts.offsets, "left")  # replacements before each document
    offsets = texts.offsets - texts.offsets[0] + np.concatenate([[0], grown])[before]
    return pa.LargeStringArray.from_buffers(len(column), pa.py_buffer(offsets.astype(np.int64)), pa.py_buffer(b"".join(pieces)))


# ---- Where personal data could be: linear scans of UTF-8 bytes that pass over nearly all text
#
# Each scan writes start and end in `data` of its candidates, ascending, each inside one document, into `spans` (int64, n by 2) and returns
# how many there are, which may be more than fit. A scan looks at each byte a bounded number of times. Only ASCII matters: bytes
# of other characters end a run as any other sign does.

WORD, DIGIT, UPPER, HEX, ATOM, HOST, BETWEEN, JOIN = 1, 2, 4, 8, 16, 32, 64, 128


def _classes():
    table = np.zeros(256, np.uint8)
    digits, upper, lower = b"0123456789", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"abcdefghijklmnopqrstuvwxyz"
    for bits, members in (
        (WORD, digits + upper + lower + b"_"),
        (DIGIT, digits),
        (UPPER, upper),
        (HEX, digits + b"abcdefABCDEF"),
        (ATOM, digits + upper + lower + b"!#$%&'*+/=?^_`{|}~-."),  # RFC 5322's atext, and the dots between atoms
        (HOST, digits + upper + lower + b"-."),
        # between the digits of a number: these, no-break spaces (C2 A0, E2 80 AF) and hyphens of Unicode (E2 80 90 to 93)
        (BETWEEN, b" -./()\xc2\xa0\xe2\x80\x90\x91\x92\x93\xaf"),
        (JOIN, b"-./+()"),
    ):
        table[list(members)] |= bits
    return table


CLASSES = _classes()
MOST_BETWEEN = 5  # bytes between two digits of one number
LONGEST_CODE = 34  # letters and digits of an IBAN


@kernel(inline="always")
def _put(spans, count, start, end):
    """Counts one more; it is written as long as there is room."""
    if count < len(spans):
        spans[count, 0] = start
        spans[count, 1] = end
    return count + 1


@kernel
def addresses(data, offsets, spans, classes):
    """What surrounds each `@`: the characters that an email address may have on its left and on its right."""
    count = 0
    for document in range(len(offsets) - 1):
        begin, stop = offsets[document], offsets[document + 1]
        for at in range(begin + 1, stop - 1):
            if data[at] != 64 or not classes[data[at - 1]] & ATOM or not classes[data[at + 1]] & HOST:
                continue
            start, end = at, at + 1
            while start > begin and classes[data[start - 1]] & ATOM:
                start -= 1
            while end < stop and classes[data[end]] & HOST:
                end += 1
            count = _put(spans, count, start, end)
    return count


@kernel
def dotted_numbers(data, offsets, spans, classes):
    """Runs of digits and dots with three dots or more, from their first digit on."""
    count = 0
    for document in range(len(offsets) - 1):
        at, stop = offsets[document], offsets[document + 1]
        while at < stop:
            if not classes[data[at]] & DIGIT:
                at += 1
                continue
            start, dots = at, 0
            while at < stop and (classes[data[at]] & DIGIT or data[at] == 46):
                dots += data[at] == 46
                at += 1
            if dots >= 3:
                count = _put(spans, count, start, at)
    return count


@kernel
def colon_groups(data, offsets, spans, classes):
    """Runs of hexadecimal digits, dots and two colons or more that fit an IPv6 address (at most 45 bytes)."""
    count = 0
    for document in range(len(offsets) - 1):
        begin, stop = offsets[document], offsets[document + 1]
        at = begin
        while at < stop:
            if data[at] != 58:
                at += 1
                continue
            start = at
            while start > begin and at - start < 5 and classes[data[start - 1]] & HEX:
                start -= 1
            colons = 0
            while at < stop and (classes[data[at]] & HEX or data[at] == 58 or data[at] == 46):
                colons += data[at] == 58
                at += 1
            if colons >= 2 and 4 < at - start <= 46:
                count = _put(spans, count, start, at)
    return count


@kernel
def numbers(data, offsets, spans, classes, least, marked_least):
    """Runs of digits with at most five bytes of separators between two, of `least` digits or more; `marked_least` are enough where
    a letter follows or a `+` stands before.

    A `+` or `(` before the first digit belongs to the run.
    """
    count = 0
    for document in range(len(offsets) - 1):
        begin, stop = offsets[document], offsets[document + 1]
        at = begin
        while at < stop:
            if not classes[data[at]] & DIGIT:
                at += 1
                continue
            start, end, digits = at, at, 0
            while at < stop:
                if classes[data[at]] & DIGIT:
                    digits += 1
                    at += 1
                    end = at
                elif at - end < MOST_BETWEEN and classes[data[at]] & BETWEEN:
                    at += 1
                else:
                    break
            at = end
            if digits < marked_least:
                continue
            for _ in range(2):
                if start > begin and (data[start - 1] == 43 or data[start - 1] == 40):
                    start -= 1
            marked = data[start] == 43 or data[start + 1] == 43 or (end < stop and classes[data[end]] & WORD)
            if digits >= least or marked:
                count = _put(spans, count, start, end)
    return count


@kernel
def codes(data, offsets, spans, classes, least_digits):
    """Words of capital letters and digits, parts joined by one of `-./+(`, with a letter and `least_digits` digits or more."""
    count = 0
    for document in range(len(offsets) - 1):
        begin, stop = offsets[document], offsets[document + 1]
        at = begin
        while at < stop:
            if not classes[data[at]] & WORD:
                at += 1
                continue
            start, digits, letters = at, 0, 0
            while at < stop:
                kind = classes[data[at]]
                if kind & DIGIT:
                    digits += 1
                elif kind & UPPER:
                    letters += 1
                elif not (kind & JOIN and at + 1 < stop and classes[data[at + 1]] & (DIGIT | UPPER)):
                    break
                at += 1
            end = at
            while at < stop and classes[data[at]] & WORD:  # a word with small letters is passed over
                at += 1
            if at == end and letters and digits >= least_digits:
                count = _put(spans, count, start, end)
            if at == start:
                at += 1
    return count


@kernel
def account_numbers(data, offsets, spans, classes):
    """Two capital letters and two digits at the edge of a word, then letters and digits, one space or hyphen between: 15 to 34 of them."""
    count = 0
    for document in range(len(offsets) - 1):
        begin, stop = offsets[document], offsets[document + 1]
        at = begin
        while at + 15 <= stop:
            if not (classes[data[at]] & UPPER and classes[data[at + 2]] & DIGIT and classes[data[at + 3]] & DIGIT):
                at += 1
                continue
            if not classes[data[at + 1]] & UPPER or (at > begin and classes[data[at - 1]] & WORD):
                at += 1
                continue
            end, length = at, 0
            while end < stop and length <= LONGEST_CODE:
                if classes[data[end]] & (DIGIT | UPPER):
                    length += 1
                elif not ((data[end] == 32 or data[end] == 45) and end + 1 < stop and classes[data[end + 1]] & (DIGIT | UPPER)):
                    break
                end += 1
            if length >= 15:
                count = _put(spans, count, at, end)
            at += 4
    return count


def prefix_table(prefixes):
    """A table of 65,536 slots that `prefixes_at` looks three bytes up in; some others share their slots."""
    table = np.zeros(1 << 16, np.bool_)
    for prefix in prefixes:
        table[prefix_slot(prefix[0], prefix[1], prefix[2])] = True
    return table


@kernel(inline="always")
def prefix_slot(first, second, third):
    return (np.int64(first) * 31 * 31 + np.int64(second) * 31 + np.int64(third)) & 0xFFFF


@kernel
def prefixes_at(data, offsets, spans, classes, table):
    """The first three bytes of words (and of what begins with a colon or hyphens) that are in the table."""
    count = 0
    for document in range(len(offsets) - 1):
        begin, stop = offsets[document], offsets[document + 1]
        before = np.uint8(0)
        for at in range(begin, stop - 2):
            byte = data[at]
            # a word begins, or a colon stands, or the first of some hyphens
            if ((not before & WORD and byte != 45) or byte == 58 or (byte == 45 and not before & JOIN)) and table[
                prefix_slot(byte, data[at + 1], data[at + 2])
            ]:
                count = _put(spans, count, at, at + 3)
            before = classes[byte]
    return count
