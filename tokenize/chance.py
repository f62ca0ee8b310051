"""Choices that look random but depend on a document's id and a seed alone: sampling, shuffling, splitting."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import xxhash

#: The 2^16 buckets that a hash falls into by its first bits: histograms over them are small whatever the corpus.
BUCKETS = 1 << 16


def hashes(keys: Iterable[str | None], seed: int) -> npt.NDArray[np.uint64]:
    """XXH3-64 of each key (none counts as an empty one)."""
    return np.array([xxhash.xxh3_64_intdigest(key or "", seed) for key in keys], np.uint64)


def buckets(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """The bucket (0 to BUCKETS - 1) of each hash; a larger hash is never in an earlier bucket."""
    return (values >> np.uint64(48)).astype(np.int64)
