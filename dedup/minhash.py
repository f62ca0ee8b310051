# mypy: disallow-untyped-defs=False
"""MinHash signatures and LSH band keys (Broder 1997; Leskovec, Rajaraman and Ullman, chapter 3).

A signature holds, for each of bands * rows permutations `a * h + b` (a odd, modulo 2^32 or 2^64) of the shingle hashes, the
least value over the document's shingles. The share of equal places of two signatures estimates their Jaccard similarity.
"""

import numba
import numpy as np
import numpy.typing as npt
import xxhash

from corpusmill.dedup.words import read_only, shingle_hashes, word_codes, word_hashes
from corpusmill.pipeline.text.hashing import mix64


def permutations(seed: int, count: int, bits: int) -> tuple[npt.NDArray, npt.NDArray]:
    """`(multipliers, addends)`, uint32 or uint64 of length `count`: the same on every platform and library version."""
    draws = [[xxhash.xxh3_64_intdigest(f"{part}:{i}", seed=seed) >> (64 - bits) for i in range(count)] for part in "ab"]
    dtype = np.uint32 if bits == 32 else np.uint64
    multipliers, addends = np.array(draws, dtype)
    return multipliers | dtype(1), addends


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _minima32(shingles, count, multipliers, addends, least):
    least[:] = 0xFFFFFFFF
    for w in range(count):
        h = np.uint32(shingles[w] >> np.uint64(32))
        for p in range(len(multipliers)):
            least[p] = min(least[p], np.uint32(multipliers[p] * h + addends[p]))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _minima64(shingles, count, multipliers, addends, least):
    least[:] = np.uint64(0xFFFFFFFFFFFFFFFF)
    for w in range(count):
        h = shingles[w]
        for p in range(len(multipliers)):
            least[p] = min(least[p], multipliers[p] * h + addends[p])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _signatures32(data, offsets, codes, ngram, min_words, multipliers, addends, scratch, words, out):
    least = np.empty(len(multipliers), np.uint32)
    for d in range(len(offsets) - 1):
        words[d] = word_hashes(data, offsets[d], offsets[d + 1], codes, scratch)
        if words[d] >= min_words:
            _minima32(scratch, shingle_hashes(scratch, words[d], ngram), multipliers, addends, least)
            out[d] = least


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _signatures64(data, offsets, codes, ngram, min_words, multipliers, addends, scratch, words, out):
    least = np.empty(len(multipliers), np.uint64)
    for d in range(len(offsets) - 1):
        words[d] = word_hashes(data, offsets[d], offsets[d + 1], codes, scratch)
        if words[d] >= min_words:
            _minima64(scratch, shingle_hashes(scratch, words[d], ngram), multipliers, addends, least)
            out[d] = least


def word_scratch(offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Room for the words of the longest document."""
    longest = int(np.diff(offsets).max(initial=0))
    return np.empty(longest // 2 + 1, np.uint64)


def signatures(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    ngram: int,
    min_words: int,
    multipliers: npt.NDArray,
    addends: npt.NDArray,
) -> tuple[npt.NDArray, npt.NDArray[np.int64]]:
    """`(signatures, words)` of n texts: n x permutations in the permutations' dtype, and int64 of length n.

    A text of fewer than `min_words` words (at least `ngram`) has a signature of zeros, which means nothing.
    """
    kernel = _signatures32 if multipliers.dtype == np.uint32 else _signatures64
    words = np.zeros(len(offsets) - 1, np.int64)
    out = np.zeros((len(words), len(multipliers)), multipliers.dtype)
    kernel(
        read_only(data), read_only(offsets), word_codes(), ngram, max(ngram, min_words), multipliers, addends,
        word_scratch(offsets), words, out,
    )  # fmt: skip
    return out, words


@numba.njit(cache=True, nogil=True, error_model="numpy")
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


@numba.njit(cache=True, nogil=True, error_model="numpy")
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
