"""Batches of windows over token shards. The step number is the whole state.

Sample `step * batch + i` of the run is window `permutation(seed, epoch)[sample % windows]`, so order and content are the
same for any number of processes and micro-batches, and every window is seen once an epoch.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import EOT_ID
from corpusmill.train.bits import Batch
from corpusmill.train.permutation import permute


class Tokens(Protocol):
    """A long row of token ids (`corpusmill.pipeline.tokenshards.TokenShards`)."""

    def __len__(self) -> int: ...

    def window(self, start: int, length: int) -> npt.NDArray[np.integer]:
        """`length` ids from position `start` on."""
        ...


def to_batch(rows: npt.NDArray[np.int64], document_mask: bool) -> Batch:
    """Rows `[B, T + 1]` of ids as inputs, the targets one place further, and (with a mask) segments, each `[B, T]`.

    A document begins at its `<|endoftext|>`; predicting that token is the last thing its predecessor learns.
    """
    ids = torch.from_numpy(rows[:, :-1])
    segments = (ids == EOT_ID).cumsum(dim=1) if document_mask else None
    return ids, torch.from_numpy(rows[:, 1:]), segments


def to_device(batch: Batch, device: torch.device) -> Batch:
    ids, targets, segments = batch
    return ids.to(device), targets.to(device), None if segments is None else segments.to(device)


class WindowLoader:
    """Training batches: windows of `context + 1` tokens that overlap by one, in a new order each epoch."""

    def __init__(self, tokens: Tokens, context: int, batch: int, seed: int, document_mask: bool):
        self.tokens, self.context, self.batch, self.seed, self.document_mask = tokens, context, batch, seed, document_mask
        self.windows = (len(tokens) - 1) // context
        if self.windows < 1:
            raise InputError(f"the training tokens are too few: {len(tokens)}, and one window needs {context + 1}.")

    def starts(self, step: int, begin: int = 0, end: int | None = None) -> npt.NDArray[np.int64]:
        """The first token of samples `begin` to `end` of a step's batch."""
        samples = step * self.batch + np.arange(begin, self.batch if end is None else end, dtype=np.int64)
        epochs, places = np.divmod(samples, self.windows)
        windows = np.empty_like(places)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            windows[chosen] = permute(places[chosen], self.windows, self.seed, int(epoch))
        return windows * self.context

    def load(self, step: int, begin: int = 0, end: int | None = None) -> Batch:
        """Samples `begin` to `end` of a step's batch."""
        starts = self.starts(step, begin, end)
        rows = np.empty((len(starts), self.context + 1), np.int64)
        for row, start in zip(rows, starts):
            row[:] = self.tokens.window(int(start), self.context + 1)
        return to_batch(rows, self.document_mask)


def evaluation_batches(tokens: Tokens, context: int, batch: int, document_mask: bool, windows: int | None = None) -> Iterator[Batch]:
    """The whole row of tokens, each predicted once from its window; or `windows` of its windows, evenly spread.

    The first token is predicted from an `<|endoftext|>` before it, so the bytes of all targets are those of the text.
    """
    whole, rest = divmod(len(tokens), context)
    chosen = np.arange(whole) if windows is None or windows >= whole else np.arange(windows) * whole // windows
    for begin in range(0, len(chosen), batch):
        rows = [_with_token_before(tokens, int(w) * context, context) for w in chosen[begin : begin + batch]]
        yield to_batch(np.stack(rows), document_mask)
    if rest and (windows is None or windows > whole):
        yield to_batch(_with_token_before(tokens, whole * context, rest)[None], document_mask)


def _with_token_before(tokens: Tokens, start: int, length: int) -> npt.NDArray[np.int64]:
    """`length` tokens from `start` on, after the one before them."""
    if start:
        return tokens.window(start - 1, length + 1).astype(np.int64)
    return np.concatenate(([EOT_ID], tokens.window(0, length))).astype(np.int64)
