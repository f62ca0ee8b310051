# mypy: disallow-untyped-defs=False
"""Finds the end of a text's next piece, inside kernels: the regular expressions of `patterns.py` as hand-written code.

Alternatives are tried in the order of the expression, and give back characters as a backtracking engine does. Letters, numbers and spaces
are those of `tokenizers`' regular expressions (`piece_classes`), whose Unicode version differs from Python's.
"""

import numpy as np

from corpusmill.pipeline.kernel import kernel
from corpusmill.text.byte_masks import BLOCK, byte_masks, highest_bit, lowest_bit
from corpusmill.text.utf8 import HIGH_BITS, decode, eight_bytes, first_marked

#: Rules by which a text is cut.
GPT2, CL100K, O200K = 0, 1, 2

#: Bits of `piece_classes`.
LETTER = 1  # \p{L}
NUMBER = 2  # \p{N}
SPACE = 4  # \s
NEWLINE = 8  # [\r\n]
UPPER = 16  # [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
LOWER = 32  # [\p{Ll}\p{Lm}\p{Lo}\p{M}]

APOSTROPHE, BLANK, SLASH = 0x27, 0x20, 0x2F
#: The long s, U+017F, which matches an s where case is ignored.
LONG_S = (0xC5, 0xBF)


@kernel
def next_piece(rule, data, at, end, classes, digits):
    """Returns the end of the piece that begins at `at` (< `end`, the end of the text).

    `classes` is `piece_classes()`; `digits` is the longest run of numbers in a piece (0: any).
    """
    if rule == GPT2:
        return _gpt2(data, at, end, classes, digits)
    if rule == CL100K:
        return _cl100k(data, at, end, classes, digits)
    return _o200k(data, at, end, classes, digits)


@kernel
def _kind(data, at, classes):
    """Returns `(classes, bytes)` of the character at `at`."""
    byte = data[at]
    if byte < 0x80:
        return classes[byte], 1
    point, width = decode(data, at)
    return classes[point], width


@kernel
def _run(data, at, end, classes, wanted):
    """Returns the end of the run of characters that have one of the `wanted` classes."""
    while at < end:
        kind, width = _kind(data, at, classes)
        if not kind & wanted:
            break
        at += width
    return at


@kernel
def _other(data, at, end, classes):
    """Returns the end of the run of characters that are not a space, letter or number."""
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
    r"""Matches `\s+(?!\S)|\s+`: the whole run but its last character, which begins the next piece; at the text's end the whole run."""
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
    r"""Matches `\s*[\r\n]+|\s+(?!\S)|\s+`: up to the run's last line break, if it has one."""
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
    """Returns the end of `'s`, `'t`, `'re`, `'ve`, `'m`, `'ll` or `'d` at `at`, or -1."""
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
    """Matches `U*L+` (U: UPPER, L: LOWER) at `at`: `(end, True)`. Where that fails, `U+L*`: `(end, False)`; else `(at, False)`."""
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
    if both >= 0:  # `U*` gives back the last character that is in L, too
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


# ---- ends of pieces, 64 bytes at a time ------------------------------------------------------------------


_ONE = np.uint64(1)
#: Bits of a block that are certain ends whatever follows it. At later bits a space or a contraction may reach beyond the block.
_SURE = np.uint64((1 << BLOCK - 4) - 2)
_ALL = np.uint64((1 << BLOCK) - 1)


@kernel
def piece_ends(rule, digits, classes, data, at, end, ends):
    """Writes the ends of pieces to `ends` (int64), from the piece that begins at `at` (< `end`, the text's end). Returns their number.

    Stops at the text's end, or where the ends of another block might not fit. The other arguments are those of `next_piece`.
    """
    if rule == GPT2 and digits == 0:
        return _gpt2_ends(classes, data, at, end, ends)
    count = 0
    while at < end and count < ends.size:
        length, _, _ = ascii_word(rule, data, at, end)
        at = at + length if length else next_piece(rule, data, at, end, classes, digits)
        ends[count] = at
        count += 1
    return count


@kernel
def _gpt2_ends(classes, data, at, end, ends):
    count = 0
    while at < end and count + BLOCK <= ends.size:
        found = np.uint64(0)
        if at + BLOCK <= data.size:
            found = _ends_in_block(classes, data, at, end)
        if found == 0:  # a long piece, or the end of the buffer
            at = next_piece(GPT2, data, at, end, classes, 0)
            ends[np.uint64(count)] = at
            count += 1
            continue
        last = at + np.int64(highest_bit(found))
        while found:
            ends[np.uint64(count)] = at + np.int64(lowest_bit(found))
            count += 1
            found &= found - _ONE
        at = last
    return count


