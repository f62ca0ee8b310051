"""Batches for training, from token shards or from examples packed into rows, and a model's score on a run's held-out tokens.

Sample `n` of a run is window (or packed row) `permutation(seed, epoch)[n % windows]`. So order and content are the same for any number of
processes, workers and micro-batches, and each window is seen once an epoch. Step `s` takes samples `s * batch` to `(s + 1) * batch`, and
the number of samples so far is the only state.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.schemas import hosts
from corpusmill.pipeline.special_tokens import EOT_ID, PAD_ID
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_bytes import TokenBytes
from corpusmill.pipeline.token_shards import SHARDS_FILE, TokenShards
from corpusmill.train.template import Encoded

if TYPE_CHECKING:
    from corpusmill.train.parallel.model import ParallelModel

# ---- batches and shares ------------------------------------------------------------------------------

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
#: (ids, targets, segments): int64 `[B, T]` each. Targets of IGNORED are not counted. Without segments each row is one document.
Batch = tuple[Tensor, Tensor, Tensor | None]
#: A target that adds nothing to loss or count; the same number as in torch's cross_entropy.
IGNORED = -100


@dataclass(frozen=True)
class DataShare:
    """The part of every step's rows that this process computes: number `index` of `of` equal parts."""

    index: int = 0
    of: int = 1

    def micro_batches(self, rows: int, size: int) -> list[tuple[int, int]]:
        """Returns `(begin, end)` of each micro-batch of this part of a step of `rows` rows; each has `size` rows (0: all of the part).
        Raises ValueError unless `of` divides `rows`."""
        if rows % self.of:
            raise ValueError(f"{rows} rows can't be shared evenly by {self.of} processes")
        each = rows // self.of
        first, last = self.index * each, (self.index + 1) * each
        return [(begin, min(begin + (size or each), last)) for begin in range(first, last, size or each)]


#: The share of a single process: all rows.
ALL = DataShare()


def to_batch(rows: Integers, document_mask: bool, end_of_text: int = EOT_ID) -> Batch:
    """Makes a batch of rows `[B, T + 1]` of ids: inputs, the targets one place further, and (with a mask) segments, each `[B, T]`.

    A document begins at the `<|endoftext|>` (`end_of_text`) before its text, so predicting that token belongs to the document before.
    """
    segments = None
    if document_mask:
        segments = torch.from_numpy(np.cumsum(rows[:, :-1] == end_of_text, axis=1, dtype=np.int32))
    ids = torch.from_numpy(rows)
    return ids[:, :-1], ids[:, 1:], segments


def needed(segments: Tensor | None) -> Tensor | None:
    """Returns segments `[B, T]` of the CPU; None if no row has a second document, as attention then needs no mask.

    The model can't decide it: a step on a GPU would wait for the answer.
    """
    return segments if segments is not None and bool((segments[:, 1:] != segments[:, :-1]).any()) else None


def counted_places(targets: Tensor) -> Tensor:
    """Returns int64 `[n]`: the places of the targets that count in the flattened batch. On a GPU a step would wait for their number."""
    return (targets.flatten() != IGNORED).nonzero().squeeze(1)


def to_device(batch: tuple[Any, ...], device: torch.device) -> tuple[Any, ...]:
    """Copies a batch's tensors (None stays None) to the device. A copy to a GPU does not wait for the GPU's other work."""
    if device.type == "cpu":
        return batch
    with torch.cuda.device(device):  # each thread begins with the first GPU, on which `pin_memory` would take memory
        # a view with gaps would be copied through memory that is not pinned, for which the GPU's queue must run empty
        return tuple(None if part is None else part.contiguous().pin_memory().to(device, non_blocking=True) for part in batch)


# ---- rows of tokens ----------------------------------------------------------------------------------


