# mypy: disallow-untyped-defs=False
"""Tokens that a whole piece becomes though merging does not lead to them.

tiktoken, and `ignore_merges` of `tokenizers`, look for the piece among the tokens before they merge.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.hashing import hash_span


class WholeTokens(NamedTuple):
    """An open hash table: `ids` int64 [slots] (-1 where free), where each token's bytes lie in `data`, and the longest token's bytes."""

    data: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]
    longest: int


def make_whole_tokens(tokens: Mapping[bytes, int]) -> WholeTokens:
    size = 16
    while size < 2 * len(tokens):
        size *= 2
    starts, lengths, ids = np.zeros(size, np.int64), np.zeros(size, np.int64), np.full(size, -1, np.int64)
    data = np.frombuffer(b"".join(tokens), np.uint8) if tokens else np.zeros(0, np.uint8)
    start = 0
    for token, number in tokens.items():
        slot = int(hash_span(data, start, start + len(token))) & (size - 1)
        while ids[slot] >= 0:
            slot = (slot + 1) & (size - 1)
        starts[slot], lengths[slot], ids[slot] = start, len(token), number
        start += len(token)
    return WholeTokens(data, starts, lengths, ids, max(map(len, tokens), default=0))


@kernel
def whole_token(whole, data, start, end):
    """The id of the token that `data[start:end]` is, or -1."""
    if end - start > whole.longest:
        return -1
    mask = whole.ids.size - 1
    slot = np.int64(hash_span(data, start, end)) & mask
    while whole.ids[slot] >= 0:
        if whole.lengths[slot] == end - start and _equal(whole.data, whole.starts[slot], data, start, end - start):
            return whole.ids[slot]
        slot = (slot + 1) & mask
    return -1


@kernel
def _equal(left, left_start, right, right_start, length):
    for place in range(length):  # noqa: SIM110 - kernels know no generators
        if left[left_start + place] != right[right_start + place]:
            return False
    return True
