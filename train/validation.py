"""What a model scores on the run's held-out tokens: bits per byte, in all and by language, source and host, with intervals.

Used inside the loop by any number of processes, and by the stage `evaluate`: the same model gets the same number.
"""

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from corpusmill.pipeline.schemas import hosts
from corpusmill.pipeline.special_tokens import EOT_ID
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import SHARDS_FILE, TokenShards
from corpusmill.train.bits import token_bytes
from corpusmill.train.intervals import bootstrap_ratio
from corpusmill.train.loader import ALL, evaluation_batches, to_device
from corpusmill.train.objective import Share
from corpusmill.train.parallel.computation import Computation

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
#: Windows of a forward pass: a constant, as other shapes of matrices give other last bits.
BATCH = 16
#: Groups of each kind that are told apart, those with most text; all others are one more. What names those without a name.
MOST, OTHERS, UNKNOWN = 16, "(others)", "(unknown)"


@dataclass(frozen=True)
class Score:
    """Bits per byte of some documents, with the ends of its interval; special tokens count neither as tokens nor as bytes."""

    bits_per_byte: float
    low: float
    high: float
    nats_per_token: float
    documents: int
    tokens: int
    utf8_bytes: int


@dataclass(frozen=True)
class Sums:
    """Nats, tokens and bytes of each document, float64 `[documents]`; all 0 for those that were not looked at."""

    nats: Floats
    tokens: Floats
    sizes: Floats

    def score(self, resamples: int = 1000, confidence: float = 0.95, seed: int = 0, only: npt.NDArray[np.bool_] | None = None) -> Score:
        """Of all documents or `only` some, with a percentile interval from documents drawn again with replacement."""
        chosen = self.sizes > 0 if only is None else (self.sizes > 0) & only
        bits, tokens, sizes = self.nats[chosen] / np.log(2), self.tokens[chosen], self.sizes[chosen]
        low, high = bootstrap_ratio(bits, sizes, resamples, confidence, seed)
        per_byte, per_token = bits.sum() / sizes.sum(), self.nats[chosen].sum() / tokens.sum()
        return Score(float(per_byte), low, high, float(per_token), len(sizes), int(tokens.sum()), int(sizes.sum()))


class Validation:
    """The held-out tokens of a run, as a model with this `context` is measured on them. `token_sizes` are bytes of text by id."""

    def __init__(self, shards: TokenShards, token_sizes: Integers, context: int, document_mask: bool):
        self.shards, self.context, self.document_mask = shards, context, document_mask
        self.table = np.zeros(max(shards.description.vocabulary_size, len(token_sizes)), np.int64)
        self.table[: len(token_sizes)] = token_sizes
        starts = [shards.starts[number] + shards.index(number)["first"].to_numpy() for number in range(len(shards.shards))]
        self.starts: Integers = np.concatenate(starts).astype(np.int64)  # the position of each document's first token

    @staticmethod
    def open(folder: str | Path, tokenizer: bytes, sha256: str | Collection[str], context: int, document_mask: bool) -> "Validation | None":
        """None where the run holds no text out. `sha256`: of the tokenizers, of which one has made the tokens. Raises InputError where the
        shards are damaged or another tokenizer's."""
        if not Storage(str(folder)).exists(SHARDS_FILE):
            return None
        shards = TokenShards(folder, tokenizer_sha256=sha256, end_of_text_id=EOT_ID)
        return Validation(shards, token_bytes(tokenizer), context, document_mask) if shards.utf8_bytes else None

    @torch.no_grad()
    def sums(
        self, computation: Computation, device: torch.device, share: Share = ALL, windows: int = 0, batch: int = BATCH
    ) -> Sums:  # fmt: skip
        """Over all tokens, or `windows` of their windows, of which this process computes its share; equal on all of them."""
        sums = np.zeros((3, len(self.starts)))
        for places, rows in evaluation_batches(self.shards, self.context, batch, self.document_mask, windows, share):
            ids, targets, segments = to_device(rows, device)
            nats = computation.nats(ids, targets, segments).double().cpu().numpy()
            counted = np.where(places >= 0, self.table[np.maximum(rows[1].numpy(), 0)], 0)
            text = counted > 0
            document = np.searchsorted(self.starts, places[text], "right") - 1
            # one after the other, so that cuts into batches change no sum
            for kind, values in enumerate((nats[text], np.ones(len(document)), counted[text])):
                np.add.at(sums[kind], document, values)
        return Sums(*computation.total(torch.from_numpy(sums).flatten()).view(3, -1).numpy())

    @cached_property
    def groups(self) -> dict[str, tuple[list[str], Integers]]:
        """For language, source and host, where documents have them: the groups' names, and the group of each document."""
        index = pa.concat_tables(
            [self.shards.index(n).select(["language", "source", "url", "utf8_bytes"]) for n in range(len(self.shards.shards))]
        )
        columns = {"language": index["language"], "source": index["source"], "host": hosts(index["url"])}
        found = {
            kind: _grouped(column, index["utf8_bytes"].to_numpy()) for kind, column in columns.items() if column.null_count < len(column)
        }
        return {kind: (names, group) for kind, (names, group) in found.items() if len(names) > 1 or kind == "language"}

    def by_group(self, sums: Sums) -> dict[str, dict[str, Score]]:
        """The score of each group of each kind of which anything was looked at."""
        return {kind: dict(_scores(sums, *grouped)) for kind, grouped in self.groups.items()}


def report(score: Score, groups: dict[str, dict[str, Score]]) -> dict[str, Any]:
    """Scores as JSON: those of all, and `by` kind and name of group."""
    return {**asdict(score), "by": {kind: {name: asdict(some) for name, some in of.items()} for kind, of in groups.items()}}


def _scores(sums: Sums, names: list[str], group: Integers) -> Iterator[tuple[str, Score]]:
    for number, name in enumerate(names):
        only = group == number
        if sums.sizes[only].any():
            yield name, sums.score(only=only)


def _grouped(column: pa.ChunkedArray, sizes: Integers) -> tuple[list[str], Integers]:
    """Names of groups, those with most text first, and the number of each row's group."""
    encoded = column.combine_chunks().fill_null(UNKNOWN).dictionary_encode()
    codes, names = encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()
    text = np.bincount(codes, sizes, len(names))
    order = sorted(range(len(names)), key=lambda code: (-text[code], names[code]))
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    shown = [names[code] for code in order[:MOST]]
    return [*shown, OTHERS] if len(names) > MOST else shown, np.minimum(rank, MOST)[codes]
