# mypy: disallow-untyped-defs=False
"""XXH64 (xxHash, Yann Collet) of spans of bytes inside kernels, and of whole columns of strings."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.buffers import text_buffers
from corpusmill.pipeline.text.utf8 import eight_bytes

_P1, _P2, _P3, _P4, _P5 = (
    np.uint64(value) for value in (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
)
_ZERO = np.uint64(0)


@kernel(inline="always")
def _rotate64(value, bits):
    return value << np.uint64(bits) | value >> np.uint64(64 - bits)


@kernel(inline="always")
def _round64(value, lane):
    return _rotate64(value + lane * _P2, 31) * _P1


@kernel
def four_bytes(data, at):
    value = _ZERO
    for place in range(4):
        value |= np.uint64(data[at + place]) << np.uint64(8 * place)
    return value


@kernel
def xxh64(data, start, end, seed=0):
    """XXH64 of `data[start:end]` (uint8)."""
    at, seed = start, np.uint64(seed)
    if end - start >= 32:
        one, two, three, four = seed + _P1 + _P2, seed + _P2, seed, seed - _P1
        while at + 32 <= end:
            one, two = _round64(one, eight_bytes(data, at)), _round64(two, eight_bytes(data, at + 8))
            three, four = _round64(three, eight_bytes(data, at + 16)), _round64(four, eight_bytes(data, at + 24))
            at += 32
        value = _rotate64(one, 1) + _rotate64(two, 7) + _rotate64(three, 12) + _rotate64(four, 18)
        for lane in (one, two, three, four):
            value = (value ^ _round64(_ZERO, lane)) * _P1 + _P4
    else:
        value = seed + _P5
    value += np.uint64(end - start)
    while at + 8 <= end:
        value = _rotate64(value ^ _round64(_ZERO, eight_bytes(data, at)), 27) * _P1 + _P4
        at += 8
    if at + 4 <= end:
        value = _rotate64(value ^ four_bytes(data, at) * _P1, 23) * _P2 + _P3
        at += 4
    while at < end:
        value = _rotate64(value ^ np.uint64(data[at]) * _P5, 11) * _P1
        at += 1
    value = (value ^ value >> np.uint64(33)) * _P2
    value = (value ^ value >> np.uint64(29)) * _P3
    return value ^ value >> np.uint64(32)


@kernel
def _xxh64_each(data, offsets, seed, out):
    for row in range(len(out)):
        out[row] = xxh64(data, offsets[row], offsets[row + 1], seed)


def xxh64_column(column: pa.Array | pa.ChunkedArray, seed: int) -> npt.NDArray[np.uint64]:
    """XXH64 of the UTF-8 bytes of each of n strings, of which none may be null."""
    data, offsets = text_buffers(column)
    out = np.empty(len(offsets) - 1, np.uint64)
    _xxh64_each(data, offsets, np.uint64(seed), out)
    return out
