"""What a model scores on the run's held-out tokens: bits per byte, in all and by language, source and host, with intervals.

The loop uses it on any number of processes, the stage `evaluate` on one: the same model gets the same number.
"""

import hashlib
import json
import math
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.schemas import hosts
from corpusmill.pipeline.special_tokens import EOT_ID
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import SHARDS_FILE, TokenShards
from corpusmill.train.data import ALL, DataShare, evaluation_batches, to_device
from corpusmill.train.parallel.model import ParallelModel

# ---- the tokenizer of a run --------------------------------------------------------------------------

NAME = "tokenizer.json"
#: Folders of a run whose tokenizer its tokens may have been made by.
BEFORE = ("tokenizer", "pretrain/model")


def read_tokenizer(folder: Storage) -> tuple[bytes, str]:
    """The file in this folder and its sha256 (hex), by which token shards name the tokenizer that made them."""
    try:
        content = folder.read_bytes(NAME)
    except FileNotFoundError as error:
        raise InputError(f"{folder.path(NAME)}: no such file; the stage tokenizer makes it.") from error
    except OSError as error:
        raise InputError(f"{folder.path(NAME)}: can't be read ({error.strerror or error}).") from error
    return content, hashlib.sha256(content).hexdigest()


def makers(run: Storage, content: bytes) -> set[str]:
    """The sha256 (hex) of each tokenizer whose token ids mean the same in `content`: of itself, and of those of the run that it has only
    added special tokens to, as a chat template does."""
    found = {hashlib.sha256(content).hexdigest()}
    for folder in BEFORE:
        if run.exists(f"{folder}/{NAME}"):
            earlier, sha256 = read_tokenizer(run.child(folder))
            if _only_adds(earlier, content):
                found.add(sha256)
    return found


def _only_adds(earlier: bytes, later: bytes) -> bool:
    before, after = json.loads(earlier), json.loads(later)
    tokens, more = before.pop("added_tokens", []), after.pop("added_tokens", [])
    return bool(before == after and more[: len(tokens)] == tokens)


# ---- bytes of tokens ---------------------------------------------------------------------------------
#
# Bits per byte are what a model needs to write down a text, whatever its tokenizer: nats / (ln 2 * UTF-8 bytes), both over the same
# targets. Special tokens count for neither.


def token_bytes(tokenizer_json: bytes) -> npt.NDArray[np.int64]:
    """UTF-8 bytes of each token by id, from a `tokenizer.json`; 0 for special tokens and unused ids.

    In a byte-level vocabulary every character of a token's name stands for one byte.
    """
    tokenizer = json.loads(tokenizer_json)
    vocab: dict[str, int] = tokenizer["model"]["vocab"]
    special = {token["id"] for token in tokenizer.get("added_tokens", []) if token.get("special")}
    byte_level = _mentions_byte_level(tokenizer.get("decoder")) or _mentions_byte_level(tokenizer.get("pre_tokenizer"))
    sizes = np.zeros(max([*vocab.values(), *special], default=-1) + 1, np.int64)
    for name, number in vocab.items():
        if number not in special:
            sizes[number] = len(name) if byte_level else len(name.encode())
    return sizes


def _mentions_byte_level(part: Any) -> bool:
    return part is not None and '"ByteLevel"' in json.dumps(part)


# ---- confidence intervals ----------------------------------------------------------------------------

#: Units that are drawn from.
MOST_UNITS = 10_000


def bootstrap_ratio(
    numerators: npt.NDArray[np.float64], denominators: npt.NDArray[np.float64], resamples: int, confidence: float, seed: int
) -> tuple[float, float]:
    """The percentile interval of sum(numerators) / sum(denominators) when documents are drawn again with replacement.

    Documents and not tokens are resampled, since the tokens of one document are no independent evidence. With one
    document the interval is that value alone. Seeded, so equal data give equal intervals. More than `MOST` documents are drawn in
    so many bundles, which are as independent of each other: the interval is that of the documents, at a bounded price.
    """
    used = denominators > 0
    numerators, denominators = (_bundled(values[used]) for values in (numerators, denominators))
    generator = np.random.Generator(np.random.Philox(seed))
    ratios = np.empty(resamples)
    for number in range(resamples):
        drawn = generator.integers(0, len(numerators), len(numerators))
        ratios[number] = numerators[drawn].sum() / denominators[drawn].sum()
    outside = (1 - confidence) / 2
    low, high = np.quantile(ratios, [outside, 1 - outside])
    return float(low), float(high)


