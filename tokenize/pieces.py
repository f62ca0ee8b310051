# mypy: disallow-untyped-defs=False
"""Where the next piece of a text ends, inside kernels: the regular expressions of `patterns.py`, written out.

Alternatives are tried in the order of the expression, and each gives back characters as a backtracking engine does. What a letter,
a number or a space is comes from the regular expressions of `tokenizers` themselves (`piece_classes`): its Unicode is not Python's.
"""

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.utf8 import decode

#: Rules: how a text is cut.
GPT2, CL100K, O200K = 0, 1, 2

#: Bits of `piece_classes`.
LETTER = 1  # \p{L}
NUMBER = 2  # \p{N}
SPACE = 4  # \s
NEWLINE = 8  # [\r\n]
UPPER = 16  # [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
LOWER = 32  # [\p{Ll}\p{Lm}\p{Lo}\p{M}]

APOSTROPHE, BLANK, SLASH = 0x27, 0x20, 0x2F
#: The long s, U+017F: without case it is an s.
LONG_S = (0xC5, 0xBF)


@kernel
def next_piece(rule, data, at, end, classes, digits):
    """The end of the piece that begins at `at` (< `end`, the end of the text).

    `classes` is `piece_classes()`; `digits` the longest run of numbers in a piece (0: any).
    """
    if rule == GPT2:
        return _gpt2(data, at, end, classes, digits)
    if rule == CL100K:
        return _cl100k(data, at, end, classes, digits)
    return _o200k(data, at, end, classes, digits)


@kernel
def _kind(data, at, classes):
    """`(classes, bytes)` of the character at `at`."""
    byte = data[at]
    if byte < 0x80:
        return classes[byte], 1
    point, width = decode(data, at)
    return classes[point], width


@kernel
def _run(data, at, end, classes, wanted):
    """The end of the characters that have one of the `wanted` classes."""
    while at < end:
        kind, width = _kind(data, at, classes)
        if not kind & wanted:
            break
        at += width
    return at


@kernel
def _other(data, at, end, classes):
    """The end of a run of what is no space, letter or number."""
    while at < end:
        kind, width = _kind(data, at, classes)
        if kind & (SPACE | LETTER | NUMBER):
            break
        at += width
    return at


@kernel
def _numbers(data, at, end, classes, digits):
    if digits == 0:
        return _run(data, at, end, classes, NUMBER)
    for _ in range(digits):
        if at == end:
            break
        kind, width = _kind(data, at, classes)
        if not kind & NUMBER:
            break
        at += width
    return at


@kernel
def _spaces(data, at, end, classes):
    r"""`\s+(?!\S)|\s+`: all of the run but its last character, which the next piece begins with."""
    last = stop = at
    while stop < end:
        kind, width = _kind(data, stop, classes)
        if not kind & SPACE:
            break
        last = stop
        stop += width
    return last if stop < end and last > at else stop


@kernel
def _lines_or_spaces(data, at, end, classes):
    r"""`\s*[\r\n]+|\s+(?!\S)|\s+`: up to the last line break of the run where it has one."""
    last = stop = at
    newline = -1
    while stop < end:
        kind, width = _kind(data, stop, classes)
        if not kind & SPACE:
            break
        last = stop
        stop += width
        if kind & NEWLINE:
            newline = stop
    if newline >= 0:
        return newline
    return last if stop < end and last > at else stop


@kernel
def contraction(data, at, end, any_case):
    """The end of `'s`, `'t`, `'re`, `'ve`, `'m`, `'ll` or `'d` at `at`, or -1."""
    if at + 1 >= end or data[at] != APOSTROPHE:
        return -1
    fold = 0x20 if any_case else 0
    first = data[at + 1] | fold
    if first == 0x73 or first == 0x74 or first == 0x6D or first == 0x64:
        return at + 2
    if any_case and at + 2 < end and data[at + 1] == LONG_S[0] and data[at + 2] == LONG_S[1]:
        return at + 3
    if at + 2 < end:
        second = data[at + 2] | fold
        if (second == 0x65 and (first == 0x72 or first == 0x76)) or (first == 0x6C and second == 0x6C):
            return at + 3
    return -1


@kernel
def _gpt2(data, at, end, classes, digits):
    kind, width = _kind(data, at, classes)
    body = at
    if data[at] == BLANK and at + 1 < end:
        following, size = _kind(data, at + 1, classes)
        if not following & SPACE:
            kind, width, body = following, size, at + 1
    if kind & LETTER:
        return _run(data, body + width, end, classes, LETTER)
    if kind & SPACE:
        return _spaces(data, at, end, classes)
    if kind & NUMBER:
        return _numbers(data, body, end, classes, digits)
    if data[at] == APOSTROPHE:
        stop = contraction(data, at, end, False)
        if stop >= 0:
            return stop
    return _other(data, body + width, end, classes)


@kernel
def _cl100k(data, at, end, classes, digits):
    kind, width = _kind(data, at, classes)
    if kind & LETTER:
        return _run(data, at + width, end, classes, LETTER)
    if data[at] == APOSTROPHE:
        stop = contraction(data, at, end, True)
        if stop >= 0:
            return stop
    if kind & NUMBER:
        return _numbers(data, at, end, classes, digits)
    following, size = (_kind(data, at + width, classes)) if at + width < end else (classes[0] & 0, 0)
    if not kind & NEWLINE and following & LETTER:
        return _run(data, at + width + size, end, classes, LETTER)
    if not kind & SPACE:
        return _run(data, _other(data, at + width, end, classes), end, classes, NEWLINE)
    if data[at] == BLANK and size and not following & (SPACE | LETTER | NUMBER):
        return _run(data, _other(data, at + 1 + size, end, classes), end, classes, NEWLINE)
    return _lines_or_spaces(data, at, end, classes)


@kernel
def _word(data, at, end, classes):
    r"""`(end, complete)` of `U*L+` at `at` (complete) or, where that does not match, of `U+L*` (`at` where neither does)."""
    stop, both = at, -1
    while stop < end:
        kind, width = _kind(data, stop, classes)
        if not kind & UPPER:
            if kind & LOWER:
                return _run(data, stop + width, end, classes, LOWER), True
            break
        stop += width
        if kind & LOWER:
            both = stop
    if both >= 0:  # `U*` gives back the last character that is one of L, too
        return both, True
    return stop, False


@kernel
def _with_contraction(data, at, end):
    stop = contraction(data, at, end, True)
    return stop if stop >= 0 else at


@kernel
def _o200k(data, at, end, classes, digits):
    kind, width = _kind(data, at, classes)
    after = at + width
    prefixed = not kind & (NEWLINE | LETTER | NUMBER)
    prefixed_end, prefixed_complete = _word(data, after, end, classes) if prefixed else (after, False)
    if prefixed_complete:
        return _with_contraction(data, prefixed_end, end)
    stop, complete = _word(data, at, end, classes) if kind & (UPPER | LOWER) else (at, False)
    if complete:
        return _with_contraction(data, stop, end)
    if prefixed_end > after:
        return _with_contraction(data, prefixed_end, end)
    if stop > at:
        return _with_contraction(data, stop, end)
    if kind & NUMBER:
        return _numbers(data, at, end, classes, digits)
    body = after
    if data[at] == BLANK and after < end and not _kind(data, after, classes)[0] & (SPACE | LETTER | NUMBER):
        body = _other(data, after, end, classes)
    elif kind & SPACE:
        return _lines_or_spaces(data, at, end, classes)
    else:
        body = _other(data, after, end, classes)
    while body < end and (data[body] == SLASH or data[body] == 0x0A or data[body] == 0x0D):
        body += 1
    return body
