# mypy: disallow-untyped-defs=False
"""`bytes.find` in a kernel: 64 places at a time, as eight words that are compared at both ends of what is looked for.

Python's own steps from one occurrence of the first byte to the next; in markup, where `<` and `t` are everywhere, that is slow.
"""

import numba
import numpy as np

from corpusmill.pipeline.text.addresses import array_at, borrowed

STEP = 64
ONES, HIGHS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
_WORDS = np.empty(0, np.uint64)


@numba.njit(cache=True, nogil=True)
def find(data, wanted, start):
    """The first place from `start` on where the bytes `wanted` (uint8, at least one) are in `data` (uint8), or -1."""
    data, wanted = borrowed(data), borrowed(wanted)
    span, address = len(wanted) - 1, data.ctypes.data
    first, last = ONES * np.uint64(wanted[0]), ONES * np.uint64(wanted[span])
    place, end = start, len(data) - span
    while place < end:
        if place + STEP <= end:
            heads = array_at(np.uint64(address + place), STEP // 8, _WORDS)
            tails = array_at(np.uint64(address + place + span), STEP // 8, _WORDS)
            found = np.uint64(0)
            for word in range(STEP // 8):
                head, tail = heads[word] ^ first, tails[word] ^ last
                found |= (head - ONES) & ~head & (tail - ONES) & ~tail  # a byte that is 0 in both, or one behind it
            if found & HIGHS == 0:
                place += STEP
                continue
        for here in range(place, min(place + STEP, end)):
            if data[here] == wanted[0] and _is_at(data, wanted, here):
                return here
        place += STEP
    return -1


@numba.njit(nogil=True, inline="always")
def _is_at(data, wanted, place):
    for offset in range(len(wanted)):
        if data[place + offset] != wanted[offset]:
            return False
    return True
