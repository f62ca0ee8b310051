"""What the plan says of one encoded part: in which order and how often each split takes its documents, and the report on all of them."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.schemas import REPORT
from corpusmill.pipeline.shards import batches_buffer
from corpusmill.tokenize.layout import SPLITS
from corpusmill.tokenize.planning import Numbers, Plan, placed

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


def places_buffer(numbers: Numbers, plan: Plan) -> pa.Buffer:
    tables = []
    for rows, copy, order in placed(numbers, plan).values():
        at = np.argsort(order, kind="stable")
        columns = [order[at], rows[at].astype(np.int32), copy[at].astype(np.int32)]
        tables.append(pa.table([pa.array(column) for column in columns], schema=PLACES))
    return batches_buffer(PLACES, tables)


def report_of(table: pa.Table, numbers: Numbers, plan: Plan) -> pa.Table:
    """One row for every document of a part, in the order of its shard of documents. `table` has the columns REPORTED and `data_row`."""
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
