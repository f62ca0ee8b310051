"""64-bit hashing inside kernels: polynomial word hashes that can be joined, and a finaliser."""

import numpy as np

from corpusmill.pipeline.kernel import kernel

BASE = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplication by it is a bijection of 64-bit integers
ONE = np.uint64(1)


@kernel(inline="always")
def mix64(value):  # type: ignore[no-untyped-def]
    """Spreads a polynomial hash over all bits (the multiply and shifts of MurmurHash3's finaliser)."""
    value ^= value >> np.uint64(32)
    value *= np.uint64(0xFF51AFD7ED558CCD)
    value ^= value >> np.uint64(29)
    return value


@kernel
def power(exponent):  # type: ignore[no-untyped-def]
    """BASE to the power of `exponent`, modulo 2^64."""
    result, base = np.uint64(1), np.uint64(0x9E3779B97F4A7C15)
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result
