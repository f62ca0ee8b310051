"""Building one token shard from its stretches of all encoded parts, through memory maps."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.schemas import REPORT
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.tokenshards import INDEX, map_tokens
from corpusmill.tokenize.layout import ShardRange, is_validation
from corpusmill.tokenize.parts import ORDER, rows_between

EMPTY = "empty"  # the rule that a document without text fails
TOKENS_REPORT = pa.schema(
    [
        *REPORT,
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("utf8_bytes", pa.int64(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("shard", pa.int64()),
        pa.field("first", pa.int64()),
    ]
)


def gather(storage: Storage, parts: list[str], wanted: ShardRange, limit: int, dtype: np.dtype[Any]) -> tuple[npt.NDArray[Any], pa.Table]:
    """The tokens of a shard and the rows (schema PART) of all documents in its range, in order; `first` counts in the shard."""
    tables = []
    for number, part in enumerate(parts):
        table = rows_between(storage, f"{part}.parquet", wanted.low, wanted.high)
        table = table.filter(pa.array(is_validation(table, limit) == (wanted.split == "validation")))
        tables.append(table.append_column("part", pa.array(np.full(table.num_rows, number))))
    rows = pa.concat_tables(tables).sort_by(ORDER)
    counts = rows["tokens"].to_numpy()
    tokens = np.empty(int(counts.sum()), dtype)
    mapped = {int(number): map_tokens(storage, f"{parts[number]}.bin", dtype) for number in pc.unique(rows["part"]).to_pylist()}
    place = 0
    for number, first, count in _triples(rows):
        tokens[place : place + count] = mapped[number][first : first + count]
        place += count
    firsts = pa.array(np.cumsum(counts) - counts)
    return tokens, rows.drop_columns(["part"]).set_column(rows.column_names.index("first"), "first", firsts)


def _triples(rows: pa.Table) -> Iterator[tuple[int, int, int]]:
    return zip(*(rows[name].to_pylist() for name in ("part", "first", "tokens")))


def index_of(rows: pa.Table) -> pa.Table:
    """The shard's index: the documents that have tokens."""
    rows = rows.append_column("copy", pa.array(np.zeros(rows.num_rows, np.int32))).append_column(
        "cluster_id", pa.nulls(rows.num_rows, pa.string())
    )
    return rows.filter(pc.greater(rows["tokens"], 0)).select(INDEX.names).cast(INDEX)


def report_of(rows: pa.Table, wanted: ShardRange) -> pa.Table:
    """One report row for every document: those without text failed, all others are in the shard."""
    kept = pc.greater(rows["tokens"], 0).combine_chunks()
    nothing = pa.scalar(None)
    columns = {
        "id": rows["id"],
        "url": rows["url"],
        "kept": kept,
        "failed": pa.array([[] if value else [EMPTY] for value in kept.to_pylist()], REPORT.field("failed").type),
        "chars_in": rows["chars"],
        "chars_out": rows["chars"],
        "tokens": rows["tokens"],
        "utf8_bytes": rows["utf8_bytes"],
        "split": pc.if_else(kept, wanted.split, nothing.cast(pa.string())),
        "shard": pc.if_else(kept, pa.scalar(wanted.number, pa.int64()), nothing.cast(pa.int64())),
        "first": pc.if_else(kept, rows["first"], nothing.cast(pa.int64())),
    }
    return pa.table(columns).cast(TOKENS_REPORT)
