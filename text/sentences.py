# mypy: disallow-untyped-defs=False
"""Counts sentences inside kernels by a plain rule for all languages: a sentence ends at an end mark.

A sentence ends at a run of . ! ? … with closing quotes or brackets before space or the end of the line, and at a run of the end
marks of other scripts (Unicode's Sentence_Terminal: 。 ！ ？ । ۔ ؟ ။ ។ and others) with closing quotes anywhere:

    [.!?…]+["'”’»)\\]]*(?=\\s|$)|[\\p{Sentence_Terminal}--\\p{ASCII}]+[」』”’）]*

Text after the last end mark of a line is one more sentence, unless it is blank.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.kernel import kernel
from corpusmill.text.utf8 import CODE_POINTS, SPACE, character_classes, decode, strip_start
from corpusmill.text.words import code_points

_MARK, _WIDE_MARK, _CLOSER, _WIDE_CLOSER = 1, 2, 4, 8


@cache
def _tables() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Returns `(kinds, look)`: the kinds of each code point, and whether an end mark can begin with a byte."""
    kinds, look = np.zeros(CODE_POINTS, np.uint8), np.zeros(256, np.bool_)
    for pattern, kind in (
        ("[.!?…]", _MARK), (r"[\p{Sentence_Terminal}--\p{ASCII}]", _WIDE_MARK), (r"[\"'”’»)\]]", _CLOSER), ("[」』”’）]", _WIDE_CLOSER),
    ):  # fmt: skip
        kinds[code_points(pattern)] |= kind
    for point in np.flatnonzero(kinds & (_MARK | _WIDE_MARK)).tolist():
        look[chr(point).encode()[0]] = True
    return kinds, look


def count_sentences(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Returns int64: the number of sentences of each line `data[starts[i]:ends[i]]` of valid UTF-8; 0 for a blank line."""
    counts = np.empty(len(starts), np.int64)
    _count(data, starts, ends, character_classes(), *_tables(), counts)
    return counts


@kernel
def _count(data, starts, ends, classes, kinds, look, counts):
    for line in range(starts.size):
        counts[line] = _line_sentences(data, starts[line], ends[line], classes, kinds, look)


@kernel
def _line_sentences(data, start, end, classes, kinds, look):
    count, last, at = 0, start, start
    while at < end:
        if not look[data[at]]:
            at += 1
            continue
        kind = kinds[decode(data, at)[0]]
        if kind & _MARK:
            at = _skip(data, _skip(data, at, end, kinds, _MARK), end, kinds, _CLOSER)
            if at == end or classes[decode(data, at)[0]] & SPACE:
                count, last = count + 1, at
        elif kind & _WIDE_MARK:
            at = _skip(data, _skip(data, at, end, kinds, _WIDE_MARK), end, kinds, _WIDE_CLOSER)
            count, last = count + 1, at
        else:
            at += 1
    return count + (strip_start(data, last, end, classes) < end)


@kernel
def _skip(data, at, end, kinds, kind):
    """Returns the end of the run of characters of this kind."""
    while at < end:
        point, width = decode(data, at)
        if not kinds[point] & kind:
            break
        at += width
    return at
