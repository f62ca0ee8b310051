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
from corpusmill.pipeline.text.buffers import text_buffers
from corpusmill.pipeline.text.utf8 import find_byte

Spans = npt.NDArray[np.int64]  # (spans, 2): start and end, in bytes of the batch; ascending, disjoint
#: `check(document, start, end)` yields the spans, in bytes of the document, that it finds in a candidate.
Check = Callable[[bytes, int, int], Iterable[tuple[int, int]]]

#: The forms of secrets and of numbers of persons, and other tables.
LISTS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("pii.yaml").read_text("utf-8"))
PORTION = 50_000  # candidates that are converted to Python objects at a time
BYTES_A_FIND = 256  # a guess: with enough room a scan need not be repeated
NONE: Spans = np.zeros((0, 2), np.int64)


class TextColumn:
    """A column of texts as one buffer. Each scan of it is performed once."""

    def __init__(self, column: pa.Array):
        self.data, self.offsets = text_buffers(column)
        self._scanned: dict[Callable[..., int], Spans] = {}

    def candidates(self, *scans: Callable[..., int]) -> Spans:
        """Returns the finds of some scans in the order of the text. Of finds with the same start, the longest comes first."""
        found = [self._scan(scan) for scan in scans]
        if len(found) == 1:
            return found[0]
        spans = np.concatenate(found)
        return spans[np.lexsort((-spans[:, 1], spans[:, 0]))]

    def _scan(self, scan: Callable[..., int]) -> Spans:
        """Returns the finds of a scan. The scan is repeated if the array was too small for them."""
        size = len(self.data) // BYTES_A_FIND + 16
        while scan not in self._scanned:
            spans = np.empty((size, 2), np.int64)
            size = scan(self.data, self.offsets, spans)
            if size <= len(spans):
                self._scanned[scan] = spans[:size].copy()
        return self._scanned[scan]

    def documents_of(self, spans: Spans) -> npt.NDArray[np.int64]:
        """Returns, for each span, the number of its document."""
        return np.searchsorted(self.offsets, spans[:, 0], "right") - 1

    def checked(self, candidates: Spans, check: Check) -> Spans:
        """Returns what the check finds in the candidates. Of two overlapping finds, the first stays."""
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
#
# Only ASCII matters: the bytes of other characters end a run, as any other sign does.

WORD, DIGIT, UPPER, HEX, ATOM, HOST, BETWEEN, JOIN = 1, 2, 4, 8, 16, 32, 64, 128


def _classes() -> npt.NDArray[np.uint8]:
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
SPACE, OPEN, PLUS, HYPHEN, DOT, COLON, AT = b" (+-.:@"
#: The fewest digits of a number: nine; or eight before a letter (Spain's DNI) or after a `+` (+43 1 72570).
FEWEST_DIGITS, FEWEST_MARKED = 9, 8
FEWEST_CODE_DIGITS = 6
MOST_BETWEEN = 5  # bytes between two digits of one number
LONGEST_CODE = 34  # letters and digits of an IBAN


def scan(find: Any) -> Any:
    """Makes the scan of a column from `find(data, at, begin, stop)`.

    `find` looks from `at` on in the document from `begin` to `stop`, and returns `(start, end, after)`: the first candidate, empty if there
    is none, and where the search goes on. It reads each byte a bounded number of times. The scan writes start and end of the candidates
    into `spans` (int64, n by 2) and returns their number, which may be more than fit.
    """

    @kernel
    def scanned(data, offsets, spans):
        count = 0
        for document in range(len(offsets) - 1):
            begin, stop = offsets[document], offsets[document + 1]
            at = begin
            while at < stop:
                start, end, at = find(data, at, begin, stop)
                if end > start:
                    if count < len(spans):
                        spans[count, 0], spans[count, 1] = start, end
                    count += 1
        return count

    return scanned


@scan
@kernel
def addresses(data, at, begin, stop):
    """Finds each `@` with its surroundings: the characters that an email address may have to its left and to its right."""
    at = find_byte(data, at, stop, AT)
    start, end = at, at + 1
    if begin < at < stop - 1 and CLASSES[data[at - 1]] & ATOM and CLASSES[data[at + 1]] & HOST:
        while start > begin and CLASSES[data[start - 1]] & ATOM:
            start -= 1
        while end < stop and CLASSES[data[end]] & HOST:
            end += 1
        return start, end, at + 1
    return at, at, at + 1


@scan
@kernel
def dotted_numbers(data, at, begin, stop):
    """Finds runs of digits and dots with at least three dots, from their first digit on."""
    while at < stop and not CLASSES[data[at]] & DIGIT:
        at += 1
    start, dots = at, 0
    while at < stop and (CLASSES[data[at]] & DIGIT or data[at] == DOT):
        dots += data[at] == DOT
        at += 1
    return start, at if dots >= 3 else start, at


