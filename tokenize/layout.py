"""Which documents are for validation, and which range of the global order each token shard holds."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.token_shards import SPLITS
from corpusmill.tokenize.chance import BUCKETS, remixed
from corpusmill.tokenize.parts import SPACE

TRAIN, VALIDATION = range(2)

Index = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class ShardRange:
    """One token shard: its number within its split, and the orders it holds (low <= order < high)."""

    split: str
    number: int
    low: int
    high: int


def validation_limit(groups: Iterable[Hashes], share: float) -> int:
    """Documents whose group's hash is at most this are for validation; -1 where none is.

    `groups` are the hashes of all documents that take part, in any number of arrays. With a share above 0 and at least two groups,
    both splits get at least one: the smallest hash is always for validation and the largest always for training.
    """
    smallest, largest = SPACE, -1
    for values in groups:
        if len(values):
            smallest, largest = min(smallest, int(values.min())), max(largest, int(values.max()))
    if share <= 0 or smallest >= largest:
        return -1
    return min(max(int(share * SPACE) - 1, smallest), largest - 1)


def for_validation(groups: Hashes, limit: int) -> npt.NDArray[np.bool_]:
    """For each document that takes part, whether it is for validation."""
    return groups <= np.uint64(limit) if limit >= 0 else np.zeros(len(groups), np.bool_)


def copy_orders(order: Hashes, copy: Index, shuffle: bool, most: int) -> Hashes:
    """The place in the global order of copies (numbered from 0) of documents whose own place is `order`.

    Shuffled, each copy has a place of its own that has nothing to do with the others; else one pass over the documents comes after the
    other, `most` passes in all.
    """
    if most == 1:
        return order
    if shuffle:
        return np.where(copy > 0, remixed(order, copy), order)
    return order // np.uint64(most) + copy.astype(np.uint64) * np.uint64(SPACE // most)


def shard_ranges(histograms: dict[str, Index], shard_tokens: int) -> list[ShardRange]:
    """Cuts each split into shards of equal size, as nearly as whole buckets allow, of about `shard_tokens` at most; none is empty.

    `histograms`: by split, the tokens in each of the BUCKETS of the global order.
    """
    ranges = []
    for split in SPLITS:
        ends = np.cumsum(histograms[split])
        total = int(ends[-1])
        shards = -(-total // shard_tokens)
        cuts = [int(np.searchsorted(ends, total * i // shards, "left")) + 1 for i in range(1, shards)]
        limits = sorted({0, BUCKETS, *(cut for cut in cuts if ends[cut - 1] < total)})
        if total:
            ranges += [
                ShardRange(split, number, low * (SPACE // BUCKETS), high * (SPACE // BUCKETS))
                for number, (low, high) in enumerate(pairwise(limits))
            ]
    return ranges