class Loader:
    """Loads the rows of training batches, `rows` of `context` tokens in an epoch, in a new order each epoch."""

    def __init__(self, tokens: Any, context: int, batch: int, seed: int, document_mask: bool, rows: int):
        self.tokens, self.context, self.batch, self.seed, self.document_mask = tokens, context, batch, seed, document_mask
        self.rows = rows

    def numbers(self, step: int, begin: int = 0, end: int | None = None) -> Integers:
        """Returns which rows of the epoch are samples `begin` to `end` of a step's batch."""
        return places(step * self.batch + begin, (self.batch if end is None else end) - begin, self.rows, self.seed)

    def load(self, step: int, begin: int = 0, end: int | None = None) -> Batch:
        """Returns samples `begin` to `end` of a step's batch."""
        return self.rows_of(self.numbers(step, begin, end))

    def samples(self, first: int, count: int) -> Batch:
        """Returns samples `first` to `first + count` of the whole run."""
        return self.rows_of(places(first, count, self.rows, self.seed))

    def documents(self, step: int, begin: int = 0, end: int | None = None) -> list[str]:
        """Returns the ids of the documents in samples `begin` to `end` of a step's batch."""
        return sorted({name for number in self.numbers(step, begin, end).tolist() for name in self.documents_of(number)})

    def rows_of(self, numbers: Integers) -> Batch:
        """Returns the rows with these numbers: ids and targets int64, segments int32, each `[len(numbers), T]`."""
        raise NotImplementedError

    def documents_of(self, number: int) -> list[str]:
        raise NotImplementedError


