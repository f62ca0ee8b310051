"""Documents as the stages take them: whole, and chosen by a hashing sampler.

Its choices (sampling, shuffling, splitting) look random, but depend on a document's id and a seed alone."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.text.hashing import xxh64_column


def checked(table: pa.Table, path: str, begin: int) -> pa.Table:
    """The table, whose first row is number `begin` of the shard `path`. Raises InputError where a document has no id or text, or one
    that is not valid UTF-8."""
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
