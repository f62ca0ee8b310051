# mypy: disallow-untyped-defs=False
"""What a training step gets: token shards to batches, and examples to packed rows. The number of samples taken is the whole state.

Sample `n` of a run is window (or packed row) `permutation(seed, epoch)[n % windows]`. So order and content are the same for any number of
processes, workers and micro-batches, and each window is seen once an epoch. Step `s` takes samples `s * batch` to `(s + 1) * batch`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.packing import best_fit
from corpusmill.pipeline.special_tokens import EOT_ID, PAD_ID
from corpusmill.pipeline.text.buffers import array_at
from corpusmill.pipeline.token_shards import TokenShards, address_of
from corpusmill.train.template import Encoded

# ---- batches and shares ------------------------------------------------------------------------------

#: (ids, targets, segments or None): int64 `[B, T]` each; targets of -100 don't count.
Batch = tuple[Tensor, Tensor, Tensor | None]
#: A target that counts for nothing, as torch's cross_entropy has it.
IGNORED = -100


@dataclass(frozen=True)
class DataShare:
    """Which part of every step's rows this process computes: the `index`-th of `of` equal ones."""

    index: int = 0
    of: int = 1

    def bounds(self, rows: int) -> tuple[int, int]:
        """The rows `begin` to `end` of a step's `rows`, which `of` has to divide."""
        if rows % self.of:
            raise ValueError(f"{rows} rows can't be shared evenly by {self.of} processes")
        each = rows // self.of
        return self.index * each, (self.index + 1) * each

    def micro_batches(self, rows: int, size: int) -> list[tuple[int, int]]:
        """The rows `begin` to `end` of each micro-batch of this part, of `size` rows (0: all of them)."""
        first, last = self.bounds(rows)
        size = size or last - first
        return [(begin, min(begin + size, last)) for begin in range(first, last, size)]


# ---- windows of the token stream ---------------------------------------------------------------------

Integers = npt.NDArray[np.int64]
#: What one process alone computes.
ALL = DataShare()


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
    """The batch on the device. A copy to a GPU does not wait for its work."""
    if device.type == "cpu":
        return batch
    ids, targets, segments = (None if part is None else part.pin_memory().to(device, non_blocking=True) for part in batch)
    assert ids is not None and targets is not None
    return ids, targets, segments


def places(first: int, count: int, items: int, seed: int) -> Integers:
    """Which of `items` are the samples `first` to `first + count` of a run: each item once an epoch, in a new order each epoch."""
    found, filled = np.empty(count, np.int64), 0
    while filled < count:
        epoch, place = divmod(first + filled, items)
        here = min(items - place, count - filled)
        found[filled : filled + here] = permute(np.arange(place, place + here), items, seed, epoch)
        filled += here
    return found


class WindowLoader:
    """Training batches: windows of `context + 1` tokens that overlap by one, in a new order each epoch."""

    def __init__(self, tokens: "TokenShards | TokenArray", context: int, batch: int, seed: int, document_mask: bool):
        self.tokens, self.context, self.batch, self.seed, self.document_mask = tokens, context, batch, seed, document_mask
        self.windows = (len(tokens) - 1) // context
        self._like = np.empty(0, tokens.dtype)
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
        rows = np.empty((count, self.context + 1), np.int64)
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


def shards_between(tokens: "TokenShards | TokenArray", first: Integers, last: Integers) -> list[int]:
    """The shards that hold any token between `first[i]` and `last[i]` for some i, both included."""
    low, high = (np.searchsorted(tokens.starts, positions, "right") - 1 for positions in (first, last))
    return sorted({number for a, b in zip(low.tolist(), high.tolist()) for number in range(a, b + 1)})


