"""Batches of packed rows: whole documents and pieces of long ones, by the shards' packing plans (`pipeline/token_shards.py`).

Every token of the shards is a target once an epoch. The inputs of a piece begin with the token before its first: the `<|endoftext|>`
before a document, or for a later piece of a long one the last token of the piece before. A piece sees only itself and its positions
begin at 0; as rotary embedding knows distances alone, it makes no difference that they do not go on where the piece before ended.
Rows come in a new order each epoch, as windows do (`loader.py`).
"""

from dataclasses import dataclass

import numpy as np
import torch

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import EOT_ID, PAD_ID
from corpusmill.pipeline.token_shards import TokenShards, address_of
from corpusmill.train.bits import Batch
from corpusmill.train.loader import Integers, places
from corpusmill.train.packing import IGNORED
from corpusmill.train.windows import copy_packed


@dataclass(frozen=True)
class PackedPiece:
    """`tokens` tokens of a shard from its token `first` on, as the targets of a row's places from `place` on.

    The input at place `place + i` is token `first + i - 1`: at the beginning of a shard an `<|endoftext|>` that lies in no file.
    """

    place: int
    shard: int
    first: int
    tokens: int


class PackedLoader:
    """Training batches of packed rows of `context` places. Raises InputError where the shards have no plan of that length."""

    def __init__(self, tokens: TokenShards, context: int, batch: int, seed: int, document_mask: bool):
        self.tokens, self.context, self.batch, self.seed, self.document_mask = tokens, context, batch, seed, document_mask
        rows = [tokens.packed_rows(number, context) for number in range(len(tokens.shards))]
        #: int64, one more than there are shards: the packed row with which each begins, and the total.
        self.row_starts: Integers = np.concatenate(([0], np.cumsum(rows, dtype=np.int64))).astype(np.int64)
        self.rows = int(self.row_starts[-1])
        self._plans = np.zeros((len(rows), 4), np.uint64)
        self._like = np.empty(0, tokens.dtype)
        if self.rows < 1:
            raise InputError(f"{tokens.storage.root}: there are no training tokens.")

    def __getstate__(self) -> dict[str, object]:
        """Another process maps the plans for itself."""
        return {**self.__dict__, "_plans": np.zeros_like(self._plans)}

    def load(self, step: int, begin: int = 0, end: int | None = None) -> Batch:
        """Samples `begin` to `end` of a step's batch."""
        return self.samples(step * self.batch + begin, (self.batch if end is None else end) - begin)

    def samples(self, first: int, count: int) -> Batch:
        """Samples `first` to `first + count` of the whole run: ids and targets int64, segments int32, each `[count, T]`.

        Free places have PAD_ID, the target IGNORED and a segment of their own.
        """
        rows, shape, tokens = places(first, count, self.rows, self.seed), (count, self.context), self.tokens
        ids, targets, segments = np.full(shape, PAD_ID, np.int64), np.full(shape, IGNORED, np.int64), np.empty(shape, np.int32)
        while (
            copy_packed(
                rows, self.row_starts, self._plans, tokens.starts, tokens.addresses, self._like, EOT_ID,
                ids, targets, segments,
            ) >= 0
        ):  # fmt: skip
            self._map(rows)
        return torch.from_numpy(ids), torch.from_numpy(targets), torch.from_numpy(segments) if self.document_mask else None

    def pieces(self, step: int, row: int) -> list[PackedPiece]:
        """What row `row` of a step's batch holds, from left to right."""
        packed = int(places(step * self.batch + row, 1, self.rows, self.seed)[0])
        shard = int(np.searchsorted(self.row_starts, packed, "right")) - 1
        found, place = [], 0
        for first, tokens in self.tokens.plan(shard, self.context).pieces_of(packed - int(self.row_starts[shard])):
            found.append(PackedPiece(place, shard, first, tokens))
            place += tokens
        return found

    def documents(self, step: int, begin: int = 0, end: int | None = None) -> list[str]:
        """The ids of the documents in rows `begin` to `end` of a step's batch."""
        pieces = (piece for row in range(begin, self.batch if end is None else end) for piece in self.pieces(step, row))
        return sorted({self.tokens.locate(piece.shard, piece.first).id for piece in pieces})

    def _map(self, rows: Integers) -> None:
        shards = np.unique(np.searchsorted(self.row_starts, rows, "right") - 1).tolist()
        self.tokens.map(shards)
        plans = self._plans.copy()  # a thread that is copying goes on with those it has
        for shard in shards:
            plan = self.tokens.plan(shard, self.context)
            plans[shard] = [len(plan.row), *(address_of(column) for column in (plan.row, plan.first, plan.tokens))]
        self._plans = plans