class WindowLoader(Loader):
    """Loads windows of `context + 1` tokens that overlap by one token."""

    def __init__(self, tokens: TokenShards, context: int, batch: int, seed: int, document_mask: bool):
        super().__init__(tokens, context, batch, seed, document_mask, (len(tokens) - 1) // context)
        if self.rows < 1:
            raise InputError(f"the training tokens are too few: {len(tokens)}, and one window needs {context + 1}.")

    def starts(self, step: int, begin: int = 0, end: int | None = None) -> Integers:
        """Returns the first token of samples `begin` to `end` of a step's batch."""
        return self.numbers(step, begin, end) * self.context

    def rows_of(self, numbers: Integers) -> Batch:
        tokens, begins = self.tokens, numbers * self.context
        low, high = (np.searchsorted(tokens.starts, at, "right") - 1 for at in (begins, begins + self.context))
        tokens.map({number for a, b in zip(low.tolist(), high.tolist()) for number in range(a, b + 1)})
        rows = np.empty((len(numbers), self.context + 1), np.int64)
        for row, begin in zip(rows, begins.tolist(), strict=True):
            row[:] = tokens.window(begin, self.context + 1)
        return to_batch(rows, self.document_mask, tokens.end_of_text_id)

    def documents_of(self, number: int) -> list[str]:
        return [address.id for address in self.tokens.documents_of(number * self.context, self.context + 1)]


class PackedPiece(NamedTuple):
    """The targets of a row from place `place` on: `tokens` tokens of a shard, from its token `first` on. Inputs are the tokens before;
    before a shard's first token it is an `<|endoftext|>` that is in no file."""

    place: int
    shard: int
    first: int
    tokens: int


class PackedLoader(Loader):
    """Loads packed rows of `context` places: whole documents, and parts of long ones, as the shards' packing plans say
    (`pipeline/packing.py`). Raises InputError if the shards have no plan of that length.

    A part sees only itself, and its positions begin at 0. They need not continue those of the part before, as rotary embedding depends
    only on distances.
    """

    def __init__(self, tokens: TokenShards, context: int, batch: int, seed: int, document_mask: bool):
        rows = [tokens.packed_rows(number, context) for number in range(len(tokens.shards))]
        #: int64 `[shards + 1]`: the number of each shard's first packed row, and the total.
        self.row_starts: Integers = np.concatenate(([0], np.cumsum(rows, dtype=np.int64))).astype(np.int64)
        super().__init__(tokens, context, batch, seed, document_mask, int(self.row_starts[-1]))
        if self.rows < 1:
            raise InputError(f"{tokens.storage.root}: there are no training tokens.")

    def rows_of(self, numbers: Integers) -> Batch:
        """Free places have the id PAD_ID, the target IGNORED and a segment of their own."""
        shape = (len(numbers), self.context)
        ids, targets, segments = np.full(shape, PAD_ID, np.int64), np.full(shape, IGNORED, np.int64), np.empty(shape, np.int32)
        self.tokens.map(set((np.searchsorted(self.row_starts, numbers, "right") - 1).tolist()))
        for row, number in enumerate(numbers.tolist()):
            segment, end = -1, 0
            for segment, piece in enumerate(self._pieces(number)):
                tokens, place, end = self.tokens.tokens(piece.shard), piece.place, piece.place + piece.tokens
                targets[row, place:end] = tokens[piece.first : piece.first + piece.tokens]
                ids[row, place] = tokens[piece.first - 1] if piece.first else self.tokens.end_of_text_id
                ids[row, place + 1 : end] = targets[row, place : end - 1]
                segments[row, place:end] = segment
            segments[row, end:] = segment + 1
        return torch.from_numpy(ids), torch.from_numpy(targets), torch.from_numpy(segments) if self.document_mask else None

    def pieces(self, step: int, row: int) -> list[PackedPiece]:
        """Returns the pieces in row `row` of a step's batch, from left to right."""
        return self._pieces(int(self.numbers(step, row, row + 1)[0]))

    def _pieces(self, number: int) -> list[PackedPiece]:
        shard = int(np.searchsorted(self.row_starts, number, "right")) - 1
        found, place = [], 0
        for first, tokens in self.tokens.plan(shard, self.context).pieces_of(number - int(self.row_starts[shard])):
            found.append(PackedPiece(place, shard, first, tokens))
            place += tokens
        return found

    def documents_of(self, number: int) -> list[str]:
        return [self.tokens.locate(piece.shard, piece.first).id for piece in self._pieces(number)]


def evaluation_batches(
    tokens: TokenShards, context: int, batch: int, document_mask: bool, windows: int = 0, share: DataShare = ALL
) -> Iterator[tuple[Integers, Batch]]:
    """Yields batches that predict every token once, or those of `windows` windows, evenly spread. Each item: the positions of the targets
    in the token stream, and the batch, `[B, T]` each.

    An `<|endoftext|>` before the stream predicts its first token, so the targets' bytes are the bytes of the text. Shares get different
    rows, but the same number of batches of one shape (at most `batch` rows). Unused places have position -1 and target IGNORED.
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
            rows[row, 0] = tokens.end_of_text_id if not start else tokens.window(start - 1, 1)[0]
            rows[row, 1 : count + 1] = tokens.window(start, count)
            places[row, :count] = np.arange(start, start + count)
        ids, targets, segments = to_batch(rows, document_mask, tokens.end_of_text_id)
        yield places, (ids, torch.where(torch.from_numpy(places) < 0, IGNORED, targets), segments)


# ---- the tokenizer of a run --------------------------------------------------------------------------

NAME = "tokenizer.json"
#: Folders of a run whose tokenizer may have made its tokens.
BEFORE = ("tokenizer", "pretrain/model")


def read_tokenizer(folder: Storage) -> tuple[bytes, str]:
    """Returns a folder's `tokenizer.json` and its sha256 (hex), by which token shards name the tokenizer that made them."""
    try:
        content = folder.read_bytes(NAME)
    except OSError as error:
        raise InputError(f"{folder.path(NAME)}: can't be read ({error.strerror or error}); the stage tokenizer makes it.") from error
    return content, hashlib.sha256(content).hexdigest()


def makers(run: Storage, content: bytes) -> set[str]:
    """Returns the sha256 (hex) of all tokenizers whose ids mean the same in `content`: its own, and those of the run's earlier tokenizers
    to which `content` only adds special tokens, for example for a chat template."""
    found = {hashlib.sha256(content).hexdigest()}
    for folder in BEFORE:
        if run.exists(f"{folder}/{NAME}"):
            earlier, sha256 = read_tokenizer(run.child(folder))
            before, after = parse_json(earlier), parse_json(content)
            tokens, more = before.pop("added_tokens", []), after.pop("added_tokens", [])
            if before == after and more[: len(tokens)] == tokens:
                found.add(sha256)
    return found


# ---- the score of held-out tokens --------------------------------------------------------------------
#
# The loop computes it on any number of processes, the stage `evaluate` on one. The same model gets the same number, as both compute in the
# training's precision: what a training reports is what its kind of model does, and shards gathered in bf16 can't be measured in fp32.
#
# Bits per byte are the bits that a model needs to encode a text, whatever its tokenizer: nats / (ln 2 * UTF-8 bytes), both over the same
# targets. Special tokens are left out of both.

#: Tokens in a forward pass. A constant, as matrices of other shapes give other last bits.
TOKENS = 8192
#: The number of groups of each kind with a score of their own (those with most text); names of all other groups and of a missing value.
MOST_GROUPS, OTHERS, UNKNOWN = 16, "(others)", "(unknown)"


#: The largest number of units that a bootstrap draws from, and the share of draws outside of the interval at each end.
MOST_UNITS, OUTSIDE = 10_000, (1 - 0.95) / 2


def bootstrap_ratio(numerators: Floats, denominators: Floats, resamples: int, seed: int) -> tuple[float, float]:
    """Returns the 95% percentile interval of sum(numerators) / sum(denominators) over documents drawn with replacement, by a seed.

    Documents are resampled, not tokens, since the tokens of one document are not independent evidence. More than MOST_UNITS documents are
    drawn in that many bundles: the interval is about the same, at a bounded cost.
    """
    used = denominators > 0
    over, under = numerators[used], denominators[used]
    if len(over) > MOST_UNITS:
        over, under = (np.bincount(np.arange(len(each)) % MOST_UNITS, each).astype(np.float64) for each in (over, under))
    generator = np.random.Generator(np.random.Philox(seed))
    draws = (generator.integers(0, len(over), len(over)) for _ in range(resamples))
    low, high = np.quantile([over[drawn].sum() / under[drawn].sum() for drawn in draws], [OUTSIDE, 1 - OUTSIDE])
    return float(low), float(high)


@dataclass(frozen=True)
class TextSums:
    """Nats, tokens and bytes of each document, float64 `[documents]`; all 0 for documents that were not measured."""

    nats: Floats
    tokens: Floats
    sizes: Floats

    def score(self, resamples: int = 1000, seed: int = 0, only: npt.NDArray[np.bool_] | None = None) -> dict[str, Any]:
        """Returns the score of all documents, or `only` some, with a 95% interval (`low`, `high`)."""
        chosen = self.sizes > 0 if only is None else (self.sizes > 0) & only
        bits, tokens, sizes = self.nats[chosen] / np.log(2), self.tokens[chosen], self.sizes[chosen]
        low, high = bootstrap_ratio(bits, sizes, resamples, seed)
        return {
            "bits_per_byte": float(bits.sum() / sizes.sum()), "low": low, "high": high,
            "nats_per_token": float(self.nats[chosen].sum() / tokens.sum()),
            "documents": len(sizes), "tokens": int(tokens.sum()), "utf8_bytes": int(sizes.sum()),
        }  # fmt: skip


class Validation:
    """The held-out tokens of a run, prepared for a model with this `context`. `token_sizes`: UTF-8 bytes by id."""

    def __init__(self, shards: TokenShards, token_sizes: Integers, context: int, document_mask: bool):
        self.shards, self.context, self.document_mask = shards, context, document_mask
        self.table = np.zeros(max(shards.description.vocabulary_size, len(token_sizes)), np.int64)
        self.table[: len(token_sizes)] = token_sizes
        starts = [shards.starts[number] + shards.index(number)["first"].to_numpy() for number in range(len(shards.shards))]
        self.starts: Integers = np.concatenate(starts).astype(np.int64)  # the position of each document's first token

    @staticmethod
    def open(run: Storage, tokenizer: bytes, context: int, document_mask: bool) -> "Validation | None":
        """Opens a run's validation tokens; None if it has none. Raises InputError where they are damaged, or where their ids mean something
        else to the model's `tokenizer`."""
        if not run.exists(f"tokens/validation/{SHARDS_FILE}"):
            return None
        shards = TokenShards(run.path("tokens/validation"), makers(run, tokenizer))
        return Validation(shards, TokenBytes(tokenizer).sizes, context, document_mask) if shards.utf8_bytes else None

    @torch.no_grad()
    def sums(
        self, parallel_model: "ParallelModel", device: torch.device, share: DataShare = ALL, windows: int = 0, tokens: int = TOKENS,
        only: npt.NDArray[np.bool_] | None = None,
    ) -> TextSums:  # fmt: skip
        """Returns the sums over all tokens (or `only` some, bool `[tokens]`), or over `windows` windows, about `tokens` at a time. This
        process computes its share; the result is equal on all."""
        sums = np.zeros((3, len(self.starts)))
        batch = max(1, tokens // self.context)
        for places, rows in evaluation_batches(self.shards, self.context, batch, self.document_mask, windows, share):
            ids, targets, segments = to_device((*rows[:2], needed(rows[2])), device)
            nats = parallel_model.nats(ids, targets, segments).double().cpu().numpy()
            counted = np.where(places >= 0, self.table[np.maximum(rows[1].numpy(), 0)], 0)
            text = counted > 0 if only is None else (counted > 0) & only[places]
            document = np.searchsorted(self.starts, places[text], "right") - 1
            # values are added one by one, so that the borders of batches do not change sums
            for kind, values in enumerate((nats[text], np.ones(len(document)), counted[text])):
                np.add.at(sums[kind], document, values)
        return TextSums(*parallel_model.total(torch.from_numpy(sums).flatten()).view(3, -1).numpy())

    @cached_property
    def groups(self) -> dict[str, tuple[list[str], Integers]]:
        """For language, source and host, where documents have them: the names of groups, those with most text first, and the number of each
        document's group."""
        names = ["language", "source", "url", "utf8_bytes"]
        index = pa.concat_tables([self.shards.index(number).select(names) for number in range(len(self.shards.shards))])
        found = {}
        for kind, column in {"language": index["language"], "source": index["source"], "host": hosts(index["url"])}.items():
            encoded = column.combine_chunks().fill_null(UNKNOWN).dictionary_encode()
            codes, names = encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()
            text = np.bincount(codes, index["utf8_bytes"].to_numpy(), len(names))
            order = np.array(sorted(range(len(names)), key=lambda code: (-text[code], names[code])))
            shown = [names[code] for code in order[:MOST_GROUPS]] + [OTHERS] * (len(names) > MOST_GROUPS)
            if column.null_count < len(column) and (len(shown) > 1 or kind == "language"):
                found[kind] = shown, np.minimum(np.argsort(order), MOST_GROUPS)[codes]
        return found

    def report(self, sums: TextSums) -> dict[str, Any]:
        """Returns the score of all documents, and under `by[kind][name]` those of groups with measured documents."""
        by = {
            kind: {name: sums.score(only=group == n) for n, name in enumerate(names) if sums.sizes[group == n].any()}
            for kind, (names, group) in self.groups.items()
        }
        return {**sums.score(), "by": by}


# ---- the order of examples ---------------------------------------------------------------------------

#: Tokens of an evaluation batch. A constant, so that scores do not depend on the training batch.
EVALUATION_TOKENS = 4096


def steps_of(epochs: float, batch: int, examples: int) -> int:
    """Returns the smallest number of steps in which every example is seen `epochs` times."""
    return int(np.ceil(epochs * examples / batch))


def within_budget(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Yields the numbers of items of these sizes in order, in batches of at most EVALUATION_TOKENS tokens, or of one item."""
    batch: list[int] = []
    total = 0
    for number, size in enumerate(sizes):
        if batch and total + size > EVALUATION_TOKENS:
            yield batch
            batch, total = [], 0
        batch.append(number)
        total += size
    if batch:
        yield batch


@dataclass(frozen=True)
class Order:
    """The order of `examples` in steps of `batch`, computed in micro-batches of `micro_batch` (0: a process's whole share)."""

    examples: int
    batch: int
    micro_batch: int
    seed: int

    def micro_batches(self, step: int, share: DataShare) -> list[list[int]]:
        """Returns the examples of each micro-batch of a share."""
        numbers = places(step * self.batch, self.batch, self.examples, self.seed).tolist()
        return [numbers[begin:end] for begin, end in share.micro_batches(self.batch, self.micro_batch)]

    def first_epoch(self, share: DataShare) -> Iterator[tuple[list[int], int]]:
        """Yields, for each micro-batch of a share in the first epoch, its examples and how many of them belong to that epoch; the last
        ones may belong to the next."""
        for step in range(steps_of(1, self.batch, self.examples)):
            left = self.examples - step * self.batch
            bounds = share.micro_batches(self.batch, self.micro_batch)
            for numbers, (begin, end) in zip(self.micro_batches(step, share), bounds, strict=True):
                yield numbers, min(max(left - begin, 0), end - begin)


# ---- packed examples ---------------------------------------------------------------------------------
#
# Several short sequences share a row; the document mask keeps them apart. A sequence of n tokens takes n - 1 places: its last token is only
# ever a target. Sequences are placed longest first, each into the fullest row that still has room (best-fit decreasing).


@dataclass(frozen=True)
class Packed:
    """Packed rows of `context` places: int64 [rows, context] each.

    `targets` are the next tokens of the same sequence, or IGNORED. `segments` number the sequences of a row from 0; its padding has the
    last number. `members[row]` are the sequences in a row, by their numbers in the packed list.
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
        """The share of places that belong to a sequence. Counted by segments, as a token may have the padding's id."""
        return float((self.segments < np.array([len(numbers) for numbers in self.members])[:, None]).mean())


def pack(sequences: Sequence[Encoded], context: int, together: bool = True) -> Packed:
    """Packs sequences of 2 to `context` + 1 tokens; without `together` each gets a row of its own. Equal sequences in the same order give
    equal rows."""
    lengths = np.array([len(sequence.ids) - 1 for sequence in sequences], np.int64)
    members = fitted(lengths, context) if together else [[number] for number in range(len(sequences))]
    shape = (len(members), context)
    ids, targets, segments = np.full(shape, PAD_ID, np.int64), np.full(shape, IGNORED, np.int64), np.zeros(shape, np.int64)
    for row, numbers in enumerate(members):
        place = 0
        for segment, number in enumerate(numbers):
            tokens, learned = sequences[number].ids, sequences[number].mask
            end = place + len(tokens) - 1
            ids[row, place:end], segments[row, place:end] = tokens[:-1], segment
            targets[row, place:end] = np.where(learned[1:], tokens[1:], IGNORED)
            place = end
        segments[row, place:] = len(numbers)
    return Packed(ids, targets, segments, members)


def fitted(lengths: npt.NDArray[np.int64], capacity: int) -> list[list[int]]:
    """Returns the numbers of the items in each row, the longest first (of equal lengths the earlier first); rows in order of opening."""
    from corpusmill.pipeline.packing import best_fit  # its kernel takes half a second

    row, rows = best_fit(lengths, capacity)
    members: list[list[int]] = [[] for _ in range(rows)]
    for number in np.argsort(-lengths, kind="stable").tolist():
        members[row[number]].append(number)
    return members


# ---- a dataset of torch ------------------------------------------------------------------------------
#
# A loader's batches as a plain iterator, for any number of processes and workers. The state is one integer: how many samples of the global
# order all processes together have taken. A micro-batch is the next `world * micro_batch` samples, divided evenly among the processes; none
# spans two steps. So the order of samples does not depend on `world`, `micro_batch` or the number of workers.


class TokenDataset(IterableDataset[Batch]):
    """The micro-batches of one process, `rank` of `world`, without end or up to step `steps`.

    `micro_batch` is the number of samples of this process at a time (0: its whole share of a step). In a `DataLoader(dataset,
    batch_size=None, num_workers=n)` each worker makes every n-th micro-batch, and they arrive in order.
    """

    def __init__(self, loader: Loader, micro_batch: int = 0, rank: int = 0, world: int = 1, steps: int | None = None):
        if not 0 <= rank < world or loader.batch % world:
            raise ValueError(f"rank {rank} of {world} processes with batches of {loader.batch}: every process needs an equal share")
        self.loader, self.rank, self.world, self.steps = loader, rank, world, steps
        self.chunk = min((micro_batch or loader.batch) * world, loader.batch)
        self.taken = 0

    def state_dict(self) -> dict[str, int]:
        return {"samples": self.taken}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Takes over a saved state. Raises ValueError if the rest of its step can't be divided evenly among the processes."""
        taken = int(state["samples"])
        if taken < 0 or taken % self.loader.batch % self.world:
            raise ValueError(f"{taken} samples: the rest of a step of {self.loader.batch} has no equal shares for {self.world} processes")
        self.taken = taken

    def __iter__(self) -> Iterator[Batch]:
        """Yields micro-batches from the state on, and advances it. A worker advances only its own copy of the state, see `batches`."""
        worker = get_worker_info()
        for first, last in islice(self._bounds(), worker.id if worker else 0, None, worker.num_workers if worker else 1):
            share = (last - first) // self.world
            batch = self.loader.samples(first + self.rank * share, share)
            self.taken = last
            yield batch

    def _bounds(self) -> Iterator[tuple[int, int]]:
        """Yields the samples of each micro-batch of all processes: the first one, and the first one after them."""
        first, size = self.taken, self.loader.batch
        while self.steps is None or first < self.steps * size:
            last = first + min(self.chunk, size - first % size)
            yield first, last
            first = last

    def batches(self, workers: int = 0, **options: Any) -> Iterator[Batch]:
        """Yields the micro-batches from the state on, made by `workers` processes of a `DataLoader` with these `options`.

        The state counts samples that were handed out, not those that workers have prepared. Workers of shards on a store are not forked,
        because a fork of a process that has used a store can't use one.
        """
        if workers and isinstance(self.loader.tokens, TokenShards) and self.loader.tokens.storage.remote:
            options.setdefault("multiprocessing_context", "forkserver")
        made: Any = DataLoader(self, batch_size=None, num_workers=workers, **options) if workers else self
        for (_, last), batch in zip(self._bounds(), made):
            self.taken = last
            yield batch


# ---- the order of samples ----------------------------------------------------------------------------
#
# A pseudo-random permutation of 0 .. n-1, computed place by place and never listed: a balanced Feistel network over the next even power of
# two, repeated until the value is below n (cycle walking).

#: Samples whose places are computed at once, and epochs at most: numpy takes as long for one number as for a thousand.
BLOCK, EPOCHS = 4096, 64


def places(first: int, count: int, items: int, seed: int) -> Integers:
    """Returns which of `items` are samples `first` to `first + count` of a run: each item once an epoch, in a new order each epoch."""
    size = min(BLOCK, EPOCHS * items)
    found = [_block(number * size, size, items, seed) for number in range(first // size, -(-(first + count) // size))]
    return np.concatenate(found)[first % size :][:count] if found else np.empty(0, np.int64)


@lru_cache(maxsize=16)
def _block(first: int, count: int, items: int, seed: int) -> Integers:
    epochs, at = np.divmod(np.arange(first, first + count), items)
    return np.concatenate([permute(at[epochs == epoch], items, seed, epoch) for epoch in np.unique(epochs).tolist()])


ROUNDS = 6
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)  # SplitMix64's finaliser
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def permute(places: Integers, n: int, seed: int, epoch: int) -> Integers:
    """Returns the images of `places` (int64, all in 0 .. n-1) under the permutation of `n` for this seed and epoch."""
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    shift, mask, keys = np.uint64(half), np.uint64((1 << half) - 1), np.zeros(ROUNDS, np.uint64)
    for part in (np.uint64(seed % 2**64), np.uint64(epoch % 2**64), np.arange(ROUNDS, dtype=np.uint64)):
        keys = _mix((keys ^ part) + _GOLDEN)
    found, todo = places.astype(np.uint64), np.arange(len(places))
    while len(todo):
        left, right = found[todo] >> shift, found[todo] & mask
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        found[todo] = (left << shift) | right
        todo = todo[found[todo] >= n]
    return found.astype(np.int64)


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * _M1
    value = (value ^ (value >> np.uint64(27))) * _M2
    return value ^ (value >> np.uint64(31))
