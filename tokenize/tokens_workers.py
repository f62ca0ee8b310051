"""The workers of the tokens stage, in the order of its phases."""

import json
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.schemas import REPORT
from corpusmill.pipeline.shards import batches_buffer, iter_tables, open_batches, open_parquet
from corpusmill.pipeline.stage import Output, Task, Worker
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import DTYPES, INDEX, shard_contents
from corpusmill.tokenize.documents import checked
from corpusmill.tokenize.mixture import MatchConfig, components_of, needed_columns
from corpusmill.tokenize.parts import (
    NEEDED,
    OPTIONAL,
    SPACE,
    DocumentOrder,
    EncodeConfig,
    copy_spans,
    encode_part,
    end_of_text_id,
    part_buffer,
    read_part,
    take_rows,
)
from corpusmill.tokenize.planning import COMPONENTS, SPLITS, EncodedPart, Numbers, ShardRange, TokensPlan, placed, read_numbers

STAGE = "tokens"
TOKENIZER = "tokenizer/tokenizer.json"
PLAN = "plan.json"


class EncodeWorker(Worker):
    """Encodes one shard of documents. `params` of a task where documents are not shuffled: its `number` among all `tasks`; where they
    are split by place: its `training_characters`."""

    memory_mb = 600
    config: EncodeConfig

    def setup(self) -> None:
        from corpusmill.tokenize.encode import Encoder

        self.encoder = Encoder.read(self.run, TOKENIZER)
        self.end = end_of_text_id(self.encoder, self.config.end_of_text, self.run.path(TOKENIZER))

    def process(self, task: Task) -> Output:
        path = task.inputs[0].path
        with open_parquet(self.run, path) as file:
            columns = [*NEEDED, *(name for name in OPTIONAL if name in file.schema_arrow.names)]
        tables = iter_tables(self.run, path, columns)
        ordering = DocumentOrder(self.config.seed, self.config.shuffle, **task.params)
        tokens, table = encode_part(self.encoder, self.end, tables, self.run.path(path), ordering)
        empty = int(np.sum(table["tokens"].to_numpy() == 0))
        documents = len(table) - int(np.sum(table["text_begin"].to_numpy() > 0))
        return Output(
            files={f"{task.key}.bin": tokens.view(np.uint8).data, f"{task.key}.arrow": part_buffer(table)},
            rows_in=documents,
            kept=documents - empty,
            dropped=empty,
            bytes_in=int(np.sum(table["utf8_bytes"].to_numpy())),
            counts={"tokens": len(tokens), "vocabulary_size": self.encoder.vocabulary_size, "end_of_text_id": self.end},
        )


class LengthsWorker(Worker):
    """Counts the characters of one shard of documents, which a split by place needs."""

    def process(self, task: Task) -> Output:
        path, rows, found = task.inputs[0].path, 0, 0
        for table in iter_tables(self.run, path, ["id", "text"]):
            found += pc.sum(pc.utf8_length(checked(table, self.run.path(path), rows)["text"])).as_py() or 0
            rows += table.num_rows
        return Output({}, rows_in=rows, kept=rows, counts={"characters": found})


class MatchWorker(Worker):
    """Finds the component of each document of a shard."""

    config: MatchConfig

    def process(self, task: Task) -> Output:
        path = task.inputs[0].path
        with open_parquet(self.run, path) as file:
            columns = needed_columns(self.config, file.schema_arrow.names, self.run.path(path))
        found = [np.zeros(0, np.int16), *(components_of(table, self.config) for table in iter_tables(self.run, path, columns))]
        component = np.concatenate(found)
        table = pa.table([pa.array(component)], schema=COMPONENTS)
        return Output({f"{task.key}.arrow": batches_buffer(COMPONENTS, [table])}, counts={"matched": int(np.sum(component >= 0))})


class _Planned(Worker):
    """Reads the plan once per process."""

    @cached_property
    def storage(self) -> Storage:
        return self.run.child(STAGE)

    @cached_property
    def raw_plan(self) -> dict[str, Any]:
        raw: dict[str, Any] = json.loads(self.storage.read_bytes(PLAN))
        return raw

    @cached_property
    def plan(self) -> TokensPlan:
        return TokensPlan.from_json(self.raw_plan)


class PlaceWorker(_Planned):
    """Applies the plan to one `part`: the places of its documents in the global order, and their report rows."""

    def process(self, task: Task) -> Output:
        part = self.plan.parts[task.params["part"]]
        numbers = read_numbers(self.storage, part, bool(self.plan.mixture))
        table = read_part(self.storage, part.table, [*REPORTED, "data_row", "text_begin"])
        report = report_of(table, numbers, self.plan)
        cut = int(np.sum(table["text_begin"].to_numpy() > 0))  # a document that was cut is one, and both of its parts are taken or none
        counts = {"documents": report.num_rows - cut, "kept": int(np.sum(report["copies"].to_numpy() > 0)) - cut}
        return Output({part.places: places_buffer(numbers, self.plan), f"report/{part.name}.parquet": report}, counts=counts)


class TokenShardWorker(_Planned):
    """Builds one token `shard` of the plan, and its index."""

    def process(self, task: Task) -> Output:
        wanted = self.plan.shards[task.params["shard"]]
        tokens, index = gather(self.storage, self.plan.parts, wanted, DTYPES[self.raw_plan["dtype"]])
        contents = shard_contents(wanted.number, tokens, index)
        return Output(
            files={f"{wanted.split}/{name}": content for name, content in contents.items()},
            bytes_in=tokens.nbytes,
            counts={"tokens": len(tokens), "documents": index.num_rows, "utf8_bytes": int(np.sum(index["utf8_bytes"].to_numpy()))},
        )


