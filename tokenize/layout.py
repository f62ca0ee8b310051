"""Which documents are for validation, and which range of the global order each token shard holds."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.tokenize.chance import BUCKETS, buckets
from corpusmill.tokenize.parts import SPACE

SPLITS = ("train", "validation")


@dataclass(frozen=True)
class ShardRange:
    """One token shard: its number within its split, and the orders it holds (low <= order < high)."""

    split: str
    number: int
    low: int
    high: int


def validation_limit(groups: Iterable[npt.NDArray[np.uint64]], share: float) -> int:
    """Documents whose group's hash is at most this are for validation; -1 where none is.

    `groups` are the hashes of all documents with text, in any number of arrays. With a share above 0 and at least two groups,
    both splits get at least one: the smallest hash is always for validation and the largest always for training.
    """
    smallest, largest = SPACE, -1
    for values in groups:
        if len(values):
            smallest, largest = min(smallest, int(values.min())), max(largest, int(values.max()))
    if share <= 0 or smallest >= largest:
        return -1
    return min(max(int(share * SPACE) - 1, smallest), largest - 1)


def is_validation(table: pa.Table, limit: int) -> npt.NDArray[np.bool_]:
    """For each row of a part's table, whether it is for validation; documents without text never are."""
    if limit < 0:
        return np.zeros(table.num_rows, np.bool_)
    return (table["group"].to_numpy() <= np.uint64(limit)) & (table["tokens"].to_numpy() > 0)


def token_histograms(tables: Iterable[pa.Table], limit: int) -> dict[str, npt.NDArray[np.int64]]:
    """Tokens in each bucket of the global order, by split."""
    found = {split: np.zeros(BUCKETS, np.int64) for split in SPLITS}
    for table in tables:
        places, tokens, validation = buckets(table["order"].to_numpy()), table["tokens"].to_numpy(), is_validation(table, limit)
        np.add.at(found["train"], places[~validation], tokens[~validation])
        np.add.at(found["validation"], places[validation], tokens[validation])
    return found


def shard_ranges(histograms: dict[str, npt.NDArray[np.int64]], shard_tokens: int) -> list[ShardRange]:
    """Cuts each split into shards of equal size, as nearly as whole buckets allow, of about `shard_tokens` at most."""
    ranges = []
    for split in SPLITS:
        ends = np.cumsum(histograms[split])
        total = int(ends[-1])
        shards = -(-total // shard_tokens)
        cuts = [int(np.searchsorted(ends, total * i // shards, "left")) + 1 for i in range(1, shards)]
        limits = sorted({0, BUCKETS, *cuts})
        if total:
            ranges += [
                ShardRange(split, number, low * (SPACE // BUCKETS), high * (SPACE // BUCKETS))
                for number, (low, high) in enumerate(pairwise(limits))
            ]
    return ranges
