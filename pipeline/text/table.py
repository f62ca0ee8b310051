# mypy: disallow-untyped-defs=False
"""Sets of 64-bit hashes inside kernels: open addressing in a scratch array that is cleared for each use.

Slots hold whole 64-bit keys, so two different texts are taken for one only where all 64 bits agree. Zero marks an
empty slot; the key zero is stored as one.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.hashing import BASE, ONE, mix64
from corpusmill.pipeline.text.utf8 import eight_bytes


@kernel
def table_size(entries):
    """A power of two with at least twice as many slots as entries."""
    size = 16
    while size < 2 * entries:
        size <<= 1
    return size


@kernel
def insert(table, mask, key):
    """Adds a key and says whether it was there already. `mask` is the number of slots minus one."""
    if key == 0:
        key = np.uint64(1)
    slot = np.int64(key) & mask
    while table[slot] != 0:
        if table[slot] == key:
            return True
        slot = (slot + 1) & mask
    table[slot] = key
    return False


@kernel
def find(table, mask, key):
    """The slot of a key, or -1 where it is not in the table."""
    if key == 0:
        key = np.uint64(1)
    slot = np.int64(key) & mask
    while table[slot] != 0:
        if table[slot] == key:
            return slot
        slot = (slot + 1) & mask
    return -1


@kernel
def hash_span(data, start, end):
    """A 64-bit hash of the bytes `data[start:end]`, eight at a time."""
    value = np.uint64(end - start) * BASE  # beyond the bits of the bytes below: NULs in front must not cancel it
    at = start
    if end - start >= 32:  # four chains of multiplications that do not wait for each other
        first, second, third, fourth = value, value + ONE, value * BASE, ~value
        while at + 32 <= end:
            first = mix64(first ^ eight_bytes(data, at)) * BASE
            second = mix64(second ^ eight_bytes(data, at + 8)) * BASE
            third = mix64(third ^ eight_bytes(data, at + 16)) * BASE
            fourth = mix64(fourth ^ eight_bytes(data, at + 24)) * BASE
            at += 32
        value = mix64(mix64(mix64(first) * BASE ^ second) * BASE ^ third) * BASE ^ fourth
    while at + 8 <= end:
        value = mix64(value ^ eight_bytes(data, at)) * BASE
        at += 8
    rest = np.uint64(0)
    for place in range(at, end):
        rest = rest << np.uint64(8) | np.uint64(data[place])
    return mix64(mix64(value ^ rest) * BASE)


def word_set(words: Iterable[str]) -> npt.NDArray[np.uint64]:
    """A table for `find` of the `hash_span` of each word."""
    spans = (np.frombuffer(word.encode(), np.uint8) for word in words)
    return hash_set(np.uint64(hash_span(span, 0, span.size)) for span in spans)


def hash_set(hashes: Iterable[np.uint64]) -> npt.NDArray[np.uint64]:
    """A table for `find` of these hashes, sparse enough that most lookups end at once."""
    hashes = list(hashes)
    table = np.zeros(4 * table_size(len(hashes)), np.uint64)
    for value in hashes:
        insert(table, table.size - 1, value)
    return table
