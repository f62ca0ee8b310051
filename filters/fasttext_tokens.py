# mypy: disallow-untyped-defs=False
"""Tokens as fastText reads them from a line (`Dictionary::readWord` of fastText 0.9.2), inside kernels, and the table of its dictionary."""

import numpy as np

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.hashing import BASE, find, insert, mix64
from corpusmill.pipeline.text.utf8 import ALPHA, HIGH_BITS, decode, eight_bytes

ONES = np.uint64(0x0101010101010101)
SPACE = 0x20
LABEL_PREFIX = tuple(b"__label__")
EOS_BYTES = tuple(b"</s>")


@kernel(inline="always")
def is_space(byte):
    return byte == SPACE or 9 <= byte <= 13 or byte == 0


@kernel
def token_end(data, at, end):
    """Where the token ends that begins at `at`; eight bytes are tried at a time."""
    while at + 8 <= data.size and at < end:
        word = eight_bytes(data, at)
        low = (word - np.uint64(0x21) * ONES) & ~word & HIGH_BITS  # its lowest bit: the first byte below 0x21
        if low:
            at += int((((low & (~low + np.uint64(1))) >> np.uint64(7)) * np.uint64(0x0001020304050607)) >> np.uint64(56))
            if at >= end or is_space(data[at]):
                break
            at += 1
        else:
            at += 8
    while at < end and not is_space(data[at]):
        at += 1
    return min(at, end)


@kernel
def starts_with(data, start, end, wanted):
    same = end - start >= len(wanted)
    for place in range(len(wanted)):
        same = same and data[start + place] == wanted[place]
    return same


@kernel
def hash_token(data, start, end):
    """A 64-bit hash of the bytes, never 0."""
    value = np.uint64(end - start)
    while start + 8 <= end:
        value = mix64(value ^ eight_bytes(data, start)) * BASE
        start += 8
    if start < end:
        rest = np.uint64(0)
        if start + 8 <= data.size:
            rest = eight_bytes(data, start) & ((np.uint64(1) << np.uint64(8 * (end - start))) - np.uint64(1))
        else:
            for place in range(start, end):
                rest |= np.uint64(data[place]) << np.uint64(8 * (place - start))
        value = mix64(value ^ rest) * BASE
    value = mix64(value)
    return value if value else np.uint64(1)


@kernel
def fill_words(data, ends, entry_rows, words, word_rows):
    """Fills the hash table of a dictionary: word i ends before `data[ends[i]]`; eight more bytes follow the last."""
    start = 0
    for word in range(ends.size):
        key = hash_token(data, start, ends[word])
        insert(words, words.size - 1, key)
        word_rows[find(words, words.size - 1, key)] = entry_rows[word]
        start = ends[word]


@kernel
def split_tokens(data, offsets, starts, ends, first):
    """The tokens that fastText reads of each text, up to `</s>`: token t is `data[starts[t]:ends[t]]`, and those of text i are the tokens
    from `first[i]` up to `first[i + 1]`. `starts` and `ends` have at least half as many items as the texts have bytes, and one a text."""
    count = 0
    for text in range(offsets.size - 1):
        at, end = offsets[text], offsets[text + 1]
        first[text] = count
        while True:
            while at < end and is_space(data[at]):
                at += 1
            if at >= end:
                break
            stop = token_end(data, at, end)
            if stop - at == len(EOS_BYTES) and starts_with(data, at, stop, EOS_BYTES):
                break
            starts[count], ends[count] = at, stop
            count += 1
            at = stop
    first[offsets.size - 1] = count


@kernel
def texts_with_letters(data, offsets, classes, wanted):
    """bool (texts,): whether a text has so many letters. Looks no further than needed."""
    found = np.empty(offsets.size - 1, np.bool_)
    for text in range(offsets.size - 1):
        at, end, missing = offsets[text], offsets[text + 1], wanted
        while missing > 0 and at < end:
            point, width = decode(data, at)
            missing -= (classes[point] & ALPHA) != 0
            at += width
        found[text] = missing <= 0
    return found
