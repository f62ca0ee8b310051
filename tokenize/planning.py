"""The plan of a set of token shards: which documents are for validation, how often each is taken, where each shard begins and ends.

Planning reads a few numbers per document, part by part, so memory does not grow with the corpus.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.schemas import REPORT, meanings_metadata
from corpusmill.pipeline.shards import batches_buffer, open_batches
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import INDEX, SPLITS
from corpusmill.tokenize.documents import BUCKETS, buckets, remixed
from corpusmill.tokenize.mixture import ONCE, ComponentShare, Mixture, Rehydration, copies_of, match_config, most_copies, shares
from corpusmill.tokenize.parts import SPACE, copy_spans, read_part, read_tokens, take_rows

TRAIN, VALIDATION = range(2)

Integers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class ShardRange:
    """One token shard: its number within its split. Its documents are those whose position in the global order is in [low, high)."""

    split: str
    number: int
    low: int
    high: int


def validation_limit(groups: Iterable[Hashes], share: float) -> int:
    """Returns the largest group hash that is for validation; -1 where no document is.

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


def copy_orders(order: Hashes, copy: Integers, shuffle: bool, most: int) -> Hashes:
    """Returns the place of each copy in the global order. `order`: the document's own place; `copy`: the copy's number, from 0 on.

    With `shuffle`, the copies of a document lie at independent places. Without it, copy 0 of all documents comes first, then copy 1, and so
    on. `most`: the largest number of copies of a document.
    """
    if most == 1:
        return order
    if shuffle:
        return np.where(copy > 0, remixed(order, copy), order)
    return order // np.uint64(most) + copy.astype(np.uint64) * np.uint64(SPACE // most)


def shard_ranges(histograms: dict[str, Integers], shard_tokens: int) -> list[ShardRange]:
    """Cuts each split into shards of at most about `shard_tokens` tokens, as equal as whole buckets allow; none is empty.

    `histograms`: for each split, the tokens in each bucket (BUCKETS of them) of the global order.
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
        """The path of the part's tokens. Paths are relative to the stage's folder."""
        return f"encoded/{self.name}.tokens.arrow"

    @property
    def table(self) -> str:
        return f"encoded/{self.name}.arrow"

    @property
    def components(self) -> str:
        """The path of each document's component, by row of the shard of documents; exists only with a mixture."""
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
    """Numbers of a part's n documents that planning reads; `component` is -1 where the mixture leaves a document out."""

    order: npt.NDArray[np.uint64]
    group: npt.NDArray[np.uint64]
    pick: npt.NDArray[np.uint16]
    tokens: Integers
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
    storage: Storage, parts: Sequence[EncodedPart], shuffle: bool, share: float, mixture: Mixture | Rehydration | None, shard_tokens: int
) -> TokensPlan:
    """Makes the plan. Raises InputError if no document has text, or a component of the mixture has no document for training."""

    def numbers() -> Iterator[Numbers]:
        return (read_numbers(storage, part, mixture is not None) for part in parts)

    limit = validation_limit((n.group[n.taking_part] for n in numbers()), share)
    found: list[ComponentShare] = []
    if mixture is not None:
        tokens = np.zeros((len(match_config(mixture).conditions), BUCKETS), np.int64)
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