@scan
@kernel
def colon_groups(data, at, begin, stop):
    """Finds runs of hexadecimal digits, dots and at least two colons that are short enough for an IPv6 address (at most 45 bytes)."""
    at = find_byte(data, at, stop, COLON)
    start, colons = at, 0
    while start > begin and at - start < 5 and CLASSES[data[start - 1]] & HEX:
        start -= 1
    while at < stop and (CLASSES[data[at]] & HEX or data[at] == COLON or data[at] == DOT):
        colons += data[at] == COLON
        at += 1
    return start, at if colons >= 2 and 4 < at - start <= 46 else start, at


@scan
@kernel
def numbers(data, at, begin, stop):
    """Finds runs of at least FEWEST_DIGITS digits, with at most five bytes of separators between two digits.

    FEWEST_MARKED digits suffice if a letter follows or a `+` stands before. A `+` or `(` before the first digit belongs to the run.
    """
    while at < stop and not CLASSES[data[at]] & DIGIT:
        at += 1
    start, end, digits = at, at, 0
    while at < stop:
        if CLASSES[data[at]] & DIGIT:
            digits += 1
            at += 1
            end = at
        elif at - end < MOST_BETWEEN and CLASSES[data[at]] & BETWEEN:
            at += 1
        else:
            break
    if digits < FEWEST_MARKED:
        return end, end, end
    for _ in range(2):
        if start > begin and (data[start - 1] == PLUS or data[start - 1] == OPEN):
            start -= 1
    marked = data[start] == PLUS or data[start + 1] == PLUS or (end < stop and CLASSES[data[end]] & WORD)
    return start, end if digits >= FEWEST_DIGITS or marked else start, end


@scan
@kernel
def codes(data, at, begin, stop):
    """Finds words of capital letters and digits, parts joined by one of `-./+(`, with a letter and at least FEWEST_CODE_DIGITS digits."""
    while at < stop and not CLASSES[data[at]] & WORD:
        at += 1
    start, digits, letters = at, 0, 0
    while at < stop:
        kind = CLASSES[data[at]]
        if kind & DIGIT:
            digits += 1
        elif kind & UPPER:
            letters += 1
        elif not (kind & JOIN and at + 1 < stop and CLASSES[data[at + 1]] & (DIGIT | UPPER)):
            break
        at += 1
    end = at
    while at < stop and CLASSES[data[at]] & WORD:  # skips a word with small letters
        at += 1
    return start, end if at == end and letters and digits >= FEWEST_CODE_DIGITS else start, max(at, start + 1)


@scan
@kernel
def account_numbers(data, at, begin, stop):
    """Finds two capital letters and two digits at a word's start, then letters and digits, single spaces or hyphens: 15 to 34."""
    while at + 15 <= stop:
        if (
            CLASSES[data[at]] & UPPER and CLASSES[data[at + 2]] & DIGIT and CLASSES[data[at + 3]] & DIGIT
            and CLASSES[data[at + 1]] & UPPER and not (at > begin and CLASSES[data[at - 1]] & WORD)
        ):  # fmt: skip
            end, length = at, 0
            while end < stop and length <= LONGEST_CODE:
                if CLASSES[data[end]] & (DIGIT | UPPER):
                    length += 1
                elif not (data[end] in (SPACE, HYPHEN) and end + 1 < stop and CLASSES[data[end + 1]] & (DIGIT | UPPER)):
                    break
                end += 1
            return at, end if length >= 15 else at, at + 4
        at += 1
    return stop, stop, stop


def _slot(first, second, third):
    return (np.int64(first) * 31 * 31 + np.int64(second) * 31 + np.int64(third)) & 0xFFFF


#: bool (65,536,): the slots of the three bytes at the start of secrets. Other bytes may have the same slots.
PREFIXES = np.zeros(1 << 16, np.bool_)
for _prefix in LISTS["prefixes"]:
    PREFIXES[_slot(*_prefix.encode())] = True
prefix_slot = kernel(inline="always")(_slot)


@scan
@kernel
def prefixes(data, at, begin, stop):
    """Finds the first three bytes of words, and of strings with a colon or hyphens at the start, that can begin a secret."""
    before = CLASSES[data[at - 1]] if at > begin else np.uint8(0)
    while at + 2 < stop:
        byte = data[at]
        # at the start of a word, at a colon, or at the first of some hyphens
        if ((not before & WORD and byte != HYPHEN) or byte == COLON or (byte == HYPHEN and not before & JOIN)) and PREFIXES[
            prefix_slot(byte, data[at + 1], data[at + 2])
        ]:
            return at, at + 3, at + 1
        before = CLASSES[byte]
        at += 1
    return stop, stop, stop
