"""Texts of a batch as bytes, the candidates in them that pass a kind's check, and what stands in their place."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.filters.pii import scan
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


class Texts:
    """A column of texts as one buffer, and the scans that more than one kind asks for."""

    def __init__(self, column: pa.Array):
        self.data, self.offsets = text_buffers(column)

    def scan(self, kernel: Callable[..., int], *options: Any) -> Spans:
        """What a kernel of `scan.py` finds: it is called again where its finds were more than the room for them."""
        room = len(self.data) // BYTES_A_FIND + 16
        while True:
            spans = np.empty((room, 2), np.int64)
            count = kernel(self.data, self.offsets, spans, scan.CLASSES, *options)
            if count <= room:
                return spans[:count].copy()
            room = count

    @cached_property
    def numbers(self) -> Spans:
        return self.scan(scan.numbers, FEWEST_DIGITS, FEWEST_MARKED)

    @cached_property
    def codes(self) -> Spans:
        return self.scan(scan.codes, FEWEST_CODE_DIGITS)

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


def counts(texts: Texts, spans: Spans) -> npt.NDArray[np.int64]:
    """How many of the spans each document holds."""
    return np.bincount(texts.documents_of(spans), minlength=len(texts.offsets) - 1).astype(np.int64)


def replaced(column: pa.Array, texts: Texts, replacements: Sequence[tuple[Spans, str]]) -> pa.Array:
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