def _bundled(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.bincount(np.arange(len(values)) % MOST_UNITS, values).astype(np.float64) if len(values) > MOST_UNITS else values


def wilson(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of a share; it stays inside 0 .. 1, also for shares at the borders."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, weight = successes / trials, z * z / trials
    middle = (share + weight / 2) / (1 + weight)
    spread = z / (1 + weight) * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    return max(0.0, middle - spread), min(1.0, middle + spread)


# ---- the score ---------------------------------------------------------------------------------------

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
#: Windows of a forward pass: a constant, as other shapes of matrices give other last bits.
BATCH = 16
#: Groups of each kind that get a score of their own, those with most text; the name of all others; the name of a missing value.
MOST_GROUPS, OTHERS, UNKNOWN = 16, "(others)", "(unknown)"


@dataclass(frozen=True)
class TextScore:
    """Bits per byte of some documents, with the ends of its interval; special tokens count neither as tokens nor as bytes."""

    bits_per_byte: float
    low: float
    high: float
    nats_per_token: float
    documents: int
    tokens: int
    utf8_bytes: int


@dataclass(frozen=True)
class TextSums:
    """Nats, tokens and bytes of each document, float64 `[documents]`; all 0 for those that were not looked at."""

    nats: Floats
    tokens: Floats
    sizes: Floats

    def score(self, resamples: int = 1000, confidence: float = 0.95, seed: int = 0, only: npt.NDArray[np.bool_] | None = None) -> TextScore:
        """Of all documents or `only` some, with a percentile interval from documents drawn again with replacement."""
        chosen = self.sizes > 0 if only is None else (self.sizes > 0) & only
        bits, tokens, sizes = self.nats[chosen] / np.log(2), self.tokens[chosen], self.sizes[chosen]
        low, high = bootstrap_ratio(bits, sizes, resamples, confidence, seed)
        per_byte, per_token = bits.sum() / sizes.sum(), self.nats[chosen].sum() / tokens.sum()
        return TextScore(float(per_byte), low, high, float(per_token), len(sizes), int(tokens.sum()), int(sizes.sum()))


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
        self, parallel_model: ParallelModel, device: torch.device, share: DataShare = ALL, windows: int = 0, batch: int = BATCH
    ) -> TextSums:  # fmt: skip
        """Over all tokens, or `windows` of their windows, of which this process computes its share; equal on all of them."""
        sums = np.zeros((3, len(self.starts)))
        for places, rows in evaluation_batches(self.shards, self.context, batch, self.document_mask, windows, share):
            ids, targets, segments = to_device(rows, device)
            nats = parallel_model.nats(ids, targets, segments).double().cpu().numpy()
            counted = np.where(places >= 0, self.table[np.maximum(rows[1].numpy(), 0)], 0)
            text = counted > 0
            document = np.searchsorted(self.starts, places[text], "right") - 1
            # one after the other, so that cuts into batches change no sum
            for kind, values in enumerate((nats[text], np.ones(len(document)), counted[text])):
                np.add.at(sums[kind], document, values)
        return TextSums(*parallel_model.total(torch.from_numpy(sums).flatten()).view(3, -1).numpy())

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

    def by_group(self, sums: TextSums) -> dict[str, dict[str, TextScore]]:
        """The score of each group of each kind of which anything was looked at."""
        return {kind: dict(_scores(sums, *grouped)) for kind, grouped in self.groups.items()}


def report(score: TextScore, groups: dict[str, dict[str, TextScore]]) -> dict[str, Any]:
    """Scores as JSON: those of all, and `by` kind and name of group."""
    return {**asdict(score), "by": {kind: {name: asdict(some) for name, some in of.items()} for kind, of in groups.items()}}


def _scores(sums: TextSums, names: list[str], group: Integers) -> Iterator[tuple[str, TextScore]]:
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
    shown = [names[code] for code in order[:MOST_GROUPS]]
    return [*shown, OTHERS] if len(names) > MOST_GROUPS else shown, np.minimum(rank, MOST_GROUPS)[codes]
