# mypy: disallow-untyped-defs=False
"""The compiled kernels of the loader: a permutation that is computed place by place, and batches copied out of mapped shards."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.buffers import array_at

# ---- a permutation -----------------------------------------------------------------------------------
#
# A pseudo-random permutation of 0 .. n-1 that is computed place by place and never listed.
#
# A balanced Feistel network over the next even power of two, walked until it lands below n (cycle walking). Any place costs the same, so
# order depends on seed and epoch alone, however many processes share the work.

ROUNDS = 6
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)  # SplitMix64's finaliser
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def permute(places: npt.NDArray[np.int64], n: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Where each of `places` (int64, all in 0 .. n-1) goes in the permutation of `n` for this seed and epoch."""
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    result = np.empty(len(places), np.int64)
    _permute(places, n, half, _keys(seed % 2**64, epoch % 2**64), result)
    return result


@lru_cache(maxsize=64)
def _keys(seed: int, epoch: int) -> npt.NDArray[np.uint64]:
    keys = np.empty(ROUNDS, np.uint64)
    _fill_keys(np.uint64(seed), np.uint64(epoch), keys)
    return keys


@kernel
def _permute(places, n, half, keys, result):
    shift, limit = np.uint64(half), np.uint64(n)
    mask = (np.uint64(1) << shift) - np.uint64(1)
    for number in range(places.size):
        value = np.uint64(places[number])
        while True:
            left, right = value >> shift, value & mask
            for key in keys:
                left, right = right, left ^ (_mix(right ^ key) & mask)
            value = (left << shift) | right
            if value < limit:
                break
        result[number] = np.int64(value)


@kernel(inline="always")
def _mix(value):
    value = (value ^ (value >> np.uint64(30))) * _M1
    value = (value ^ (value >> np.uint64(27))) * _M2
    return value ^ (value >> np.uint64(31))


@kernel
def _fill_keys(seed, epoch, keys):
    for number in range(keys.size):
        state = np.uint64(0)
        for part in (seed, epoch, np.uint64(number)):
            state = _mix((state ^ part) + _GOLDEN)
        keys[number] = state


# ---- copying batches ---------------------------------------------------------------------------------
#
# Copies batches out of mapped shards: no Python for a row, and no other memory than the batch.
#
# Shards are given by their addresses (`TokenShards.starts` and `.addresses`). A kernel that needs a shard which is not mapped yet returns
# its number, and is called again once it is mapped; -1 says that the batch is complete.


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
