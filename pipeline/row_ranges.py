"""Pieces that read a shard of documents can be cut between rows: `params["rows"]` of such a part says which ones it reads."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate, pairwise

import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.pipeline.shards import iter_tables, open_parquet
from corpusmill.pipeline.stage import Piece
from corpusmill.pipeline.storage import Storage

#: Rows that are read at once where not all of a row group is wanted.
BATCH_ROWS = 128


def row_halves(run: Storage, piece: Piece) -> tuple[Piece, Piece] | None:
    """The piece cut near its middle, between row groups where it has several. Its first input is the shard."""
    with open_parquet(run, piece.inputs[0].path) as file:
        edges = [0, *accumulate(file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))]
    begin, end = piece.params.get("rows", (0, edges[-1]))
    middle = min((edge for edge in edges if begin < edge < end), key=lambda edge: abs(2 * edge - begin - end), default=(begin + end) // 2)
    if middle == begin:
        return None
    first, second = ({**piece.params, "rows": rows} for rows in ((begin, middle), (middle, end)))
    return replace(piece, params=first), replace(piece, params=second)


def tables_of(run: Storage, piece: Piece, columns: list[str] | None = None) -> Iterator[tuple[int, pa.Table]]:
    """The rows of a piece's shard (its first input), one row group after the other, and where in the shard each of these begins."""
    path = piece.inputs[0].path
    if "rows" not in piece.params:
        begin = 0
        for table in iter_tables(run, path, columns):
            yield begin, table
            begin += table.num_rows
        return
    first, last = piece.params["rows"]
    with open_parquet(run, path) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        for group, (begin, end) in enumerate(pairwise([0, *accumulate(sizes)])):
            a, b = max(begin, first), min(end, last)
            if a < b:
                whole = (a, b) == (begin, end)
                yield (
                    a,
                    file.read_row_group(group, columns=columns, use_threads=False)
                    if whole
                    else _some(file, group, a - begin, b - begin, columns),
                )


def _some(file: pq.ParquetFile, group: int, first: int, last: int, columns: list[str] | None) -> pa.Table:
    """Rows of a row group, of which no more than a batch beside them is in memory."""
    found, begin = [], 0
    for batch in file.iter_batches(BATCH_ROWS, [group], columns, use_threads=False):
        a, b = max(begin, first), min(begin + batch.num_rows, last)
        if a < b:
            found.append(batch.take(pa.array(range(a - begin, b - begin))))  # a copy: a slice would keep the batch
        begin += batch.num_rows
    return pa.Table.from_batches(found).combine_chunks()
