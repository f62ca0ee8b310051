"""The plan of a set of token shards: which documents are for validation, how often each is taken, where each shard begins and ends.

It needs four numbers per document, which are read part by part, so memory does not grow with the corpus.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import TypeAdapter

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.shards import open_batches
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import SPLITS
from corpusmill.tokenize.documents import BUCKETS, buckets, remixed
from corpusmill.tokenize.mixture import ONCE, ComponentShare, Mixture, copies_of, most_copies, shares
from corpusmill.tokenize.parts import SPACE, read_part

TRAIN, VALIDATION = range(2)

Index = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class ShardRange:
    """One token shard: its number within its split, and the orders it holds (low <= order < high)."""

    split: str
    number: int
    low: int
    high: int


def validation_limit(groups: Iterable[Hashes], share: float) -> int:
    """Documents whose group's hash is at most this are for validation; -1 where none is.

    `groups` are the hashes of all documents that take part, in any number of arrays. With a share above 0 and at least two groups,
    both splits get at least one: the smallest hash is always for validation and the largest always for training.
    """
    smallest, largest = SPACE, -1
    for values in groups:
        if len(values):
            smallest, largest = min(smallest, int(values.min())), max(largest, int(values.max()))
    if share <= 0 or smallest >= largest:
        return -1
    return min(max(int(share * SPACE) - 1, smallest), largest - 1)


def for_validation(groups: Hashes, limit: int) -> npt.NDArray[np.bool_]:
    """Whether each document is for validation."""
    return groups <= np.uint64(limit) if limit >= 0 else np.zeros(len(groups), np.bool_)


def copy_orders(order: Hashes, copy: Index, shuffle: bool, most: int) -> Hashes:
    """The place in the global order of copies (numbered from 0) of documents whose own place is `order`.

    Shuffled, each copy has a place of its own that has nothing to do with the others; else one pass over the documents comes after the
    other, `most` passes in all.
    """
    if most == 1:
        return order
    if shuffle:
        return np.where(copy > 0, remixed(order, copy), order)
    return order // np.uint64(most) + copy.astype(np.uint64) * np.uint64(SPACE // most)


def shard_ranges(histograms: dict[str, Index], shard_tokens: int) -> list[ShardRange]:
    """Cuts each split into shards of equal size, as nearly as whole buckets allow, of about `shard_tokens` at most; none is empty.

    `histograms`: by split, the tokens in each of the BUCKETS of the global order.
    """
    ranges = []
    for split in SPLITS:
        ends = np.cumsum(histograms[split])
        total = int(ends[-1])
        shards = -(-total // shard_tokens)
        cuts = [int(np.searchsorted(ends, total * i // shards, "left")) + 1 for i in range(1, shards)]
        limits = sorted({0, BUCKETS, *(cut for cut in cuts if ends[cut - 1] < total)})
        if total:
            ranges += [
                ShardRange(split, number, low * (SPACE // BUCKETS), high * (SPACE // BUCKETS))
                for number, (low, high) in enumerate(pairwise(limits))
            ]
    return ranges


COMPONENTS = pa.schema([pa.field("component", pa.int16(), nullable=False)])


@dataclass(frozen=True)
class EncodedPart:
    """An encoded part: its name, its shard of documents, and a fingerprint of its content."""

    name: str
    data_file: str
    fingerprint: str

    @property
    def tokens(self) -> str:
        """Paths are relative to the stage's folder."""
        return f"encoded/{self.name}.bin"

    @property
    def table(self) -> str:
        return f"encoded/{self.name}.arrow"

    @property
    def components(self) -> str:
        """Exists only with a mixture: the component of each document, by row of the shard of documents."""
        return f"components/{self.name}.arrow"

    @property
    def places(self) -> str:
        return f"places/{self.name}.arrow"


