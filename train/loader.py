"""Batches of windows over token shards. The number of samples that were taken is the whole state.

Sample `n` of a run is window `permutation(seed, epoch)[n % windows]`, so order and content are the same for any number of processes,
workers and micro-batches, and every window is seen once an epoch. Step `s` takes samples `s * batch` to `(s + 1) * batch`.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import EOT_ID, PAD_ID
from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.train.bits import Batch
from corpusmill.train.objective import Share
from corpusmill.train.packing import IGNORED
from corpusmill.train.permutation import permute
from corpusmill.train.windows import copy_windows, number_segments

Integers = npt.NDArray[np.int64]
#: What ids and targets are given as: `int64`, or as the shards hold them (which a model on a GPU widens there).
Output = Literal["int64", "stored"]
#: What one process alone computes.
ALL = Share()


class Tokens(Protocol):
    """A long row of token ids in shards (`corpusmill.pipeline.token_shards.TokenShards`)."""

    dtype: np.dtype[Any]
    starts: Integers
    addresses: npt.NDArray[np.uint64]

    def __len__(self) -> int: ...

    def map(self, numbers: Iterable[int]) -> None:
        """Brings shards into memory, so that `addresses` says where they lie."""
        ...

    def window(self, start: int, length: int) -> npt.NDArray[np.integer]:
        """`length` ids from position `start` on."""
        ...


class Loader(Protocol):
    """Batches of a run by the numbers of their samples."""

    batch: int

    def samples(self, first: int, count: int) -> Batch:
        """Samples `first` to `first + count` of the whole run."""
        ...


def to_batch(rows: Integers, document_mask: bool) -> Batch:
    """Rows `[B, T + 1]` of ids as inputs, the targets one place further, and (with a mask) segments, each `[B, T]`.

    A document begins at its `<|endoftext|>`; predicting that token is the last thing its predecessor learns.
    """
    segments = None
    if document_mask:
        numbers = np.empty((len(rows), rows.shape[1] - 1), np.int32)
        number_segments(rows, EOT_ID, numbers)
        segments = torch.from_numpy(numbers)
    ids = torch.from_numpy(rows)
    return ids[:, :-1], ids[:, 1:], segments


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch there; to a GPU without waiting for what it is doing."""
    if device.type == "cpu":
        return batch
    ids, targets, segments = (None if part is None else part.pin_memory().to(device, non_blocking=True) for part in batch)
    assert ids is not None and targets is not None
    return ids, targets, segments


def places(first: int, count: int, items: int, seed: int) -> Integers:
    """Which of `items` the samples `first` to `first + count` of a run are, each item once an epoch, in another order each time."""
    found, filled = np.empty(count, np.int64), 0
    while filled < count:
        epoch, place = divmod(first + filled, items)
        here = min(items - place, count - filled)
        found[filled : filled + here] = permute(np.arange(place, place + here), items, seed, epoch)
        filled += here
    return found


class WindowLoader:
    """Training batches: windows of `context + 1` tokens that overlap by one, in a new order each epoch."""

    def __init__(self, tokens: Tokens, context: int, batch: int, seed: int, document_mask: bool, output: Output = "int64"):
        self.tokens, self.context, self.batch, self.seed, self.document_mask = tokens, context, batch, seed, document_mask
        self.windows = (len(tokens) - 1) // context
        self._like = np.empty(0, tokens.dtype)
        self._dtype = np.dtype(np.int64) if output == "int64" else tokens.dtype
        if self.windows < 1:
            raise InputError(f"the training tokens are too few: {len(tokens)}, and one window needs {context + 1}.")

    def starts(self, step: int, begin: int = 0, end: int | None = None) -> Integers:
        """The first token of samples `begin` to `end` of a step's batch."""
        return self._starts(step * self.batch + begin, (self.batch if end is None else end) - begin)

    def load(self, step: int, begin: int = 0, end: int | None = None) -> Batch:
        """Samples `begin` to `end` of a step's batch."""
        return self.samples(step * self.batch + begin, (self.batch if end is None else end) - begin)

    def samples(self, first: int, count: int) -> Batch:
        """Samples `first` to `first + count` of the whole run."""
        tokens, begins = self.tokens, self._starts(first, count)
        rows = np.empty((count, self.context + 1), self._dtype)
        while copy_windows(begins, tokens.starts, tokens.addresses, self._like, rows) >= 0:
            tokens.map(shards_between(tokens, begins, begins + self.context))
        return to_batch(rows, self.document_mask)

    def documents(self, step: int, begin: int = 0, end: int | None = None) -> list[str]:
        """The ids of the documents in samples `begin` to `end` of a step's batch."""
        tokens = self.tokens
        if not isinstance(tokens, TokenShards):
            return []
        starts = self.starts(step, begin, end).tolist()
        return sorted({address.id for start in starts for address in tokens.documents_of(start, self.context + 1)})

    def _starts(self, first: int, count: int) -> Integers:
        return places(first, count, self.windows, self.seed) * self.context


def shards_between(tokens: Tokens, first: Integers, last: Integers) -> list[int]:
    """The shards that hold any token from one of the positions `first` to the one of `last` beside it, both included."""
    low, high = (np.searchsorted(tokens.starts, positions, "right") - 1 for positions in (first, last))
    return sorted({number for a, b in zip(low.tolist(), high.tolist()) for number in range(a, b + 1)})


def evaluation_batches(
    tokens: Tokens, context: int, batch: int, document_mask: bool, windows: int = 0, share: Share = ALL
) -> Iterator[tuple[Integers, Batch]]:
    """The whole row of tokens, each predicted once from its window; or `windows` of its windows, evenly spread. Positions of the targets
    in the row and their batch, `[B, T]` each.

    The first token is predicted from an `<|endoftext|>` before it, so the bytes of all targets are those of the text. Shares get other
    rows, but as many batches of one shape (with at most `batch` rows): places that stay free have position -1 and the target IGNORED.
    """
    whole, length = -(-len(tokens) // context), min(context, len(tokens))
    chosen = np.arange(windows) * whole // windows if 0 < windows < whole else np.arange(whole)
    rounds = -(-len(chosen) // (batch * share.of))
    size = -(-len(chosen) // max(rounds * share.of, 1))
    for number in range(rounds):
        begin = (number * share.of + share.index) * size
        rows, places = np.full((size, length + 1), PAD_ID, np.int64), np.full((size, length), -1, np.int64)
        for row, window in enumerate(chosen[begin : begin + size].tolist()):
            start = window * context
            count = min(length, len(tokens) - start)
            rows[row, 0] = EOT_ID if not start else tokens.window(start - 1, 1)[0]
            rows[row, 1 : count + 1] = tokens.window(start, count)
            places[row, :count] = np.arange(start, start + count)
        ids, targets, segments = to_batch(rows, document_mask)
        yield places, (ids, torch.where(torch.from_numpy(places) < 0, IGNORED, targets), segments)