# ---- what the plan says of a part ------------------------------------------------------------------------


Index = npt.NDArray[np.int64]

#: A copy of a document, by place in the global order: the row of the part's table, and the copy's number. A batch for each split.
PLACES = pa.schema(
    [pa.field(name, kind, nullable=False) for name, kind in (("order", pa.uint64()), ("row", pa.int32()), ("copy", pa.int32()))]
)
#: Rules that documents fail: no text, no component of the mixture, a component that had its tokens without them.
EMPTY, MIXTURE, BUDGET = RULES = ("empty", "mixture", "budget")
TOKENS_REPORT = pa.schema(
    [
        *REPORT,
        pa.field("tokens", pa.int64(), nullable=False),  # of one copy, END_OF_TEXT included
        pa.field("utf8_bytes", pa.int64(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("component", pa.string()),
        pa.field("copies", pa.int64(), nullable=False),
        pa.field("shards", pa.list_(pa.int64()), nullable=False),  # of each copy
    ]
)
#: The columns of a part that the report has.
REPORTED = ["id", "url", "chars", "utf8_bytes"]


def places_buffer(numbers: Numbers, plan: TokensPlan) -> pa.Buffer:
    tables = []
    for rows, copy, order in placed(numbers, plan).values():
        at = np.argsort(order, kind="stable")
        columns = [order[at], rows[at].astype(np.int32), copy[at].astype(np.int32)]
        tables.append(pa.table([pa.array(column) for column in columns], schema=PLACES))
    return batches_buffer(PLACES, tables)


def report_of(table: pa.Table, numbers: Numbers, plan: TokensPlan) -> pa.Table:
    """The report rows of a part, in the order of its shard of documents. `table` has the columns REPORTED and `data_row`."""
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
    """The rules that each of n documents fails; `failed` is n x 3."""
    offsets = np.concatenate([[0], np.cumsum(failed.sum(axis=1))]).astype(np.int32)
    names = pa.array(RULES, pa.string()).take(pa.array(np.nonzero(failed)[1]))
    return pa.ListArray.from_arrays(pa.array(offsets), names)


def _names(names: tuple[str, ...] | list[str], numbers: npt.NDArray[np.integer]) -> pa.Array:
    if not names:
        return pa.nulls(len(numbers), pa.string())
    return pa.array(names, pa.string()).take(pa.array(numbers, mask=numbers < 0))


def _shards(owners: Index, shards: Index, copies: Index) -> pa.Array:
    """A list for each document: the shards of its copies, in their order."""
    at = np.argsort(owners, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(copies)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(shards[at].astype(np.int64)))


# ---- a token shard from its stretches of all parts -------------------------------------------------------


TAKEN = ["id", "url", "source", "offset", "length", "cluster_id", "language", "data_row", "text_begin", "utf8_bytes", "tokens", "first"]
#: What decides where equal places in the global order are, which documents with one id have.
TIES = [(name, "ascending") for name in ("order", "id", "source", "offset", "data_file", "data_row", "copy")]


def gather(storage: Storage, parts: list[EncodedPart], wanted: ShardRange, dtype: np.dtype[Any]) -> tuple[npt.NDArray[Any], pa.Table]:
    """The tokens of a shard and its index (schema INDEX). `parts` are those of the plan, whose places are there."""
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


def _places(storage: Storage, part: EncodedPart, wanted: ShardRange) -> tuple[npt.NDArray[np.uint64], Index, npt.NDArray[np.int32]]:
    """What a shard takes from a part: places in the global order, rows of the part's table, numbers of copies."""
    with open_batches(storage, part.places) as reader:
        batch = reader.get_batch(SPLITS.index(wanted.split))
        order, row, copy = (batch[name].to_numpy() for name in ("order", "row", "copy"))
        begin = np.searchsorted(order, np.uint64(wanted.low))
        end = len(order) if wanted.high >= SPACE else np.searchsorted(order, np.uint64(wanted.high))
        return order[begin:end].copy(), row[begin:end].astype(np.int64), copy[begin:end].copy()


def _global_order(order: npt.NDArray[np.uint64], table: pa.Table) -> Index:
    """The rows in the global order; documents with equal ids are ordered by their place in the crawl."""
    at = np.argsort(order, kind="stable")
    equal = order[at][1:] == order[at][:-1]
    if equal.any():
        tied = np.flatnonzero(np.concatenate([equal, [False]]) | np.concatenate([[False], equal]))
        rows = table.select([name for name, _ in TIES[1:]]).take(pa.array(at[tied])).append_column("order", pa.array(order[at[tied]]))
        at[tied] = at[tied][pc.sort_indices(rows, sort_keys=TIES).to_numpy()]
    return at


def _copy_tokens(storage: Storage, path: str, table: pa.Table, places: Index, tokens: npt.NDArray[Any]) -> None:
    """Copies the tokens of some documents of a part to their places in a shard."""
    firsts, counts = table["first"].to_numpy(), table["tokens"].to_numpy()
    low, high = int(firsts.min()), int((firsts + counts).max())
    copy_spans(_read_tokens(storage, path, tokens.dtype, low, high), firsts - low, counts, places, tokens)


def _read_tokens(storage: Storage, path: str, dtype: np.dtype[Any], low: int, high: int) -> npt.NDArray[Any]:
    """The tokens from `low` to `high` of a part, mapped into memory where it is local."""
    if storage.remote:
        return np.frombuffer(storage.read_range(path, low * dtype.itemsize, high * dtype.itemsize), dtype)
    return np.memmap(storage.path(path), dtype, "r", low * dtype.itemsize, (high - low,)).view(np.ndarray)
