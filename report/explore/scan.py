"""One pass over a stage's report: batches of about 65,536 rows that threads read and measure, added up in the report's order.

What measures them is a `Measure`: `measure(batch)` may run in any thread and gives something small, `add(measured)` runs in one thread
and in the order of the report, so equal runs give equal results. Memory does not grow with the number of rows.
"""

import copy
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from corpusmill.pipeline.manifest import TRIAL
from corpusmill.report.read import RunReader

ROWS = 65_536
#: A batch and what is measured of it take about 80 MB.
THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class Stretch:
    """Rows of a batch that follow each other in a shard: `rows` of them, from row `first` of the shard on."""

    number: int  # of the shard, in the order of the stage's plan
    shard: str
    first: int
    rows: int


class Batch:
    """Some rows of a stage's report, from one or more shards. `reader` is the thread's own: its warnings are added up in order, too."""

    def __init__(self, reader: RunReader, stage: str, table: pa.Table, stretches: Sequence[Stretch]):
        self.reader, self.stage, self.table, self.stretches = reader, stage, table, stretches

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def place(self, row: int) -> Stretch:
        """Where a row of the batch lies: a stretch of one row."""
        for stretch in self.stretches:
            if row < stretch.rows:
                return Stretch(stretch.number, stretch.shard, stretch.first + row, 1)
            row -= stretch.rows
        raise IndexError(row)


class Measure(Protocol):
    """What one pass finds out."""

    @property
    def columns(self) -> Sequence[str]:
        """The columns of the report that it wants to see, where a shard has them."""

    def measure(self, batch: Batch) -> Any:
        """What a batch adds; called from several threads at once."""

    def add(self, measured: Any) -> None:
        """Adds it up; called in the order of the report."""


def scan(reader: RunReader, stage: str, measures: Sequence[Measure]) -> None:
    """Lets `measures` see every readable row of a stage's report. Damaged shards and row groups are left out with a warning."""
    columns = list(dict.fromkeys(column for measure in measures for column in measure.columns))

    def work(shards: list[tuple[int, str]]) -> tuple[list[list[Any]], list[str]]:
        own = copy.copy(reader)
        own.warnings = []
        return [[measure.measure(batch) for measure in measures] for batch in _batches(own, stage, shards, columns)], own.warnings

    for found, warnings in _in_order(work, _together(shards(reader, stage))):
        for sentence in warnings:
            reader.warn(sentence)
        for measured in found:
            for measure, each in zip(measures, measured, strict=True):
                measure.add(each)


def _in_order(work: Any, pieces: Iterable[Any]) -> Iterator[Any]:
    """The results of `work` on each piece, in their order; a few pieces are worked on at once."""
    waiting: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        for piece in pieces:
            waiting.append(pool.submit(work, piece))
            if len(waiting) > THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def shards(reader: RunReader, stage: str) -> list[tuple[int, str, int]]:
    """(number, path, rows by the manifest) of the report's shards."""
    found = []
    for task in reader.stages[stage].tasks:
        paths = [output.path for output in task.outputs if output.path.removeprefix(TRIAL).startswith("report/")]
        found += [(path, task.rows_in // len(paths)) for path in paths if path.endswith(".parquet")]
    return [(number, path, rows) for number, (path, rows) in enumerate(found)]


def _together(every: Sequence[tuple[int, str, int]]) -> Iterator[list[tuple[int, str]]]:
    """Shards that are measured together: small ones until they have `ROWS` rows."""
    piece: list[tuple[int, str]] = []
    total = 0
    for number, path, rows in every:
        if piece and total + rows > ROWS:
            yield piece
            piece, total = [], 0
        piece.append((number, path))
        total += rows
    if piece:
        yield piece


def _batches(reader: RunReader, stage: str, shards: Sequence[tuple[int, str]], columns: Sequence[str]) -> Iterator[Batch]:
    """The rows of some shards, at most about `ROWS` at a time."""
    tables: list[pa.Table] = []
    stretches: list[Stretch] = []
    rows = 0
    for number, shard in shards:
        for first, table in reader.shard_groups(stage, shard, columns):
            if tables and rows + table.num_rows > ROWS:
                yield Batch(reader, stage, _joined(tables), stretches)
                tables, stretches, rows = [], [], 0
            tables.append(table)
            stretches.append(Stretch(number, shard, first, table.num_rows))
            rows += table.num_rows
    if tables:
        yield Batch(reader, stage, _joined(tables), stretches)


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    """One table; shards of other versions may lack columns or have them of another type."""
    try:
        whole = pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # the same name for text here and numbers there: the first shard's type counts
        first = tables[0].schema
        fitting = [[f.name for f in table.schema if f.name in first.names and f.type == first.field(f.name).type] for table in tables]
        whole = pa.concat_tables([table.select(names) for table, names in zip(tables, fitting, strict=True)], promote_options="default")
    return whole.combine_chunks()
