# mypy: disallow-untyped-defs=False
"""MinHash signatures and LSH band keys (Broder 1997; Leskovec, Rajaraman and Ullman, chapter 3).

A signature holds, for each of bands * rows permutations of the shingle hashes, the least value over the document's shingles. The
share of equal places of two signatures estimates their Jaccard similarity. Permutations are `a * h + b` with a odd, modulo 2^32 or
2^64; or as datatrove has them: `(a * h + b mod 2^64) mod (2^61 - 1)`, of which 32-bit signatures hold the lower half.
"""

import numpy as np
import numpy.typing as npt
import xxhash

from corpusmill.dedup.config import MinHashConfig
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.hashing import mix64

_MERSENNE_PRIME = np.uint64((1 << 61) - 1)
_LOW = np.uint64(0xFFFFFFFF)


def permutations(seed: int, count: int, bits: int) -> tuple[npt.NDArray, npt.NDArray]:
    """`(multipliers, addends)`, uint32 or uint64 of length `count`: the same on every platform and library version."""
    draws = [[xxhash.xxh3_64_intdigest(f"{part}:{i}", seed=seed) >> (64 - bits) for i in range(count)] for part in "ab"]
    dtype = np.uint32 if bits == 32 else np.uint64
    multipliers, addends = np.array(draws, dtype)
    return multipliers | dtype(1), addends


def datatrove_permutations(seed: int, count: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """`(multipliers, addends)` as `MinhashDedupSignature.parameters` draws them (numpy never changes the draws of RandomState)."""
    draw = np.random.RandomState(seed)
    prime = int(_MERSENNE_PRIME)
    return draw.randint(1, prime, dtype=np.uint64, size=count), draw.randint(0, prime, dtype=np.uint64, size=count)


@kernel(error_model="numpy")
def minima(hashes, bounds, multipliers, addends, out):
    """The signatures (`out`). All arrays but `bounds` are uint32 or all are uint64. Four shingles at a time: that spares loads and
    stores."""
    number = out.dtype.type  # numba computes with 64 bits
    for d in range(len(bounds) - 1):
        w, last, least = bounds[d], bounds[d + 1], out[d]
        while w + 4 <= last:
            h, i, j, k = hashes[w], hashes[w + 1], hashes[w + 2], hashes[w + 3]
            for p in range(len(multipliers)):
                a, b = multipliers[p], addends[p]
                first, second = min(number(a * h + b), number(a * i + b)), min(number(a * j + b), number(a * k + b))
                least[p] = min(least[p], min(first, second))
            w += 4
        while w < last:
            for p in range(len(multipliers)):
                least[p] = min(least[p], number(multipliers[p] * hashes[w] + addends[p]))
            w += 1


@kernel(error_model="numpy")
def datatrove_minima(hashes, bounds, multipliers, addends, mask, out):
    """The signatures (uint32 or uint64) under datatrove's permutations. `mask`: of the bits that are compared."""
    for d in range(len(bounds) - 1):
        least = np.full(len(multipliers), mask)
        for w in range(bounds[d], bounds[d + 1]):
            h = hashes[w]
            for p in range(len(multipliers)):
                value = multipliers[p] * h + addends[p]
                value = (value & _MERSENNE_PRIME) + (value >> np.uint64(61))
                value = min(value, value - _MERSENNE_PRIME)  # below zero is beyond all
                least[p] = min(least[p], value & mask)
        out[d] = least


@kernel(error_model="numpy")
def _band_keys(signature, bands, rows, out):
    for d in range(len(signature)):
        for band in range(bands):
            key = np.uint64(band + 1)
            for row in range(rows):
                key = mix64(key * np.uint64(0x9E3779B97F4A7C15) + np.uint64(signature[d, band * rows + row]))
            out[band, d] = key


def band_keys(signature: npt.NDArray, bands: int, rows: int) -> npt.NDArray[np.uint64]:
    """One 64-bit key for each band of each signature (n x bands * rows): bands x n."""
    out = np.empty((bands, len(signature)), np.uint64)
    _band_keys(signature, bands, rows, out)
    return out


@kernel(error_model="numpy")
def equal_places(a, b):
    """In how many places two signatures are equal."""
    count = 0
    for p in range(len(a)):
        count += a[p] == b[p]
    return count


def optimal_bands(target: float, count: int) -> tuple[int, int]:
    """`(bands, rows)` with at most `count` minima that datasketch finds best for a similarity."""
    from datasketch.lsh import _optimal_param

    bands, rows = _optimal_param(target, count, 0.5, 0.5)
    return int(bands), int(rows)


def band_shape(config: MinHashConfig) -> tuple[int, int]:
    """`(bands, rows)`: as given, or the best for the similarity `target`; none where near copies are not looked for."""
    if not config.enabled:
        return 0, 0
    return (config.bands, config.rows) if config.target is None else optimal_bands(config.target, config.permutations)