def placed(numbers: Numbers, plan: TokensPlan) -> dict[str, tuple[Integers, Integers, npt.NDArray[np.uint64]]]:
    """Returns, by split, `(rows, copies, orders)`: for each copy of a document its row in the part, its number, and its global order.

    Validation takes every document once.
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


# ---- what the plan means for a part ----------------------------------------------------------------------


#: Copies of a part's documents, sorted by place in the global order: row of the part's table, number of the copy. One batch per split.
PLACES = pa.schema(
    [pa.field(name, kind, nullable=False) for name, kind in (("order", pa.uint64()), ("row", pa.int32()), ("copy", pa.int32()))]
)
#: The rules that a document may fail, and the reason for which each leaves it out.
MEANINGS = {
    "empty": "it has no text",
    "mixture": "none of mixture.components takes it",
    "budget": "its component has mixture.budget_tokens without it",
}
TOKENS_REPORT = pa.schema(
    [
        *REPORT,
        pa.field("tokens", pa.int64(), nullable=False),  # of one copy, with END_OF_TEXT
        pa.field("utf8_bytes", pa.int64(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("component", pa.string()),
        pa.field("copies", pa.int64(), nullable=False),
        pa.field("shards", pa.list_(pa.int64()), nullable=False),  # one for each copy
    ],
    meanings_metadata(MEANINGS),
)
#: Columns of a part that go into the report.
REPORTED = ["id", "url", "chars", "utf8_bytes"]


def places_buffer(numbers: Numbers, plan: TokensPlan) -> pa.Buffer:
    tables = []
    for rows, copy, order in placed(numbers, plan).values():
        at = np.argsort(order, kind="stable")
        columns = [order[at], rows[at].astype(np.int32), copy[at].astype(np.int32)]
        tables.append(pa.table([pa.array(column) for column in columns], schema=PLACES))
    return batches_buffer(PLACES, tables)


def report_of(table: pa.Table, numbers: Numbers, plan: TokensPlan) -> pa.Table:
    """Returns the report rows of a part, in the order of its shard of documents. `table` has the columns REPORTED and `data_row`."""
    count = table.num_rows
    split, copies = np.full(count, -1), np.zeros(count, np.int64)
    shards = np.zeros(0, np.int64)
    owners = np.zeros(0, np.int64)
    for number, (name, (rows, _, order)) in enumerate(placed(numbers, plan).items()):
        split[rows] = number
        copies += np.bincount(rows, minlength=count)
        lows = np.array([found.low for found in plan.shards if found.split == name], np.uint64)
        owners, shards = np.concatenate([owners, rows]), np.concatenate([shards, np.searchsorted(lows, order, "right") - 1])
    failed = np.stack([numbers.tokens == 0, numbers.component < 0, numbers.taking_part & (copies == 0)], axis=1)
    kept = pa.array(copies > 0)
    chars = table["chars"]
    columns = {
        "id": table["id"], "url": table["url"], "kept": kept, "failed": _lists(failed), "chars_in": chars,
        "chars_out": pc.if_else(kept, chars, 0), "tokens": pa.array(numbers.tokens), "utf8_bytes": table["utf8_bytes"],
        "split": _names(SPLITS, split), "component": _names([share.name for share in plan.mixture], numbers.component),
        "copies": pa.array(copies), "shards": _shards(owners, shards, copies),
    }  # fmt: skip
    rows = np.argsort(table["data_row"].to_numpy())
    return pa.table(columns).cast(TOKENS_REPORT).take(pa.array(rows))


def _lists(failed: npt.NDArray[np.bool_]) -> pa.Array:
    """Returns a list for each of n documents: the rules that it fails. `failed` is n x 3."""
    offsets = np.concatenate([[0], np.cumsum(failed.sum(axis=1))]).astype(np.int32)
    names = pa.array(list(MEANINGS), pa.string()).take(pa.array(np.nonzero(failed)[1]))
    return pa.ListArray.from_arrays(pa.array(offsets), names)


def _names(names: tuple[str, ...] | list[str], numbers: npt.NDArray[np.integer]) -> pa.Array:
    if not names:
        return pa.nulls(len(numbers), pa.string())
    return pa.array(names, pa.string()).take(pa.array(numbers, mask=numbers < 0))


def _shards(owners: Integers, shards: Integers, copies: Integers) -> pa.Array:
    """Returns a list for each document: the shard of each of its copies, in the order of the copies."""
    at = np.argsort(owners, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(copies)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(shards[at].astype(np.int64)))


# ---- a token shard gathered from all parts ---------------------------------------------------------------


TAKEN = ["id", "url", "source", "offset", "length", "cluster_id", "language", "data_row", "text_begin", "utf8_bytes", "tokens", "first"]
#: The sort order of documents at equal places in the global order; only documents with equal ids have those.
TIES = [(name, "ascending") for name in ("order", "id", "source", "offset", "data_file", "data_row", "copy")]


def gather(storage: Storage, parts: list[EncodedPart], wanted: ShardRange, dtype: np.dtype[Any]) -> tuple[npt.NDArray[Any], pa.Table]:
    """Returns the tokens of a shard and its index (schema INDEX). `parts` are all parts of the plan; their places are written."""
    tables, orders, numbers = [], [], []
    for number, part in enumerate(parts):
        order, rows, copy = _places(storage, part, wanted)
        if len(rows):
            table = take_rows(storage, part.table, rows, TAKEN)
            tables.append(table.append_column("copy", pa.array(copy)))
            orders.append(order)
            numbers.append(number)
    counts = [table.num_rows for table in tables]
    found = pa.concat_tables(tables)
    files = pa.array([parts[number].data_file for number in numbers]).take(pa.array(np.repeat(np.arange(len(counts)), counts)))
    found = found.append_column("data_file", files)
    at = _global_order(np.concatenate(orders), found)
    sizes = found["tokens"].to_numpy()
    firsts = np.empty(len(at), np.int64)
    firsts[at] = np.cumsum(sizes[at]) - sizes[at]
    tokens = np.empty(int(sizes.sum()), dtype)
    begin = 0
    for number, table in zip(numbers, tables, strict=True):
        here = slice(begin, begin + table.num_rows)
        _copy_tokens(storage, parts[number].tokens, table, firsts[here], tokens)
        begin += table.num_rows
    found = found.set_column(found.column_names.index("first"), "first", pa.array(firsts))
    return tokens, found.select(INDEX.names).take(pa.array(at)).cast(INDEX)


def _places(storage: Storage, part: EncodedPart, wanted: ShardRange) -> tuple[npt.NDArray[np.uint64], Integers, npt.NDArray[np.int32]]:
    """Returns what one encoded part gives to a shard: places in the global order, rows of the part's table, copies' numbers."""
    with open_batches(storage, part.places) as reader:
        batch = reader.get_batch(SPLITS.index(wanted.split))
        order, row, copy = (batch[name].to_numpy() for name in ("order", "row", "copy"))
        begin = np.searchsorted(order, np.uint64(wanted.low))
        end = len(order) if wanted.high >= SPACE else np.searchsorted(order, np.uint64(wanted.high))
        return order[begin:end].copy(), row[begin:end].astype(np.int64), copy[begin:end].copy()


def _global_order(order: npt.NDArray[np.uint64], table: pa.Table) -> Integers:
    """Returns the rows in the global order; documents with equal ids are ordered by their place in the crawl."""
    at = np.argsort(order, kind="stable")
    equal = order[at][1:] == order[at][:-1]
    if equal.any():
        tied = np.flatnonzero(np.concatenate([equal, [False]]) | np.concatenate([[False], equal]))
        rows = table.select([name for name, _ in TIES[1:]]).take(pa.array(at[tied])).append_column("order", pa.array(order[at[tied]]))
        at[tied] = at[tied][pc.sort_indices(rows, sort_keys=TIES).to_numpy()]
    return at


def _copy_tokens(storage: Storage, path: str, table: pa.Table, places: Integers, tokens: npt.NDArray[Any]) -> None:
    """Copies the tokens of some documents of a part to their places in a shard."""
    firsts, counts = table["first"].to_numpy(), table["tokens"].to_numpy()
    low, high = int(firsts.min()), int((firsts + counts).max())
    copy_spans(read_tokens(storage, path, tokens.dtype, low, high), firsts - low, counts, places, tokens)
