# mypy: disallow-untyped-defs=False
"""Repeated lines and paragraphs where all copies count, the first one too. The table holds two uint64 a slot: key, times seen."""

import numpy as np

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.table import table_size


@kernel
def cleared_copies(table, entries):
    """Empties as much of the table (of at least `2 * table_size(entries)` items) as the entries need; returns its mask."""
    size = table_size(entries)
    table[: 2 * size] = np.uint64(0)
    return size - 1


@kernel
def count_copy(table, mask, key):
    """By how many the copies of repeated pieces grow with this one: 0 for the first, 2 for the second, 1 for each later one."""
    slot = np.int64(key) & mask
    while table[2 * slot + 1] != 0:
        if table[2 * slot] == key:
            table[2 * slot + 1] += np.uint64(1)
            return 2 if table[2 * slot + 1] == 2 else 1
        slot = (slot + 1) & mask
    table[2 * slot] = key
    table[2 * slot + 1] = np.uint64(1)
    return 0
