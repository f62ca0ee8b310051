"""The plan of a set of token shards: which documents are for validation, how often each is taken, where each shard begins and ends.

It is made of four numbers a document, read part by part: what is held does not grow with the corpus.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.shards import open_batches
from corpusmill.pipeline.storage import Storage
from corpusmill.tokenize.chance import BUCKETS, buckets
from corpusmill.tokenize.epochs import ONCE, Share, copies_of, most_copies, shares
from corpusmill.tokenize.layout import SPLITS, ShardRange, copy_orders, for_validation, shard_ranges, validation_limit
from corpusmill.tokenize.mixture import Mixture
from corpusmill.tokenize.parts import read_part

Index = npt.NDArray[np.int64]

COMPONENTS = pa.schema([pa.field("component", pa.int16(), nullable=False)])


@dataclass(frozen=True)
class Part:
    """An encoded part: its name, its shard of documents, and what changes when it does."""

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
        """There only with a mixture: the component of each document, by row of the shard of documents."""
        return f"components/{self.name}.arrow"

    @property
    def places(self) -> str:
        return f"places/{self.name}.arrow"


@dataclass(frozen=True)
class Plan:
    """The content of `plan.json`, but for what the tokenizer says."""

    parts: list[Part]
    shuffle: bool
    validation_limit: int
    mixture: list[Share]  # empty without a mixture
    shards: list[ShardRange]

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> "Plan":
        return cls(
            [Part(**part) for part in raw["parts"]], raw["shuffle"], raw["validation_limit"],
            [Share(**share) for share in raw["mixture"]], [ShardRange(**found) for found in raw["shards"]],
        )  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def shares(self) -> list[Share]:
        return self.mixture or [ONCE]


@dataclass(frozen=True)
class Numbers:
    """What the plan knows of the n documents of a part: `component` is -1 where a mixture leaves one out."""

    order: npt.NDArray[np.uint64]
    group: npt.NDArray[np.uint64]
    pick: npt.NDArray[np.uint16]
    tokens: Index
    component: npt.NDArray[np.int16]

    @property
    def taking_part(self) -> npt.NDArray[np.bool_]:
        return (self.tokens > 0) & (self.component >= 0)


def read_numbers(storage: Storage, part: Part, mixed: bool) -> Numbers:
    """Of one part; `mixed`: whether there is a mixture."""
    names = ["order", "group", "pick", "tokens", *(["data_row"] if mixed else [])]
    table = read_part(storage, part.table, names)
    order, group, pick, tokens = (table[name].to_numpy() for name in names[:4])
    component = np.zeros(len(order), np.int16)
    if mixed:
        with open_batches(storage, part.components) as reader:
            component = reader.get_batch(0)["component"].to_numpy()[table["data_row"].to_numpy()]
    return Numbers(order, group, pick, tokens, component)


def make_plan(storage: Storage, parts: Sequence[Part], shuffle: bool, share: float, mixture: Mixture | None, shard_tokens: int) -> Plan:
    """Raises InputError where no document has text, or a component of the mixture has no document for training."""

    def numbers() -> Iterator[Numbers]:
        return (read_numbers(storage, part, mixture is not None) for part in parts)

    limit = validation_limit((n.group[n.taking_part] for n in numbers()), share)
    found: list[Share] = []
    if mixture is not None:
        tokens = np.zeros((len(mixture.components), BUCKETS), np.int64)
        for n in numbers():
            chosen = n.taking_part & ~for_validation(n.group, limit)
            np.add.at(tokens, (n.component[chosen], n.pick[chosen]), n.tokens[chosen])
        found = shares(mixture, tokens)
    empty = Plan(list(parts), shuffle, limit, found, [])
    histograms = {split: np.zeros(BUCKETS, np.int64) for split in SPLITS}
    for n in numbers():
        for split, (rows, _, order) in placed(n, empty).items():
            np.add.at(histograms[split], buckets(order), n.tokens[rows])
    ranges = shard_ranges(histograms, shard_tokens)
    if mixture is not None and not histograms["train"].any():
        raise InputError("tokens.mixture: budget_tokens is so small that not one document is taken.")
    if not ranges:
        raise InputError(f"tokens: the documents in {storage.root.removesuffix('/tokens')} hold no text.")
    return Plan(list(parts), shuffle, limit, found, ranges)


def placed(numbers: Numbers, plan: Plan) -> dict[str, tuple[Index, Index, npt.NDArray[np.uint64]]]:
    """`(rows, copies, orders)` by split: each copy of each document that is taken, as the row of the part, its number, and its place.

    In validation every document is there once.
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
