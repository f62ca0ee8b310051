"""The packing plan of a token shard: which pieces of its documents share a row of a given length.

A row of T places predicts T tokens at most. A document longer than T is cut into pieces of T and what remains; pieces are packed by
best fit (`bestfit.py`). Every token of the shard is in exactly one piece, so it is a target exactly once.

```
tokens-00000.pack-2048.arrow   one row a piece (schema PLAN), by row and place in the shard: an Arrow file of one batch, not
                               compressed, so it is read through a memory map
```
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.mapping import map_file

#: `row` counts from 0 without gaps; `first` is the piece's first token in the shard and `tokens` their number: the targets of the piece.
PLAN = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("first", pa.int64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
    ]
)
Integers = npt.NDArray[np.int64]


def plan_name(shard_file: str, length: int) -> str:
    """The name of a shard's plan for rows of `length` places."""
    return f"{shard_file.removesuffix('.bin')}.pack-{length}.arrow"


def cut(documents: Integers, length: int) -> tuple[Integers, Integers]:
    """The first token and the size of each piece, in the order of the tokens; `documents` are the tokens of each document."""
    pieces = -(-documents // length)
    starts = np.cumsum(documents) - documents
    number = np.arange(int(pieces.sum())) - np.repeat(np.cumsum(pieces) - pieces, pieces)  # of a piece in its document
    return np.repeat(starts, pieces) + number * length, np.minimum(np.repeat(documents, pieces) - number * length, length)


def plan(documents: Integers, length: int) -> tuple[pa.Table, int]:
    """The plan (schema PLAN) for documents of so many tokens that follow one another in a shard, and its number of rows."""
    from corpusmill.pipeline.bestfit import best_fit  # brings numba, which readers of a plan do without

    first, sizes = cut(documents, length)
    row, rows = best_fit(sizes, length)
    order = np.argsort(row, kind="stable")
    return pa.table({"row": row[order], "first": first[order], "tokens": sizes[order]}, schema=PLAN), rows


def plan_bytes(table: pa.Table) -> bytes:
    """The Arrow file of a plan."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, PLAN) as writer:
        writer.write_table(table.combine_chunks(), max_chunksize=max(1, table.num_rows))
    return bytes(sink.getvalue())


class Plan:
    """A plan as it lies on disk: int64 `row`, `first`, `tokens`, each `[pieces]`.

    Raises InputError where it is not a plan that covers `shard_tokens` tokens once, in `rows` rows of at most `length`, and
    FileNotFoundError where it is not there.
    """

    def __init__(self, path: str, shard_tokens: int, length: int, rows: int):
        try:
            mapped = map_file(path, np.dtype(np.uint8))
            file = pa.ipc.open_file(pa.py_buffer(mapped))
            batch = file.get_batch(0) if file.num_record_batches == 1 else file.read_all()
            batch.validate()  # Arrow trusts what a file says of its sizes
        except FileNotFoundError:
            raise  # a copy in a cache may have gone
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{path}: not a readable packing plan ({error}).") from error
        if not batch.schema.equals(PLAN):
            raise InputError(f"{path}: not a packing plan (its columns are {', '.join(batch.schema.names)}).")
        self.row, self.first, self.tokens = (_column(batch, name) for name in PLAN.names)
        if not _covers(self.row, self.first, self.tokens, shard_tokens, length, rows):
            raise InputError(f"{path}: this packing plan does not cover the {shard_tokens} tokens of its shard in {rows} rows of {length}.")

    def pieces_of(self, row: int) -> list[tuple[int, int]]:
        """(first token in the shard, tokens) of each piece of a row."""
        begin, end = np.searchsorted(self.row, [row, row + 1])
        return list(zip(self.first[begin:end].tolist(), self.tokens[begin:end].tolist()))


def _column(batch: pa.RecordBatch | pa.Table, name: str) -> Integers:
    values: npt.NDArray[Any] = batch[name].to_numpy() if batch.num_rows else np.zeros(0, np.int64)
    return np.ascontiguousarray(values, np.int64)


def _covers(row: Integers, first: Integers, tokens: Integers, shard_tokens: int, length: int, rows: int) -> bool:
    """Whether every token of the shard is in one piece, and every row has pieces of `length` tokens together at most."""
    if not len(row):
        return shard_tokens == rows == 0
    order = first.argsort(kind="stable")
    starts, sizes = first[order], tokens[order]
    wanted = sizes.cumsum()  # of pieces that follow one another: where each ends
    steps = row[1:] - row[:-1]
    return bool(
        row[0] == 0 and row[-1] == rows - 1 and (not len(steps) or (steps.min() >= 0 and steps.max() <= 1))
        and sizes.min() > 0 and wanted[-1] == shard_tokens and (starts == wanted - sizes).all()
        and np.bincount(row, tokens).max() <= length
    )  # fmt: skip
