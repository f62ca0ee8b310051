# mypy: disallow-untyped-defs=False
"""XXH32 and SHA-1 of spans of bytes inside kernels, as datatrove hashes its shingles
(datatrove/utils/hashing.py). XXH64, which it takes too, is in `pipeline/text/hashing.py`."""

import numpy as np

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.hashing import four_bytes

_Q1, _Q2, _Q3, _Q4, _Q5 = (np.uint64(value) for value in (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1))
_LOW = np.uint64(0xFFFFFFFF)
_ZERO = np.uint64(0)


@kernel(inline="always")
def _rotate32(value, bits):
    return (value << np.uint64(bits) | value >> np.uint64(32 - bits)) & _LOW


@kernel
def xxh32(data, start, end):
    """XXH32 with seed 0 of `data[start:end]`, as uint64."""
    at = start
    if end - start >= 16:
        one, two, three, four = (_Q1 + _Q2) & _LOW, _Q2, _ZERO, (_ZERO - _Q1) & _LOW
        while at + 16 <= end:
            one = _rotate32((one + four_bytes(data, at) * _Q2) & _LOW, 13) * _Q1 & _LOW
            two = _rotate32((two + four_bytes(data, at + 4) * _Q2) & _LOW, 13) * _Q1 & _LOW
            three = _rotate32((three + four_bytes(data, at + 8) * _Q2) & _LOW, 13) * _Q1 & _LOW
            four = _rotate32((four + four_bytes(data, at + 12) * _Q2) & _LOW, 13) * _Q1 & _LOW
            at += 16
        value = _rotate32(one, 1) + _rotate32(two, 7) + _rotate32(three, 12) + _rotate32(four, 18)
    else:
        value = _Q5
    value = (value + np.uint64(end - start)) & _LOW
    while at + 4 <= end:
        value = _rotate32((value + four_bytes(data, at) * _Q3) & _LOW, 17) * _Q4 & _LOW
        at += 4
    while at < end:
        value = _rotate32((value + np.uint64(data[at]) * _Q5) & _LOW, 11) * _Q1 & _LOW
        at += 1
    value = (value ^ value >> np.uint64(15)) * _Q2 & _LOW
    value = (value ^ value >> np.uint64(13)) * _Q3 & _LOW
    return value ^ value >> np.uint64(16)


@kernel
def _sha1_block(block, state):
    """Takes 64 bytes, as sixteen big-endian numbers in `block` (uint64, which it overwrites), into `state` (uint64 of 5)."""
    a, b, c, d, e = state[0], state[1], state[2], state[3], state[4]
    for step in range(80):
        place = step & 15
        if step >= 16:
            block[place] = _rotate32(block[(step + 13) & 15] ^ block[(step + 8) & 15] ^ block[(step + 2) & 15] ^ block[place], 1)
        if step < 20:
            mixed = ((b & c) | (~b & d & _LOW)) + np.uint64(0x5A827999)
        elif step < 40:
            mixed = (b ^ c ^ d) + np.uint64(0x6ED9EBA1)
        elif step < 60:
            mixed = ((b & c) | (b & d) | (c & d)) + np.uint64(0x8F1BBCDC)
        else:
            mixed = (b ^ c ^ d) + np.uint64(0xCA62C1D6)
        a, b, c, d, e = (_rotate32(a, 5) + mixed + e + block[place]) & _LOW, a, _rotate32(b, 30), c, d
    state[0], state[1], state[2] = (state[0] + a) & _LOW, (state[1] + b) & _LOW, (state[2] + c) & _LOW
    state[3], state[4] = (state[3] + d) & _LOW, (state[4] + e) & _LOW


@kernel
def sha1(data, start, end, block, state):
    """The first eight bytes of the SHA-1 of `data[start:end]` as a little-endian number. `block` (16) and `state` (5) are scratch."""
    state[0], state[1], state[2], state[3], state[4] = 0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0
    size = end - start
    for first in range(0, size + 9, 64):
        for word in range(16):
            value = _ZERO
            for place in range(first + 4 * word, first + 4 * word + 4):
                byte = np.uint64(data[start + place]) if place < size else np.uint64(0x80 if place == size else 0)
                value = value << np.uint64(8) | byte
            block[word] = value
        if first + 64 >= size + 9:
            block[14], block[15] = np.uint64(size) >> np.uint64(29), np.uint64(size) << np.uint64(3) & _LOW
        _sha1_block(block, state)
    value = _ZERO
    for place in range(8):
        value |= (state[place >> 2] >> np.uint64(24 - 8 * (place & 3)) & np.uint64(0xFF)) << np.uint64(8 * place)
    return value
