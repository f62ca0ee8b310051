# mypy: disallow-untyped-defs=False
"""Scans for personal data: texts as bytes, the check of candidates, and the replacement of finds."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import yaml

from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import text_buffers
from corpusmill.text.utf8 import find_byte

Spans = npt.NDArray[np.int64]  # (spans, 2): start and end, in bytes of the batch; ascending, disjoint
#: `check(document, start, end, last)` yields what it finds in a candidate: kind, start and end, in bytes of the document. `last` is the
#: kind and the end of the find before, NO_FIND if there is none.
Check = Callable[[bytes, int, int, tuple[str, int]], Iterable[tuple[str, int, int]]]
NO_FIND = ("", 0)

#: The forms of secrets and of numbers of persons, and other tables.
LISTS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("pii.yaml").read_bytes())
PORTION = 50_000  # candidates that are converted to Python objects at a time
BYTES_A_FIND = 256  # a guess: with enough room a scan need not be repeated
NONE: Spans = np.zeros((0, 2), np.int64)


class TextColumn:
    """A column of texts as one buffer."""

    def __init__(self, column: pa.Array):
        self.data, self.offsets = text_buffers(column)

    def _scan(self, wanted: int) -> Spans:
        """Returns the candidates of the kind `wanted` (ADDRESSES, ...). The scan is repeated if the array was too small for them."""
        spans = np.empty((len(self.data) // BYTES_A_FIND + 16, 2), np.int64)
        while (found := scan(wanted, self.data, self.offsets, spans)) > len(spans):
            spans = np.empty((found, 2), np.int64)
        return spans[:found]

    def documents_of(self, spans: Spans) -> npt.NDArray[np.int64]:
        """Returns, for each span, the number of its document."""
        return np.searchsorted(self.offsets, spans[:, 0], "right") - 1

    def finds(self, wanted: int, check: Check) -> Iterator[tuple[str, int, int]]:
        """Yields what the check finds in the candidates of a scan: kind, start and end in bytes of the batch, in order, disjoint."""
        here, document, base, last = -1, b"", 0, NO_FIND
        for start, end, place in self._rows(self._scan(wanted)):
            if place != here:
                base, stop = int(self.offsets[place]), int(self.offsets[place + 1])
                here, document, last = place, self.data[base:stop].tobytes(), NO_FIND
            for kind, first, past in check(document, start - base, end - base, last):
                if first >= last[1]:
                    last = kind, past
                    yield kind, base + first, base + past

    def _rows(self, candidates: Spans) -> Iterator[tuple[int, int, int]]:
        """Yields start, end and document of each candidate. Hostile texts have millions, so these become Python objects in portions."""
        for first in range(0, len(candidates), PORTION):
            portion = candidates[first : first + PORTION]
            yield from zip(portion[:, 0].tolist(), portion[:, 1].tolist(), self.documents_of(portion).tolist())


def without_overlaps(kinds: Sequence[Spans]) -> list[Spans]:
    """Returns the spans of each kind without the spans that overlap a span of an earlier kind."""
    taken, kept = NONE, []
    for spans in kinds:
        if len(taken) and len(spans):
            after = np.searchsorted(taken[:, 1], spans[:, 0], "right")  # the first taken span that ends after the start
            begins = np.append(taken[:, 0], np.iinfo(np.int64).max)[after]
            spans = spans[begins >= spans[:, 1]]
        kept.append(spans)
        taken = np.concatenate([taken, spans])
        taken = taken[np.argsort(taken[:, 0], kind="stable")]
    return kept


def counts(texts: TextColumn, spans: Spans) -> npt.NDArray[np.int64]:
    """Returns the number of spans in each document."""
    return np.bincount(texts.documents_of(spans), minlength=len(texts.offsets) - 1).astype(np.int64)


def replaced(column: pa.Array, texts: TextColumn, replacements: Sequence[tuple[Spans, str]]) -> pa.Array:
    """Returns the column with each span replaced by its text. The spans of all replacements must be disjoint."""
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


# ---- Where personal data could be: linear scans of UTF-8 bytes that skip nearly all text

WORD, DIGIT, UPPER, BETWEEN, LEAD = 1, 2, 4, 8, 16


def _classes() -> npt.NDArray[np.uint8]:
    table = np.zeros(256, np.uint8)
    digits, upper, lower = b"0123456789", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"abcdefghijklmnopqrstuvwxyz"
    for bits, members in (
        (WORD, digits + upper + lower + b"_"),
        (DIGIT, digits),
        (UPPER, upper),
        # between the parts of a number: these, and the bytes of other spaces (C2 A0, E2 80 xx), hyphens (E2 80 90 to 95), full-width signs
        (BETWEEN, b" -./():+<\xc2\xa0\xe2\x80\x89\x8a\x90\x91\x92\x93\x94\x95\xaf\xef\xbc\x88\x8b\x8d\x8e\x9a"),
        (LEAD, b"\xd9\xdb\xe0\xef"),  # the first byte of digits beyond ASCII
    ):
        table[list(members)] |= bits
    return table


CLASSES = _classes()
AT, COLON, DOT, HYPHEN, SLASH, SPACE, ZERO, ONE, TWO, NINE = np.uint8(ord("@")), *b":.-/ 0129"
#: The fewest digits of a candidate, of one that has letters, and of one in which a word of ten capitals and digits stands (India's PAN).
FEWEST_DIGITS, FEWEST_WITH_LETTERS, FEWEST_IN_CODE, CODE = 7, 6, 4, 10
MOST_BETWEEN = 8  # bytes between two parts of one candidate
LONGEST_LETTERS = 4  # of a part without digits: the bank's code in an account number, a group of an IPv6 address
LONGEST = 256  # bytes of a candidate; a table of numbers gives several
LONGEST_WORD = 40
FEWEST_COLONS = 6  # of an IPv6 address without `::`
SHORTEST_ACCOUNT = 15
SHORTEST_SECRET = 16


# A finder looks from `at` on in the document from `begin` to `stop`, and returns `(start, end, after)`: the first candidate, empty if there
# is none, and where the search goes on. It reads each byte a bounded number of times.


@kernel
def find_address(data, at, begin, stop):
    """Finds each `@` between two characters of words."""
    at = find_byte(data, at, stop, AT)
    if begin < at < stop - 1 and data[at - 1] > SPACE and (CLASSES[data[at + 1]] & WORD or data[at + 1] >= 0x80):
        return at, at + 1, at + 1
    return at, at, at + 1


@kernel
def digit_width(data, at, stop):
    """Returns the bytes of the digit at a position: ASCII, of the Near East, of India, Thai, Lao or full-width; 0: there is none."""
    if CLASSES[data[at]] & DIGIT:
        return 1
    if not CLASSES[data[at]] & LEAD or at + 2 > stop:
        return 0
    first, second = data[at], data[at + 1]
    if first == 0xD9:
        return 2 if 0xA0 <= second <= 0xA9 else 0
    if first == 0xDB:
        return 2 if 0xB0 <= second <= 0xB9 else 0
    if at + 3 > stop:
        return 0
    third = data[at + 2]
    if first == 0xEF:
        return 3 if second == 0xBC and 0x90 <= third <= 0x99 else 0
    if second == 0xB9 or second == 0xBB:
        return 3 if 0x90 <= third <= 0x99 else 0
    return 3 if second & 1 and 0xA5 <= second <= 0xB5 and 0xA6 <= third <= 0xAF else 0


@kernel
def _two_digits(data, at, stop):
    return at + 2 <= stop and CLASSES[data[at]] & CLASSES[data[at + 1]] & DIGIT > 0


@kernel
def _year(data, at, stop):
    """Whether a year from 1900 to 2099 is written at a position."""
    return _two_digits(data, at, stop) and _two_digits(data, at + 2, stop) and (
        (data[at] == ONE and data[at + 1] == NINE) or (data[at] == TWO and data[at + 1] == ZERO)
    )  # fmt: skip


@kernel
def date_or_time(data, at, stop):
    """Returns the bytes of a date (2024-05-06), years (1999-2004) or a time (12:30:15) that stands alone at a position; 0: none."""
    end = at
    if _year(data, at, stop) and at + 9 <= stop and HYPHEN <= data[at + 4] <= SLASH:
        if _year(data, at + 5, stop):
            end = at + 9
        elif _two_digits(data, at + 5, stop) and data[at + 7] == data[at + 4] and _two_digits(data, at + 8, stop):
            end = at + 10
    elif _two_digits(data, at, stop) and _two_digits(data, at + 3, stop) and data[at + 2] == COLON:
        end = at + 8 if at + 8 <= stop and data[at + 5] == COLON and _two_digits(data, at + 6, stop) else at + 5
    alone = end == stop or (end < stop and not CLASSES[data[end]] & WORD and data[end] != COLON)
    return end - at if alone else 0


@kernel
def find_number(data, at, begin, stop):
    """Finds runs of words with digits that could be a number of any kind: with enough digits, four dotted parts, or colons as in IPv6.

    Between two parts stand at most MOST_BETWEEN bytes of the class BETWEEN, or such with a short word of capitals or hexadecimal digits.
    Dates and times end a run.
    """
    while at < stop and not digit_width(data, at, stop):
        at += 1
    start, end, digits, dotted, colons, code, single = at, at, 0, 0, 0, False, 0
    while start > begin and CLASSES[data[start - 1]] & WORD and at - start < LONGEST_WORD:
        start -= 1
    account = at - start == 2
    while at < stop and at - start < LONGEST:
        width = digit_width(data, at, stop)
        if width:
            if at == begin or not (CLASSES[data[at - 1]] & WORD or data[at - 1] == COLON):
                skipped = date_or_time(data, at, stop)
                if skipped:
                    if at == start:
                        return at, at, at + skipped
                    break
            digits += 1
            at += width
            end = at
        elif CLASSES[data[at]] & WORD:
            first, capitals, has_digit = at, True, at == end
            while at < stop and CLASSES[data[at]] & WORD and at - first < LONGEST_WORD:
                has_digit |= CLASSES[data[at]] & DIGIT > 0
                digits += CLASSES[data[at]] & DIGIT > 0
                capitals &= CLASSES[data[at]] & (DIGIT | UPPER) > 0
                at += 1
            if has_digit:
                code |= capitals and at - first == CODE
                end = at
            elif at - first > LONGEST_LETTERS or not (capitals or account or at - first == 1 or data[first - 1] == COLON):
                break
            elif data[first - 1] == COLON:
                end = at
            elif at - first == 1:
                single = at
        elif at - end < (2 * MOST_BETWEEN if account else MOST_BETWEEN) and CLASSES[data[at]] & BETWEEN:
            if data[at] == COLON:
                colons += 1 + (FEWEST_COLONS if data[at - 1] == COLON else 0)
            elif data[at] == DOT:
                dotted = dotted + 1 if at == end else 0
            elif dotted < 3:
                dotted = 0
            at += 1
        else:
            break
    found = digits >= FEWEST_DIGITS or (dotted >= 3 and digits >= 5) or colons >= FEWEST_COLONS
    found |= digits == FEWEST_WITH_LETTERS and (single > end or (end > start and not CLASSES[data[end - 1]] & DIGIT))
    found |= (digits >= FEWEST_IN_CODE and (code or end - start == CODE)) or (account and digits >= 3 and end - start >= SHORTEST_ACCOUNT)
    return start, end if found else start, max(end, at)


def _slot(first, second, third):
    return (np.int64(first) * 31 * 31 + np.int64(second) * 31 + np.int64(third)) & 0xFFFF


def prefix_table(literals: Iterable[str]) -> npt.NDArray[np.bool_]:
    """Returns bool (65,536,): the slots of the first three bytes of some strings. Other bytes may have the same slots."""
    table = np.zeros(1 << 16, np.bool_)
    for literal in literals:
        table[_slot(*literal.encode()[:3])] = True
    return table


SECRET_BEGINNINGS = prefix_table(prefix for form in LISTS["secrets"].values() for prefix in form.split()[:-1])
prefix_slot = kernel(inline="always")(_slot)


@kernel
def _could_be_secret(data, at, stop):
    """Whether at least SHORTEST_SECRET bytes without a space follow, or behind `://` an `@` before the host ends, or hyphens."""
    end = at + 3
    if data[at] == COLON and data[at + 2] == SLASH:
        while end < stop and end - at < LONGEST and data[end] > SPACE and data[end] != SLASH and data[end] != AT:
            end += 1
        return end < stop and data[end] == AT
    while end < stop and end - at < SHORTEST_SECRET and data[end] > SPACE:
        end += 1
    return end - at == SHORTEST_SECRET or data[at] == HYPHEN


@kernel
def find_prefix(data, at, begin, stop):
    """Finds the first three bytes of words, and of strings with a colon or hyphens at the start, that can begin a secret."""
    before = data[at - 1] if at > begin else np.uint8(0)
    while at + 2 < stop:
        byte = data[at]
        # at the start of a word, at a colon, or at the first of some hyphens
        starts = byte == COLON or (not CLASSES[before] & WORD and not (byte == HYPHEN and before == HYPHEN))
        if starts and SECRET_BEGINNINGS[prefix_slot(byte, data[at + 1], data[at + 2])] and _could_be_secret(data, at, stop):
            return at, at + 3, at + 1
        before = byte
        at += 1
    return stop, stop, stop


#: What a scan looks for. numba caches no kernel that gets another as a closure or an argument, so the scan gets a number.
ADDRESSES, NUMBERS, PREFIXES = range(3)


@kernel
def scan(wanted, data, offsets, spans):
    """Writes start and end of the candidates in a column to `spans` (int64, n by 2). Returns their number, which may be more than fit."""
    count = 0
    for document in range(len(offsets) - 1):
        begin, stop = offsets[document], offsets[document + 1]
        at = begin
        while at < stop:
            if wanted == ADDRESSES:
                start, end, at = find_address(data, at, begin, stop)
            elif wanted == NUMBERS:
                start, end, at = find_number(data, at, begin, stop)
            else:
                start, end, at = find_prefix(data, at, begin, stop)
            if end > start:
                if count < len(spans):
                    spans[count, 0], spans[count, 1] = start, end
                count += 1
    return count
