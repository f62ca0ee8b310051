# mypy: disallow-untyped-defs=False
"""The exact Jaccard similarity of two documents: on the sets of their 64-bit shingle hashes (`shingles.Shingler.sets`)."""

import numba


@numba.njit(cache=True, nogil=True, error_model="numpy")
def jaccard(a, b):
    """|a & b| / |a | b| of two ascending arrays without repeats; 0 where both are empty."""
    i = j = common = 0
    while i < len(a) and j < len(b):  # which array is behind can't be predicted, so there is no branch on it
        x, y = a[i], b[j]
        common += int(x == y)
        i += int(x <= y)
        j += int(y <= x)
    union = len(a) + len(b) - common
    return common / union if union else 0.0
