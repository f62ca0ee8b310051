# mypy: disallow-untyped-defs=False
"""The third phase: what is connected by candidates is judged together, in groups that fit into memory.

Union-find (Tarjan) over flat arrays, one file of candidates after the other: each group or bucket is a star around its first document,
not all pairs. In memory are a few numbers for each document of the input and one file.
"""

from collections.abc import Sequence

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.dedup.batches import batches_bytes
from corpusmill.dedup.corpus import Shard, located, starts
from corpusmill.pipeline.shards import iter_tables, read_table
from corpusmill.pipeline.stage import Output
from corpusmill.pipeline.storage import Storage

GROUPS_FILE = "groups/documents.arrow"
#: 64-bit words (signatures, shingles, columns) that one task has in memory at once.
GROUP_WORDS = 16_000_000
#: What a document weighs beside its signature and its shingles: id, source, times, counts.
DOCUMENT_WORDS = 32

#: One batch a shard: its documents that have a candidate, by row.
MEMBERS = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("group", pa.int64(), nullable=False),
        pa.field("near", pa.bool_(), nullable=False),  # whether it is in a bucket, so that its signature and text are needed
        pa.field("words", pa.int64(), nullable=False),  # what it weighs, as GROUP_WORDS
    ]
)

Index = npt.NDArray[np.int64]
IN_GROUP, IN_BUCKET = 1, 2


@numba.njit(cache=True, nogil=True)
def find_root(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@numba.njit(cache=True, nogil=True)
def join(parent, star, document):
    """Joins every document to the one before it where both have one star (`star` ascends); roots are the lowest members."""
    for i in range(1, len(star)):
        if star[i] == star[i - 1]:
            a, b = find_root(parent, document[i - 1]), find_root(parent, document[i])
            if a < b:
                parent[b] = a
            else:
                parent[a] = b


@numba.njit(cache=True, nogil=True)
def join_up_to(parent, weight, star, document, limit, smallest, largest):
    """As `join`, but for stars of `smallest` to `largest` documents alone and never to more than `limit` of weight; returns how often
    documents were left apart. What has no room with a star's first documents begins anew with those behind it, so that a million near
    copies come together in a few components. `weight` holds the weight of each root."""
    apart, begin = 0, 0
    while begin < len(star):
        end = begin
        while end < len(star) and star[end] == star[begin]:
            end += 1
        if smallest <= end - begin <= largest:
            middle = document[begin]
            for i in range(begin + 1, end):
                a, b = find_root(parent, middle), find_root(parent, document[i])
                if a == b:
                    continue
                if weight[a] + weight[b] > limit:
                    apart += 1
                    if weight[b] <= weight[a]:
                        middle = b
                    continue
                weight[min(a, b)] = weight[a] + weight[b]
                parent[max(a, b)] = min(a, b)
        begin = end
    return apart


@numba.njit(cache=True, nogil=True)
def roots(parent):
    for i in range(len(parent)):
        parent[i] = find_root(parent, i)
    return parent


def components(
    count: int, groups: Sequence[tuple[Index, Index]], buckets: Sequence[tuple[Index, Index]], weight: Index, limit: int
) -> tuple[Index, int]:
    """`(root, apart)`: the lowest member of each document's connected component, and how many candidates were left apart.

    `groups` (copies: they always stay together) and `buckets` (candidates) give stars, `buckets` more than once: `(star, document)`, the
    star ascending. Where a component weighs more than `limit`, all are made again from the smallest buckets to the largest, leaving apart
    what would exceed it: the smaller a bucket, the more its documents share. Of buckets alike in size the first ones win, so what is left
    apart depends on the order of the documents.
    """
    parent = np.arange(count)
    for star, document in groups:
        join(parent, star, document)
    copies = parent.copy()
    for star, document in buckets:
        join(parent, star, document)
    root = roots(parent)
    if not count or np.bincount(root, weight).max() <= limit:
        return root, 0
    parent = roots(copies)
    heavy, apart, smallest = np.bincount(parent, weight, count).astype(np.int64), 0, 2
    while True:
        largest_seen = 0
        for star, document in buckets:
            apart += join_up_to(parent, heavy, star, document, limit, smallest, 2 * smallest - 1)
            largest_seen = max(largest_seen, int(np.unique(star, return_counts=True)[1].max(initial=0)))
        if largest_seen < 2 * smallest:
            return roots(parent), apart
        smallest *= 2


class Stars(Sequence[tuple[Index, Index]]):
    """The candidates of some files, read anew each time; `star` is the column that says what belongs together."""

    def __init__(self, run: Storage, files: Sequence[str], star: str):
        self.run, self.files, self.star = run, files, star

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number):
        table = read_table(self.run, self.files[number], [self.star, "document"])
        return table[self.star].to_numpy(), table["document"].to_numpy()


def groups_output(run: Storage, shards: list[Shard], own: int, groups: Sequence[str], buckets: Sequence[str], places: int) -> Output:
    """The file of what is judged where. Components with none of the first `own` documents, those of this run, are left out: earlier
    runs have judged them. `places`: 64-bit words of a signature. Counts: `groups`, `apart`."""
    begin = starts(shards)
    weight, state = np.full(begin[-1], DOCUMENT_WORDS), np.zeros(begin[-1], np.uint8)
    copies, candidates = Stars(run, groups, "first"), Stars(run, buckets, "bucket")
    for stars, bit in ((copies, IN_GROUP), (candidates, IN_BUCKET)):
        for _, document in stars:
            state[document] |= bit
    near = state & IN_BUCKET != 0
    for shard, first in zip(shards, begin, strict=False):
        weight[first : first + shard.rows] += np.where(near[first : first + shard.rows], _shingles(run, shard) + places, 0)
    limit = max(GROUP_WORDS, 2 * int(weight.max(initial=0)))  # the longest document can be compared with another one
    root, apart = components(len(weight), copies, candidates, weight, limit)
    judged = (state != 0) & (root < own)
    group = _pack(root[judged], weight[judged])
    members = np.flatnonzero(judged)
    cuts = np.searchsorted(members, begin)
    tables = [
        pa.table([members[a:b] - first, group[a:b], near[members[a:b]], weight[members[a:b]]], schema=MEMBERS)
        for a, b, first in zip(cuts[:-1], cuts[1:], begin)
    ]
    counts = {"groups": int(group.max(initial=0)) + 1 if shards else 0, "apart": apart}
    return Output({GROUPS_FILE: batches_bytes(MEMBERS, tables, "lz4")}, counts=counts)


def _shingles(run: Storage, shard: Shard) -> Index:
    found = [table["shingles"].to_numpy() for table in iter_tables(*located(run, shard.signatures.path), ["shingles"])]
    return np.concatenate([np.zeros(0, np.int64), *found])


def _pack(root: Index, weight: Index) -> Index:
    """A group for each document: whole components in the order of their roots, each group filled up to about GROUP_WORDS."""
    names, component = np.unique(root, return_inverse=True)
    before = np.cumsum(np.bincount(component, weight, len(names)).astype(np.int64)) if len(names) else np.zeros(0, np.int64)
    return np.unique(before // GROUP_WORDS, return_inverse=True)[1][component] if len(names) else component
