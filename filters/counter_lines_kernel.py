# mypy: disallow-untyped-defs=False
"""Lines that are counters, such as "3 likes" and "1.2K views!", as DCLM's `counter_line_modifier` tells them."""

import numpy as np

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.utf8 import DIGIT, SPACE, WORD, decode

_COUNTED = ("likes", "shares", "comments", "retweets", "reposts", "quotes", "bookmarks", "upvotes", "downvotes", "downloads", "views",
            "followers")  # fmt: skip
_NAMES = np.zeros((len(_COUNTED), 10), np.int64)
for _number, _name in enumerate(_COUNTED):
    _NAMES[_number, : len(_name)] = list(_name.encode())
_K, _M, _B, _KELVIN = ord("k"), ord("m"), ord("b"), 0x212A
_COMMA, _DOT = ord(","), ord(".")


@kernel
def is_counter(data, start, end, classes):
    """A match of `^\\W*\\d[,.\\d]*[kmb]?\\s+(likes|...)\\W*$` in the lower-cased line."""
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
    """Where the run of characters ends that have the class (or do not have it)."""
    while at < end:
        point, width = decode(data, at)
        if (classes[point] & kind != 0) != wanted:
            break
        at += width
    return at


@kernel
def _is_counted(data, start, end):
    """Whether a word, lower-cased, is one of those that counters count."""
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
    """Lower case of all that lowers to ASCII letters alone."""
    if 0x41 <= point <= 0x5A:
        return point | 0x20
    return _K if point == _KELVIN else point
