"""A model's score on the run's held-out tokens: bits per byte, in all and by language, source and host, with intervals.

The loop computes it on any number of processes, the stage `evaluate` on one. The same model gets the same number, as both compute in the
training's precision: what a training reports is what its kind of model does, and shards gathered in bf16 can't be measured in fp32.
"""

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.schemas import hosts
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_bytes import TokenBytes
from corpusmill.pipeline.token_shards import SHARDS_FILE, TokenShards
from corpusmill.train.data import ALL, DataShare, evaluation_batches, needed, to_device
from corpusmill.train.parallel.model import ParallelModel

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

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
            before, after = json.loads(earlier), json.loads(content)
            tokens, more = before.pop("added_tokens", []), after.pop("added_tokens", [])
            if before == after and more[: len(tokens)] == tokens:
                found.add(sha256)
    return found


# ---- confidence intervals ----------------------------------------------------------------------------

#: The largest number of units that a bootstrap draws from.
MOST_UNITS = 10_000


def bootstrap_ratio(numerators: Floats, denominators: Floats, resamples: int, confidence: float, seed: int) -> tuple[float, float]:
    """Returns the percentile interval of sum(numerators) / sum(denominators) over documents drawn with replacement, by a seed.

    Documents are resampled, not tokens, since the tokens of one document are not independent evidence. More than MOST_UNITS documents are
    drawn in that many bundles: the interval is about the same, at a bounded cost.
    """
    used = denominators > 0
    over, under = numerators[used], denominators[used]
    if len(over) > MOST_UNITS:
        over, under = (np.bincount(np.arange(len(each)) % MOST_UNITS, each).astype(np.float64) for each in (over, under))
    generator = np.random.Generator(np.random.Philox(seed))
    draws = (generator.integers(0, len(over), len(over)) for _ in range(resamples))
    outside = (1 - confidence) / 2
    low, high = np.quantile([over[drawn].sum() / under[drawn].sum() for drawn in draws], [outside, 1 - outside])
    return float(low), float(high)


# ---- the score ---------------------------------------------------------------------------------------
#
# Bits per byte are the bits that a model needs to encode a text, whatever its tokenizer: nats / (ln 2 * UTF-8 bytes), both over the same
# targets. Special tokens are left out of both.

#: Tokens in a forward pass. A constant, as matrices of other shapes give other last bits.
TOKENS = 8192
#: The number of groups of each kind with a score of their own (those with most text); names of all other groups and of a missing value.
MOST_GROUPS, OTHERS, UNKNOWN = 16, "(others)", "(unknown)"


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
        low, high = bootstrap_ratio(bits, sizes, resamples, 0.95, seed)
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
    def open(folder: str | Path, tokenizer: bytes, sha256: str | Collection[str], context: int, document_mask: bool) -> "Validation | None":
        """Opens the validation tokens; None if the run has none. `sha256`: of the tokenizers that may have made them. Raises InputError
        where the shards are damaged or made by another tokenizer."""
        if not Storage(str(folder)).exists(SHARDS_FILE):
            return None
        shards = TokenShards(folder, tokenizer_sha256=sha256)
        return Validation(shards, TokenBytes(tokenizer).sizes, context, document_mask) if shards.utf8_bytes else None

    @torch.no_grad()
    def sums(
        self, parallel_model: ParallelModel, device: torch.device, share: DataShare = ALL, windows: int = 0, tokens: int = TOKENS,
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
            order = sorted(range(len(names)), key=lambda code: (-text[code], names[code]))
            rank = np.empty(len(names), np.int64)
            rank[order] = np.arange(len(names))
            shown = [names[code] for code in order[:MOST_GROUPS]] + [OTHERS] * (len(names) > MOST_GROUPS)
            if column.null_count < len(column) and (len(shown) > 1 or kind == "language"):
                found[kind] = shown, np.minimum(rank, MOST_GROUPS)[codes]
        return found

    def report(self, sums: TextSums) -> dict[str, Any]:
        """Returns the score of all documents, and under `by[kind][name]` those of groups with measured documents."""
        by = {
            kind: {name: sums.score(only=group == n) for n, name in enumerate(names) if sums.sizes[group == n].any()}
            for kind, (names, group) in self.groups.items()
        }
        return {**sums.score(), "by": by}
