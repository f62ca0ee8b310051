# mypy: disallow-untyped-defs=False
"""Cutting a text into pieces, many at a time: by GPT-2's rule from masks of 64 bytes, else one piece after the other."""

import numpy as np

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.byte_masks import BLOCK, byte_masks, highest_bit, lowest_bit
from corpusmill.pipeline.text.utf8 import decode
from corpusmill.tokenize.ascii_words import ascii_word
from corpusmill.tokenize.pieces import GPT2, LETTER, NUMBER, SPACE, contraction, next_piece

_ONE = np.uint64(1)
#: Ends that are sure whatever comes after the block: of a later one, a space or a contraction may lie beyond.
_SURE = np.uint64((1 << BLOCK - 4) - 2)
_ALL = np.uint64((1 << BLOCK) - 1)


@kernel
def piece_ends(rule, digits, classes, data, at, end, ends):
    """Writes where pieces end, from the one that begins at `at` (< `end`, the end of the text), to `ends` (int64); returns how many.

    It stops at the text's end, or where another block might have no room. Arguments are those of `next_piece`.
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
    """The ends of pieces among the 64 bytes from the start of one on, as bits: none where it is longer.

    Pieces are runs of one kind with the blank before them. A run of spaces ends before its last character where text follows.
    """
    letters, digits, spaces, blanks, apostrophes, high, continuing = byte_masks(data, at)
    size = end - at
    inside = _ALL if size >= BLOCK else (_ONE << np.uint64(size)) - _ONE
    if high & inside:
        letters, digits, spaces = _with_others(classes, data, at, high & inside, letters, digits, spaces)
    sure = _SURE
    if size < BLOCK:  # what follows the text is as good as more spaces
        letters, digits, spaces = letters & inside, digits & inside, spaces | ~inside
        sure = inside << _ONE
    others = ~(letters | digits | spaces)
    runs = letters & ~(letters << _ONE) | digits & ~(digits << _ONE) | others & ~(others << _ONE)
    runs &= ~(blanks << _ONE)
    last = spaces & ~(spaces >> _ONE)
    within = last & continuing
    if within:  # a space of two or three bytes begins with its first
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
    """The masks with the characters beyond ASCII, whose bytes are `high`."""
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
