# mypy: disallow-untyped-defs=False
"""How much two documents have in common, exactly: on the sets of their 64-bit shingle hashes."""

import numba
import numpy as np
import numpy.typing as npt

from corpusmill.dedup.minhash import word_scratch
from corpusmill.dedup.words import read_only, shingle_hashes, word_codes, word_hashes


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _shingle_sets(data, offsets, codes, ngram, scratch, out, bounds):
    place = 0
    for d in range(len(offsets) - 1):
        count = word_hashes(data, offsets[d], offsets[d + 1], codes, scratch)
        shingles = shingle_hashes(scratch, count, ngram)
        ordered = np.sort(scratch[:shingles])
        for w in range(shingles):
            if w == 0 or ordered[w] != ordered[w - 1]:
                out[place] = ordered[w]
                place += 1
        bounds[d + 1] = place


def shingle_sets(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], ngram: int
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """`(hashes, bounds)`: the set of document i is `hashes[bounds[i]:bounds[i + 1]]`, ascending."""
    lengths = np.diff(offsets)
    out = np.empty(int((lengths // 2 + 1).sum()), np.uint64)
    bounds = np.zeros(len(offsets), np.int64)
    _shingle_sets(read_only(data), read_only(offsets), word_codes(), ngram, word_scratch(offsets), out, bounds)
    return out[: bounds[-1]].copy(), bounds


@numba.njit(cache=True, nogil=True, error_model="numpy")
def shared(a, b):
    """|a & b| of two ascending arrays without repeats."""
    i = j = common = 0
    while i < len(a) and j < len(b):  # which array is behind can't be predicted, so there is no branch on it
        x, y = a[i], b[j]
        common += int(x == y)
        i += int(x <= y)
        j += int(y <= x)
    return common
