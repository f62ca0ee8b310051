"""Writes the documents of a filter as CSV, Parquet or JSON Lines. Memory holds one batch of rows and one row group of texts.

All forms have id, address, decision, failed rules and the report's values, in the order of the report; JSON Lines have the text, too.
"""

import io
import tempfile
from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.report.explore.parameters import Exported
from corpusmill.report.explore.selection import Loaded, Rows, Texts
from corpusmill.report.explore.table import Bools, StageTable
from corpusmill.report.machine import as_json, print_csv

#: Rows read at a time, and bytes of a Parquet file that are sent at a time.
BATCH, PART = 16_384, 1 << 20
#: The media type of each form.
KINDS = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet", "jsonl": "application/x-ndjson"}

Batch = tuple[Rows, pa.Table]


def export(stage: Loaded, query: Exported) -> Iterator[bytes]:
    """Yields the file in parts. A search in texts is brought to its end first. Raises BadRequest for unknown rules and columns."""
    search, mask = stage.search(query), stage.mask(query)
    write = {"csv": _csv, "parquet": _parquet, "jsonl": _jsonl}[query.format]

    def parts() -> Iterator[bytes]:
        while search is not None and not search.done:
            search.go_on(len(search.rows) + 1)
        yield from write(stage, _batches(stage.table, mask if search is None else search.mask()))

    return parts()


def _batches(table: StageTable, mask: Bools) -> Iterator[Batch]:
    """Yields the rows of a mask with their numbers."""
    failed = pa.array([[table.verdicts.rules[rule] for rule in verdict.failed] for verdict in table.verdicts.all], pa.list_(pa.string()))
    values = ", ".join(["id", "url", *(column.sql for column in table.columns.values())])
    query = f"SELECT {values} FROM {table.table} WHERE number >= $1 AND number < $2 ORDER BY number"
    for begin in range(0, max(table.rows, 1), BATCH):
        rows = begin + np.flatnonzero(mask[begin : begin + BATCH])
        if len(rows) or begin == 0:  # the first batch has the columns, even without a row
            with table.cursor() as cursor:
                read = cursor.sql(query, params=[begin, begin + BATCH]).to_arrow_table().take(pa.array(rows - begin))
            known = {"kept": pa.array(table.kept[rows], pa.bool_()), "failed": failed.take(pa.array(table.verdict[rows]))}
            known |= {
                origin: pa.array(table.names[origin].values, pa.string()).take(pa.array(table.origins[origin][rows]))
                for origin in ("language", "source")
                if origin not in table.columns
            }
            named = dict(zip(("id", "url", *table.columns), read.columns, strict=True))
            yield rows.astype(np.int32), pa.table({"id": named.pop("id"), "url": named.pop("url"), **known, **named})


def _csv(_: Loaded, batches: Iterator[Batch]) -> Iterator[bytes]:
    for place, (_rows, batch) in enumerate(batches):
        out = io.StringIO()
        print_csv(batch.to_pylist(), batch.column_names, out, head=place == 0)
        yield out.getvalue().encode("utf-8", "replace")


def _parquet(_: Loaded, batches: Iterator[Batch]) -> Iterator[bytes]:
    """The file is whole before its first part is sent, since its end describes it; it is written to the disk."""
    with tempfile.TemporaryFile() as file:
        _rows, first = next(batches)
        with pq.ParquetWriter(file, first.schema, compression="zstd") as writer:
            for batch in chain([first], (batch for _rows, batch in batches)):
                writer.write_table(batch)
        file.seek(0)
        yield from iter(lambda: file.read(PART), b"")


def _jsonl(stage: Loaded, batches: Iterator[Batch]) -> Iterator[bytes]:
    text_of = _reading(stage.texts())
    for rows, batch in batches:
        lines = [as_json({**row, "text": text_of(number)}) + "\n" for number, row in zip(rows.tolist(), batch.to_pylist(), strict=True)]
        yield "".join(lines).encode()


def _reading(texts: Texts) -> Callable[[int], str | None]:
    """Returns a function that gives the text of a row; it keeps the last row group."""
    known: dict[int, pa.ChunkedArray | None] = {}

    def text_of(row: int) -> str | None:
        position = int(texts.positions[row])
        if position < 0:
            return None
        group = texts.group(position)
        if group not in known:
            known.clear()
            known[group] = texts.read(group)
        column = known[group]
        return None if column is None else str(column[position - texts.groups[group][0]].as_py() or "")

    return text_of