@kernel
def _ends_in_block(classes, data, at, end):
    """Returns the ends of pieces in the 64 bytes from `at`, a piece's start, as bits; no bits where the first piece is longer.

    A piece is a run of one kind with the blank before it. A run of spaces ends before its last character where text follows.
    """
    letters, digits, spaces, blanks, apostrophes, high, continuing = byte_masks(data, at)
    size = end - at
    inside = _ALL if size >= BLOCK else (_ONE << np.uint64(size)) - _ONE
    if high & inside:
        letters, digits, spaces = _with_others(classes, data, at, high & inside, letters, digits, spaces)
    sure = _SURE
    if size < BLOCK:  # bytes after the text are treated as spaces
        letters, digits, spaces = letters & inside, digits & inside, spaces | ~inside
        sure = inside << _ONE
    others = ~(letters | digits | spaces)
    runs = letters & ~(letters << _ONE) | digits & ~(digits << _ONE) | others & ~(others << _ONE)
    runs &= ~(blanks << _ONE)
    last = spaces & ~(spaces >> _ONE)
    within = last & continuing
    if within:  # moves the mark of a space of two or three bytes to its first byte
        last ^= within | within >> _ONE
        within = last & continuing
        last ^= within | within >> _ONE
    found = runs | last | spaces & ~(spaces << _ONE)
    short = apostrophes & runs & letters >> _ONE & (sure | _ONE)
    while short:
        place = lowest_bit(short)
        stop = contraction(data, at + np.int64(place), end, False)
        if stop >= 0:
            found = found & ~(_ONE << (place + _ONE)) | _ONE << np.uint64(stop - at)
        short &= short - _ONE
    if size < BLOCK:
        found |= _ONE << np.uint64(size)
    return found & sure


@kernel
def _with_others(classes, data, at, high, letters, digits, spaces):
    """Adds the characters beyond ASCII, whose bytes are marked in `high`, to the masks."""
    while high:
        place = lowest_bit(high)
        point, width = decode(data, at + np.int64(place))
        kind = classes[point]
        bits = ((_ONE << np.uint64(width)) - _ONE) << place
        if kind & LETTER:
            letters |= bits
        elif kind & NUMBER:
            digits |= bits
        elif kind & SPACE:
            spaces |= bits
        high &= ~bits
    return letters, digits, spaces


# ---- words of ASCII letters ------------------------------------------------------------------------------


_FOLD = np.uint64(0x2020202020202020)
_SEVEN_BITS = np.uint64(0x7F7F7F7F7F7F7F7F)
_FROM_A = np.uint64(0x1F1F1F1F1F1F1F1F)  # added to a letter of 7 bits, sets the high bit from `a` on
_AFTER_Z = np.uint64(0x0505050505050505)  # the same from the character after `z` on
_FIRST = np.uint64(0x80)
ZERO = np.uint64(0)
#: For a piece of n bytes: the mask of its bytes in its first eight bytes, and in its second eight.
FIRST_MASKS = np.array([(1 << 8 * min(n, 8)) - 1 for n in range(17)], np.uint64)
SECOND_MASKS = np.array([(1 << 8 * max(n - 8, 0)) - 1 for n in range(17)], np.uint64)


@kernel
def _not_letters(word):
    """Returns a word with the high bit set in every byte that is no ASCII letter."""
    folded = (word | _FOLD) & _SEVEN_BITS
    return ~((folded + _FROM_A) & ~(folded + _AFTER_Z)) & HIGH_BITS | word & HIGH_BITS


@kernel
def _not_lower(word):
    """Returns a word with the high bit set in every byte that is no small ASCII letter."""
    low = word & _SEVEN_BITS
    return ~((low + _FROM_A) & ~(low + _AFTER_Z)) & HIGH_BITS | word & HIGH_BITS


@kernel
def ascii_word(rule, data, at, end):
    """Returns `(length, first eight bytes, second eight bytes)` of the piece at `at` where it is a word of ASCII letters of up to 15 bytes,
    a blank before it included; else length 0.

    GPT-2 and cl100k take all letters. o200k ends a word at a capital, and adds a contraction: before an apostrophe the length is 0.
    """
    if at + 16 > data.size:
        return 0, ZERO, ZERO
    first, second = eight_bytes(data, at), eight_bytes(data, at + 8)
    marks, more = _not_letters(first), _not_letters(second)
    lead = np.uint64(8) if data[at] == BLANK else np.uint64(0)
    if marks & (_FIRST << lead):
        return 0, ZERO, ZERO
    if rule == O200K:
        marks, more = _not_lower(first), _not_lower(second)
        if marks & (_FIRST << lead) and marks & (_FIRST << (lead + np.uint64(8))):
            return 0, ZERO, ZERO  # a capital without a small letter
        marks &= ~(_FIRST << lead)
    marks &= ~(lead << np.uint64(4))  # 8 << 4 is the mark of the space
    if marks:
        length = first_marked(marks)
    elif more:
        length = 8 + first_marked(more)
    else:
        return 0, ZERO, ZERO
    if at + length >= end:
        length = end - at
        if length == 1 and lead:
            return 0, ZERO, ZERO
    elif data[at + length] >= 0x80 or (rule == O200K and data[at + length] == APOSTROPHE):
        return 0, ZERO, ZERO
    return length, first & FIRST_MASKS[length], second & SECOND_MASKS[length]