@dataclass(frozen=True)
class TokensPlan:
    """The content of `plan.json`, without the description of the tokenizer."""

    parts: list[EncodedPart]
    shuffle: bool
    validation_limit: int
    mixture: list[ComponentShare]  # empty without a mixture
    shards: list[ShardRange]

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> "TokensPlan":
        return TypeAdapter(cls).validate_python(raw)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def shares(self) -> list[ComponentShare]:
        return self.mixture or [ONCE]


@dataclass(frozen=True)
class Numbers:
    """What the plan needs of the n documents of a part; `component` is -1 if the mixture leaves a document out."""

    order: npt.NDArray[np.uint64]
    group: npt.NDArray[np.uint64]
    pick: npt.NDArray[np.uint16]
    tokens: Index
    component: npt.NDArray[np.int16]

    @property
    def taking_part(self) -> npt.NDArray[np.bool_]:
        return (self.tokens > 0) & (self.component >= 0)


def read_numbers(storage: Storage, part: EncodedPart, mixed: bool) -> Numbers:
    """Reads the numbers of one part. `mixed`: whether there is a mixture."""
    names = ["order", "group", "pick", "tokens", *(["data_row"] if mixed else [])]
    table = read_part(storage, part.table, names)
    order, group, pick, tokens = (table[name].to_numpy() for name in names[:4])
    component = np.zeros(len(order), np.int16)
    if mixed:
        with open_batches(storage, part.components) as reader:
            component = reader.get_batch(0)["component"].to_numpy()[table["data_row"].to_numpy()]
    return Numbers(order, group, pick, tokens, component)


def make_plan(
    storage: Storage, parts: Sequence[EncodedPart], shuffle: bool, share: float, mixture: Mixture | None, shard_tokens: int
) -> TokensPlan:
    """Makes the plan. Raises InputError if no document has text, or if a component of the mixture has no document for training."""

    def numbers() -> Iterator[Numbers]:
        return (read_numbers(storage, part, mixture is not None) for part in parts)

    limit = validation_limit((n.group[n.taking_part] for n in numbers()), share)
    found: list[ComponentShare] = []
    if mixture is not None:
        tokens = np.zeros((len(mixture.components), BUCKETS), np.int64)
        for n in numbers():
            chosen = n.taking_part & ~for_validation(n.group, limit)
            np.add.at(tokens, (n.component[chosen], n.pick[chosen]), n.tokens[chosen])
        found = shares(mixture, tokens)
    empty = TokensPlan(list(parts), shuffle, limit, found, [])
    histograms = {split: np.zeros(BUCKETS, np.int64) for split in SPLITS}
    for n in numbers():
        for split, (rows, _, order) in placed(n, empty).items():
            np.add.at(histograms[split], buckets(order), n.tokens[rows])
    ranges = shard_ranges(histograms, shard_tokens)
    if mixture is not None and not histograms["train"].any():
        raise InputError("tokens.mixture: budget_tokens is so small that not one document is taken.")
    if not ranges:
        raise InputError(f"tokens: the documents in {storage.root.removesuffix('/tokens')} hold no text.")
    return TokensPlan(list(parts), shuffle, limit, found, ranges)


def placed(numbers: Numbers, plan: TokensPlan) -> dict[str, tuple[Index, Index, npt.NDArray[np.uint64]]]:
    """`(rows, copies, orders)` by split: for each copy of a document its row in the part, its number, and its place in the global order.

    Validation has every document once.
    """
    validation = for_validation(numbers.group, plan.validation_limit)
    copies = copies_of(plan.shares, numbers.component, numbers.pick)
    train = np.where(numbers.taking_part & ~validation, copies, 0)
    found = {}
    for split, count in zip(SPLITS, (train, (numbers.taking_part & validation).astype(np.int64)), strict=True):
        rows = np.repeat(np.arange(len(count)), count)
        copy = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
        most = most_copies(plan.shares) if split == "train" else 1
        found[split] = rows, copy, copy_orders(numbers.order[rows], copy, plan.shuffle, most)
    return found
