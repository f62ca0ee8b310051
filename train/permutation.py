"""A pseudo-random permutation of 0 .. n-1 that is computed place by place and never listed.

A balanced Feistel network over the next even power of two, walked until it lands below n (cycle walking): any place
costs the same, so order depends on seed and epoch alone, however many processes share the work.
"""

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.uint64]
ROUNDS = 6
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)  # SplitMix64's finaliser
_GOLDEN = 0x9E3779B97F4A7C15


def permute(places: npt.NDArray[np.int64], n: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Where each of `places` (int64, all in 0 .. n-1) goes in the permutation of `n` for this seed and epoch."""
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    keys = [_key(seed, epoch, round_) for round_ in range(ROUNDS)]
    result = _feistel(places.astype(np.uint64), half, keys)
    while (outside := result >= n).any():
        result[outside] = _feistel(result[outside], half, keys)
    return result.astype(np.int64)


def _feistel(values: Integers, half: int, keys: list[np.uint64]) -> Integers:
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << shift) | right


def _mix(value: Integers) -> Integers:
    value = (value ^ (value >> np.uint64(30))) * _M1
    value = (value ^ (value >> np.uint64(27))) * _M2
    return value ^ (value >> np.uint64(31))


def _key(seed: int, epoch: int, round_: int) -> np.uint64:
    state = np.zeros(1, np.uint64)
    for part in (seed, epoch, round_):
        state = _mix((state ^ np.uint64(part % 2**64)) + np.uint64(_GOLDEN))
    return np.uint64(state[0])
