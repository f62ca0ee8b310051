"""Building one token shard from its stretches of all encoded parts."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.shards import open_batches
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import INDEX
from corpusmill.tokenize.layout import SPLITS, ShardRange
from corpusmill.tokenize.parts import SPACE, take_rows
from corpusmill.tokenize.planning import Part
from corpusmill.tokenize.span_kernels import copy_spans

Index = npt.NDArray[np.int64]

TAKEN = ["id", "url", "source", "offset", "length", "cluster_id", "language", "data_row", "text_begin", "utf8_bytes", "tokens", "first"]
#: What decides where equal places in the global order are, which documents with one id have.
TIES = [(name, "ascending") for name in ("order", "id", "source", "offset", "data_file", "data_row", "copy")]


def gather(storage: Storage, parts: list[Part], wanted: ShardRange, dtype: np.dtype[Any]) -> tuple[npt.NDArray[Any], pa.Table]:
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
    at = _in_order(np.concatenate(orders), found)
    sizes = found["tokens"].to_numpy()
    firsts = np.empty(len(at), np.int64)
    firsts[at] = np.cumsum(sizes[at]) - sizes[at]
    tokens = np.empty(int(sizes.sum()), dtype)
    begin = 0
    for number, table in zip(numbers, tables, strict=True):
        here = slice(begin, begin + table.num_rows)
        _copy(storage, parts[number].tokens, table, firsts[here], tokens)
        begin += table.num_rows
    found = found.set_column(found.column_names.index("first"), "first", pa.array(firsts))
    return tokens, found.select(INDEX.names).take(pa.array(at)).cast(INDEX)


def _places(storage: Storage, part: Part, wanted: ShardRange) -> tuple[npt.NDArray[np.uint64], Index, npt.NDArray[np.int32]]:
    """What the shard takes of a part: places in the global order, rows of the part's table, numbers of copies."""
    with open_batches(storage, part.places) as reader:
        batch = reader.get_batch(SPLITS.index(wanted.split))
        order, row, copy = (batch[name].to_numpy() for name in ("order", "row", "copy"))
        begin = np.searchsorted(order, np.uint64(wanted.low))
        end = len(order) if wanted.high >= SPACE else np.searchsorted(order, np.uint64(wanted.high))
        return order[begin:end].copy(), row[begin:end].astype(np.int64), copy[begin:end].copy()


def _in_order(order: npt.NDArray[np.uint64], table: pa.Table) -> Index:
    """The rows in the global order. Documents with one id come one after the other, by their place in the crawl."""
    at = np.argsort(order, kind="stable")
    equal = order[at][1:] == order[at][:-1]
    if equal.any():
        tied = np.flatnonzero(np.concatenate([equal, [False]]) | np.concatenate([[False], equal]))
        rows = table.select([name for name, _ in TIES[1:]]).take(pa.array(at[tied])).append_column("order", pa.array(order[at[tied]]))
        at[tied] = at[tied][pc.sort_indices(rows, sort_keys=TIES).to_numpy()]
    return at


def _copy(storage: Storage, path: str, table: pa.Table, places: Index, tokens: npt.NDArray[Any]) -> None:
    """Copies the tokens of some documents of a part to their places in a shard."""
    firsts, counts = table["first"].to_numpy(), table["tokens"].to_numpy()
    low, high = int(firsts.min()), int((firsts + counts).max())
    copy_spans(_read_tokens(storage, path, tokens.dtype, low, high), firsts - low, counts, places, tokens)


def _read_tokens(storage: Storage, path: str, dtype: np.dtype[Any], low: int, high: int) -> npt.NDArray[Any]:
    """The tokens from `low` to `high` of a part, mapped into memory where it is local."""
    if storage.remote:
        return np.frombuffer(storage.read_range(path, low * dtype.itemsize, high * dtype.itemsize), dtype)
    return np.memmap(storage.path(path), dtype, "r", low * dtype.itemsize, (high - low,)).view(np.ndarray)
