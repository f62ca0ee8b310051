"""Checks documents before a stage reads them, and chooses among them by a hashing sampler.

The choices (sampling, shuffling, splitting) look random, but depend only on a document's id and a seed."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.errors import InputError
from corpusmill.text.hashing import xxh64_column


def checked(table: pa.Table, path: str, begin: int) -> pa.Table:
    """Returns the table unchanged; its first row is row `begin` of the shard `path`. Raises InputError if a document lacks an id or
    text, or a string is not valid UTF-8."""
    for name in ("id", "text"):
        if table[name].null_count:
            raise InputError(f"{path}: a document has no {name} (null).")
    try:
        table.validate(full=True)
    except pa.ArrowInvalid as error:
        for name in table.column_names:
            for row in range(table.num_rows):
                try:
                    table[name].slice(row, 1).validate(full=True)
                except pa.ArrowInvalid:
                    raise InputError(f"{path}: row {begin + row} is not valid UTF-8 in the column {name}.") from error
        raise InputError(f"{path}: not a readable shard of documents ({error}).") from error
    return table


# ---- the hashing sampler ---------------------------------------------------------------------------------


#: The number of buckets. A hash's first 16 bits choose its bucket, so histograms over buckets are small for any corpus.
BUCKETS = 1 << 16
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hashes(keys: pa.Array | pa.ChunkedArray | Iterable[str | None], seed: int) -> npt.NDArray[np.uint64]:
    """Returns the XXH64 of each key; a missing key counts as an empty one."""
    column = keys if isinstance(keys, pa.Array | pa.ChunkedArray) else pa.array(keys, pa.string())
    return xxh64_column(column.fill_null("") if column.null_count else column, seed)


def remixed(values: npt.NDArray[np.uint64], number: int | npt.NDArray[np.integer]) -> npt.NDArray[np.uint64]:
    """Returns the `number`-th further hash of each value. `number` is 1 or more: one for all values, or one for each."""
    mixed = values + np.asarray(number).astype(np.uint64) * GOLDEN  # SplitMix64 (Steele et al., 2014), seeded with the value
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def buckets(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Returns the bucket (0 to BUCKETS - 1) of each hash; a larger hash is never in an earlier bucket."""
    return (values >> np.uint64(48)).astype(np.int64)
