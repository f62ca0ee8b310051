# mypy: disallow-untyped-defs=False
"""Batches copied out of mapped shards by kernels: no Python for a row, and no other memory than the batch.

Shards are given by where they lie (`TokenShards.starts` and `.addresses`). A kernel that needs one which is not mapped yet returns its
number, and is called again when it is; -1 says that the batch is there.
"""

import numpy as np

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.buffers import array_at


@kernel
def copy_windows(begins, starts, addresses, like, rows):
    """Fills `rows` `[B, L]` with the L tokens from each of the positions `begins` `[B]` on, across the borders of shards.

    `starts` are the positions at which shards begin, and the total; `like` is an array of the shards' type.
    """
    length = rows.shape[1]
    for row in range(begins.size):
        position, place = begins[row], 0
        shard = np.searchsorted(starts, position, "right") - 1
        while place < length:
            count = min(length - place, starts[shard + 1] - position)
            if count > 0:
                if addresses[shard] == 0:
                    return shard
                tokens = array_at(addresses[shard], starts[shard + 1] - starts[shard], like)
                at = position - starts[shard]
                for i in range(count):
                    rows[row, place + i] = tokens[at + i]
                place += count
                position += count
            shard += 1
    return -1


@kernel
def number_segments(rows, end, segments):
    """Numbers the documents in each row's inputs: `segments` `[B, L - 1]` for `rows` `[B, L]`; a document begins at its `end` token."""
    for row in range(segments.shape[0]):
        number = 0
        for place in range(segments.shape[1]):
            number += rows[row, place] == end
            segments[row, place] = number


@kernel
def copy_packed(rows, row_starts, plans, starts, addresses, like, end, ids, targets, segments):
    """Fills `targets` and `segments` `[B, T]` with the pieces of each of the packed rows `rows` `[B]`, and `ids` with what each target
    is predicted from: the token before it, or `end` where it is the first of its shard.

    `row_starts` says which packed row is the first of each shard; `plans` `[shards, 4]` how many pieces its plan
    has and where their rows, firsts and sizes lie. What pieces leave free stays as it was given, in a segment of its own.
    """
    for number in range(rows.size):
        shard = np.searchsorted(row_starts, rows[number], "right") - 1
        pieces = np.int64(plans[shard, 0])
        if addresses[shard] == 0 or pieces == 0:
            return shard
        row = rows[number] - row_starts[shard]
        row_of = array_at(plans[shard, 1], pieces, starts)
        first = array_at(plans[shard, 2], pieces, starts)
        size = array_at(plans[shard, 3], pieces, starts)
        tokens = array_at(addresses[shard], starts[shard + 1] - starts[shard], like)
        piece, place, segment = np.searchsorted(row_of, row), 0, 0
        while piece < row_of.size and row_of[piece] == row:
            begin, count = first[piece], size[piece]
            ids[number, place] = tokens[begin - 1] if begin else end
            for i in range(1, count):
                ids[number, place + i] = tokens[begin + i - 1]
            for i in range(count):
                targets[number, place + i] = tokens[begin + i]
                segments[number, place + i] = segment
            place, segment, piece = place + count, segment + 1, piece + 1
        segments[number, place:] = segment
    return -1
