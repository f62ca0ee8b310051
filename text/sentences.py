# mypy: disallow-untyped-defs=False
"""Counts sentences inside kernels by a plain rule for all languages: a sentence ends at an end mark.

A sentence ends at a run of . ! ? … with closing quotes or brackets before space or the end of the line, and at a run of
。！？ with closing quotes anywhere:

    [.!?…]+["'”’»)\\]]*(?=\\s|$)|[。！？]+[」』”’）]*

Text after the last end mark of a line is one more sentence, unless it is blank.
"""

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.kernel import kernel
from corpusmill.text.utf8 import SPACE, character_classes, decode, strip_start

_MARK, _WIDE_MARK, _CLOSER, _WIDE_CLOSER = 1, 2, 4, 8
#: Kinds of characters below U+3100, and of the fullwidth forms from U+FF00.
_KINDS = np.zeros(0x3200, np.uint8)
_FULLWIDTH = 0xFF00
for _characters, _bit in ((".!?…", _MARK), ("。！？", _WIDE_MARK), ("\"'”’»)]", _CLOSER), ("」』”’）", _WIDE_CLOSER)):
    for _character in _characters:
        _point = ord(_character)
        _KINDS[_point if _point < 0x3100 else 0x3100 + _point - _FULLWIDTH] |= _bit
#: Whether an end mark can begin with this byte.
_LOOK = np.zeros(256, np.bool_)
for _character in ".!?…。！？":
    _LOOK[_character.encode()[0]] = True


def count_sentences(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Returns int64: the number of sentences of each line `data[starts[i]:ends[i]]` of valid UTF-8; 0 for a blank line."""
    counts = np.empty(len(starts), np.int64)
    _count(data, starts, ends, character_classes(), counts)
    return counts


@kernel
def _count(data, starts, ends, classes, counts):
    for line in range(starts.size):
        counts[line] = _line_sentences(data, starts[line], ends[line], classes)


@kernel
def _line_sentences(data, start, end, classes):
    count, last, at = 0, start, start
    while at < end:
        if not _LOOK[data[at]]:
            at += 1
            continue
        kind = _kind(decode(data, at)[0])
        if kind & _MARK:
            at = _skip(data, _skip(data, at, end, _MARK), end, _CLOSER)
            if at == end or classes[decode(data, at)[0]] & SPACE:
                count, last = count + 1, at
        elif kind & _WIDE_MARK:
            at = _skip(data, _skip(data, at, end, _WIDE_MARK), end, _WIDE_CLOSER)
            count, last = count + 1, at
        else:
            at += 1
    return count + (strip_start(data, last, end, classes) < end)


@kernel
def _skip(data, at, end, kind):
    """Returns the end of the run of characters of this kind."""
    while at < end:
        point, width = decode(data, at)
        if not _kind(point) & kind:
            break
        at += width
    return at


@kernel
def _kind(point):
    if point < 0x3100:
        return _KINDS[point]
    if _FULLWIDTH <= point < _FULLWIDTH + 0x100:
        return _KINDS[0x3100 + point - _FULLWIDTH]
    return np.uint8(0)
