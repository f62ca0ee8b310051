"""Choices that look random but depend on a document's id and a seed alone: sampling, shuffling, splitting."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.text.hashing import xxh64_column

#: The 2^16 buckets that a hash falls into by its first bits: histograms over them are small whatever the corpus.
BUCKETS = 1 << 16
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hashes(keys: pa.Array | pa.ChunkedArray | Iterable[str | None], seed: int) -> npt.NDArray[np.uint64]:
    """XXH64 of each key (none counts as an empty one)."""
    column = keys if isinstance(keys, pa.Array | pa.ChunkedArray) else pa.array(keys, pa.string())
    return xxh64_column(column.fill_null("") if column.null_count else column, seed)


def remixed(values: npt.NDArray[np.uint64], number: int | npt.NDArray[np.integer]) -> npt.NDArray[np.uint64]:
    """Further hashes of what has these: the `number`-th (from 1 on; one for all, or one each) of each value."""
    mixed = values + np.asarray(number).astype(np.uint64) * GOLDEN  # SplitMix64 (Steele et al., 2014), begun at the value
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def buckets(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """The bucket (0 to BUCKETS - 1) of each hash; a larger hash is never in an earlier bucket."""
    return (values >> np.uint64(48)).astype(np.int64)
