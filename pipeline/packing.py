# mypy: disallow-untyped-defs=False
"""Packs documents into rows of a given length, so that few places of the rows stay empty.

A row of T places predicts at most T tokens. A document longer than T is cut into pieces of T tokens and a shorter rest. Pieces are packed
by best fit: longest first, each into the fullest row that still has room for it. To find this row, there is a linked list of rows for
each number of free places, and a tree over these numbers that counts the rows in the lists. So n pieces take O(n log T).
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.token_shards import PLAN, Integers


def cut(documents: Integers, length: int) -> tuple[Integers, Integers]:
    """Returns the first token and the size of each piece, in the order of the tokens. `documents`: the number of tokens of each."""
    pieces = -(-documents // length)
    starts = np.cumsum(documents) - documents
    number = np.arange(int(pieces.sum())) - np.repeat(np.cumsum(pieces) - pieces, pieces)  # of the piece within its document
    return np.repeat(starts, pieces) + number * length, np.minimum(np.repeat(documents, pieces) - number * length, length)


def plan(documents: Integers, length: int) -> tuple[pa.Table, int]:
    """Returns the plan (schema PLAN) and its number of rows. `documents`: the number of tokens of each document of a shard, in order."""
    first, sizes = cut(documents, length)
    row, rows = best_fit(sizes, length)
    order = np.argsort(row, kind="stable")
    return pa.table({"row": row[order], "first": first[order], "tokens": sizes[order]}, schema=PLAN), rows


def best_fit(lengths: npt.NDArray[np.int64], capacity: int) -> tuple[npt.NDArray[np.int64], int]:
    """Returns the row of each item and the number of rows. Rows are numbered as they were opened; equal lengths keep their order.

    Raises ValueError if an item is empty or longer than `capacity`.
    """
    if len(lengths) and not (lengths.min() > 0 and lengths.max() <= capacity):
        wrong = next(int(length) for length in lengths if not 0 < length <= capacity)
        raise ValueError(f"a sequence of {wrong} places does not fit into rows of {capacity}")
    return _place(np.ascontiguousarray(lengths, np.int64), capacity)


@kernel
def _place(lengths, capacity):
    order = _longest_first(lengths, capacity)
    leaves = 1
    while leaves <= capacity:
        leaves *= 2
    tree = np.zeros(2 * leaves, np.int64)  # the leaves count the rows by free places, inner nodes sum
    latest = np.full(capacity + 1, -1, np.int64)  # the first row of the list for each number of free places
    before = np.full(lengths.size, -1, np.int64)  # the next row in the list of each row
    row_of, rows = np.empty(lengths.size, np.int64), 0
    for item in order:
        length = lengths[item]
        free = _smallest_from(tree, leaves, length)
        if free < 0:
            free, row = capacity, rows
            rows += 1
        else:
            row = latest[free]
            latest[free] = before[row]
            _add(tree, leaves + free, -1)
        row_of[item] = row
        free -= length
        if free:
            before[row], latest[free] = latest[free], row
            _add(tree, leaves + free, 1)
    return row_of, rows


@kernel
def _longest_first(lengths, capacity):
    """Returns the item numbers by length, the longest first; equal lengths keep their order (a counting sort)."""
    place = np.zeros(capacity + 2, np.int64)  # shorter lengths come later
    for length in lengths:
        place[length - 1] += 1
    for length in range(capacity, -1, -1):
        place[length] += place[length + 1]
    order = np.empty(lengths.size, np.int64)
    for item in range(lengths.size):
        order[place[lengths[item]]] = item
        place[lengths[item]] += 1
    return order


@kernel
def _smallest_from(tree, leaves, least):
    """Returns the smallest number of free places, at least `least`, that some row has; -1 where no row has as many."""
    node = leaves + least
    while tree[node] == 0:
        while node & 1:
            node >>= 1
        if node == 0:
            return -1
        node += 1
    while node < leaves:
        node *= 2
        if tree[node] == 0:
            node += 1
    return node - leaves


@kernel
def _add(tree, node, change):
    while node:
        tree[node] += change
        node >>= 1