def evaluation_batches(
    tokens: "TokenShards | TokenArray", context: int, batch: int, document_mask: bool, windows: int = 0, share: DataShare = ALL
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


# ---- packed documents --------------------------------------------------------------------------------
#
# Rows of whole documents, and of parts of long ones, by the shards' packing plans (`pipeline/packing.py`).
#
# Every token of the shards is a target once an epoch. The inputs of a part begin with the token before its first: the `<|endoftext|>`
# before a document, or the last token of the part before. A part sees only itself, and its positions begin at 0; rotary embedding knows
# distances alone, so it makes no difference that they do not go on where the part before ended.


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
        """Without addresses: another process maps the plans itself."""
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
        plans = self._plans.copy()  # another thread may be copying with the old ones
        for shard in shards:
            plan = self.tokens.plan(shard, self.context)
            plans[shard] = [len(plan.row), *(address_of(column) for column in (plan.row, plan.first, plan.tokens))]
        self._plans = plans


# ---- the order of examples ---------------------------------------------------------------------------
#
# A new permutation each epoch, of which any place is computed alone.

#: Rows, pairs or completions of an evaluation batch: a constant, so that scores do not depend on the training batch.
EVALUATION_BATCH = 16


def steps_of(epochs: float, batch: int, examples: int) -> int:
    """The fewest steps that see every example `epochs` times."""
    return int(np.ceil(epochs * examples / batch))


def in_turn(count: int) -> Iterator[list[int]]:
    """The numbers below `count` in batches, for measuring."""
    for begin in range(0, count, EVALUATION_BATCH):
        yield list(range(begin, min(begin + EVALUATION_BATCH, count)))


@dataclass(frozen=True)
class Order:
    """Which of `examples` are in each step of `batch`, computed `micro_batch` at a time (0: all of a process's share)."""

    examples: int
    batch: int
    micro_batch: int
    seed: int

    def of_step(self, step: int) -> list[int]:
        numbers: list[int] = places(step * self.batch, self.batch, self.examples, self.seed).tolist()
        return numbers

    def bounds(self, share: DataShare) -> list[tuple[int, int]]:
        """Where each micro-batch of a share begins and ends in its step."""
        return share.micro_batches(self.batch, self.micro_batch)

    def micro_batches(self, step: int, share: DataShare) -> list[list[int]]:
        """The examples of each micro-batch of a share."""
        numbers = self.of_step(step)
        return [numbers[begin:end] for begin, end in self.bounds(share)]

    def first_epoch(self, share: DataShare) -> Iterator[tuple[list[int], int]]:
        """The examples of each micro-batch of a share in the first epoch, and how many of them are of that epoch: the last ones may be
        the next epoch's."""
        for step in range(steps_of(1, self.batch, self.examples)):
            numbers, left = self.of_step(step), self.examples - step * self.batch
            for begin, end in self.bounds(share):
                yield numbers[begin:end], min(max(left - begin, 0), end - begin)


# ---- packed examples ---------------------------------------------------------------------------------
#
# Several short sequences in one row, kept apart by the document mask.
#
# A sequence of n tokens takes n - 1 places: its last token is only ever a target. Sequences are placed longest first, each into the
# fullest row that still has room (best-fit decreasing), so nothing is cropped and little is padded.


@dataclass(frozen=True)
class Packed:
    """Rows of `context` places: int64 [rows, context] each.

    `targets` are what follows in the same sequence, or IGNORED; `segments` number a row's sequences from 0, its padding
    last; `members[row]` are the sequences in it, by their place in what was packed.
    """

    ids: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    segments: npt.NDArray[np.int64]
    members: list[list[int]]

    @property
    def n_rows(self) -> int:
        return len(self.members)

    @property
    def fill(self) -> float:
        """The share of places that belong to a sequence; the padding's id may be that of a token."""
        return float((self.segments < np.array([len(numbers) for numbers in self.members])[:, None]).mean())


def pack(sequences: Sequence[Encoded], context: int, together: bool = True) -> Packed:
    """Packs sequences of 2 to `context` + 1 tokens; each into a row of its own where they are not put `together`. Equal sequences in
    equal order give equal rows."""
    lengths = np.array([len(sequence.ids) - 1 for sequence in sequences], np.int64)
    members = fitted(lengths, context) if together else [[number] for number in range(len(sequences))]
    shape = (len(members), context)
    ids, targets, segments = np.full(shape, PAD_ID, np.int64), np.full(shape, IGNORED, np.int64), np.zeros(shape, np.int64)
    for row, numbers in enumerate(members):
        place = 0
        for segment, number in enumerate(numbers):
            inputs, following = shift(sequences[number])
            end = place + len(inputs)
            ids[row, place:end], targets[row, place:end], segments[row, place:end] = inputs, following, segment
            place = end
        segments[row, place:] = len(numbers)
    return Packed(ids, targets, segments, members)


def shift(sequence: Encoded) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Inputs and targets of one sequence, [tokens - 1] each; targets that are not learned are IGNORED."""
    return sequence.ids[:-1], np.where(sequence.mask[1:], sequence.ids[1:], IGNORED)


def fitted(lengths: npt.NDArray[np.int64], capacity: int) -> list[list[int]]:
    """Numbers of the items in each row, the longest first (ties: the earlier first); rows as they were opened."""
    row, rows = best_fit(lengths, capacity)
    members: list[list[int]] = [[] for _ in range(rows)]
    for number in np.argsort(-lengths, kind="stable").tolist():
        members[row[number]].append(number)
    return members


# ---- a dataset of torch ------------------------------------------------------------------------------
#
# A loader's batches as a plain iterator, for any number of processes and workers.
#
# The state is one integer: how many samples of the global order all processes together have taken. A micro-batch is the next `world *
# micro_batch` of them, cut evenly over the processes; none spans two steps. So the same samples come in the same order whatever `world`,
# `micro_batch` and the number of workers are. A run can go on with other values at the end of any step, and within a step where the rest
# of it can be cut evenly.


class TokenDataset(IterableDataset[Batch]):
    """The micro-batches of one process, `rank` of `world`, without end or up to `steps`.

    `micro_batch` counts the samples of this process at a time; 0 means its whole share of a step. In a `DataLoader(dataset,
    batch_size=None, num_workers=n)` each worker makes every n-th of them, and they arrive in order.
    """

    def __init__(
        self, loader: "WindowLoader | PackedLoader", micro_batch: int = 0, rank: int = 0, world: int = 1, steps: int | None = None
    ):
        if not 0 <= rank < world or loader.batch % world:
            raise ValueError(f"rank {rank} of {world} processes with batches of {loader.batch}: every process needs an equal share")
        self.loader, self.rank, self.world, self.steps = loader, rank, world, steps
        self.chunk = min((micro_batch or loader.batch) * world, loader.batch)
        self.taken = 0

    def state_dict(self) -> dict[str, int]:
        return {"samples": self.taken}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Raises ValueError where the state is so far in a step that the rest of it can't be cut evenly over the processes."""
        taken = int(state["samples"])
        if taken < 0 or taken % self.loader.batch % self.world:
            raise ValueError(f"{taken} samples: the rest of a step of {self.loader.batch} has no equal shares for {self.world} processes")
        self.taken = taken

    def __iter__(self) -> Iterator[Batch]:
        """Goes on from the state, and moves it. Workers leave it: `batches` moves it for what has arrived."""
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        first = self.taken
        while (count := self._next(first)) > 0:
            if number == 0:
                share = count // self.world
                batch = self.loader.samples(first + self.rank * share, share)
                self.taken = first + count
                yield batch
            number = (number - 1) % workers
            first += count

    def _next(self, first: int) -> int:
        """Samples of the micro-batch that begins at `first`; 0 at the end."""
        step, place = divmod(first, self.loader.batch)
        return 0 if self.steps is not None and step >= self.steps else min(self.chunk, self.loader.batch - place)

    def batches(self, workers: int = 0, **options: Any) -> Iterator[Batch]:
        """The micro-batches from the state on, made by `workers` processes of a `DataLoader` with these `options`.

        The state counts what was handed out, not what the workers have made ahead.
        """
        if not workers:
            yield from self
            return
        first = self.taken
        for batch in DataLoader(self, batch_size=None, num_workers=workers, **options):
            first += self._next(first)
            self.taken = first
            yield batch


# ---- tokens in memory --------------------------------------------------------------------------------


class TokenArray:
    """Ids in memory (uint16 or uint32), as a loader reads token shards."""

    def __init__(self, ids: npt.NDArray[Any]):
        self.ids = np.ascontiguousarray(ids)
        self.dtype = self.ids.dtype
        self.starts = np.array([0, len(ids)], np.int64)
        self.addresses = np.array([address_of(self.ids)], np.uint64)

    def __len__(self) -> int:
        return len(self.ids)

    def map(self, numbers: Iterable[int]) -> None:
        """Nothing to do: the array is in memory."""

    def window(self, start: int, length: int) -> npt.NDArray[Any]:
        return self.ids[start : start + length]


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
