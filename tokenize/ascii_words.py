# mypy: disallow-untyped-defs=False
"""The most common pieces without a step a byte: an ASCII word of up to 15 letters, with or without a space before it."""

import numpy as np

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.utf8 import HIGH_BITS, eight_bytes, first_marked
from corpusmill.tokenize.pieces import APOSTROPHE, BLANK, O200K

_FOLD = np.uint64(0x2020202020202020)
_SEVEN_BITS = np.uint64(0x7F7F7F7F7F7F7F7F)
_FROM_A = np.uint64(0x1F1F1F1F1F1F1F1F)  # added to a letter of 7 bits, gives 0x80 and more from `a` on
_AFTER_Z = np.uint64(0x0505050505050505)  # the same from the character after `z` on
_FIRST = np.uint64(0x80)
ZERO = np.uint64(0)
#: For a piece of n bytes, which bits of its first and of its second eight bytes are its own.
FIRST_MASKS = np.array([(1 << 8 * min(n, 8)) - 1 for n in range(17)], np.uint64)
SECOND_MASKS = np.array([(1 << 8 * max(n - 8, 0)) - 1 for n in range(17)], np.uint64)


@kernel
def _not_letters(word):
    """The high bit of every byte that is no ASCII letter."""
    folded = (word | _FOLD) & _SEVEN_BITS
    return ~((folded + _FROM_A) & ~(folded + _AFTER_Z)) & HIGH_BITS | word & HIGH_BITS


@kernel
def _not_lower(word):
    """The high bit of every byte that is no small ASCII letter."""
    low = word & _SEVEN_BITS
    return ~((low + _FROM_A) & ~(low + _AFTER_Z)) & HIGH_BITS | word & HIGH_BITS


@kernel
def ascii_word(rule, data, at, end):
    """`(length, first eight bytes, second eight bytes)` of the piece at `at` where it is such a word, else length 0.

    The rules of GPT-2 and cl100k take all letters; that of o200k ends a word at a capital, and takes what follows an apostrophe.
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
