# mypy: disallow-untyped-defs=False
"""A pseudo-random permutation of 0 .. n-1 that is computed place by place and never listed.

A balanced Feistel network over the next even power of two, walked until it lands below n (cycle walking): any place
costs the same, so order depends on seed and epoch alone, however many processes share the work.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.kernel import kernel

ROUNDS = 6
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)  # SplitMix64's finaliser
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def permute(places: npt.NDArray[np.int64], n: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Where each of `places` (int64, all in 0 .. n-1) goes in the permutation of `n` for this seed and epoch."""
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    result = np.empty(len(places), np.int64)
    _permute(places, n, half, _keys(seed % 2**64, epoch % 2**64), result)
    return result


@lru_cache(maxsize=64)
def _keys(seed: int, epoch: int) -> npt.NDArray[np.uint64]:
    keys = np.empty(ROUNDS, np.uint64)
    _fill_keys(np.uint64(seed), np.uint64(epoch), keys)
    return keys


@kernel
def _permute(places, n, half, keys, result):
    shift, limit = np.uint64(half), np.uint64(n)
    mask = (np.uint64(1) << shift) - np.uint64(1)
    for number in range(places.size):
        value = np.uint64(places[number])
        while True:
            left, right = value >> shift, value & mask
            for key in keys:
                left, right = right, left ^ (_mix(right ^ key) & mask)
            value = (left << shift) | right
            if value < limit:
                break
        result[number] = np.int64(value)


@kernel(inline="always")
def _mix(value):
    value = (value ^ (value >> np.uint64(30))) * _M1
    value = (value ^ (value >> np.uint64(27))) * _M2
    return value ^ (value >> np.uint64(31))


@kernel
def _fill_keys(seed, epoch, keys):
    for number in range(keys.size):
        state = np.uint64(0)
        for part in (seed, epoch, np.uint64(number)):
            state = _mix((state ^ part) + _GOLDEN)
        keys[number] = state
