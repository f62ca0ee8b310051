"""Counting documents and characters by a property, a batch at a time; Arrow tables hold the sums."""

import copy
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.report.facts.scan import Batch, in_threads, shards
from corpusmill.report.host import NONE, hosts
from corpusmill.report.read import RunReader

#: Sums are joined when so many rows wait for it.
WAITING = 200_000
#: What is counted of each name: documents and characters that came in, and those that go on.
COUNTS = ("documents_in", "characters_in", "documents", "characters")


class Tally:
    """Sums by name: a table of `name` and `COUNTS`."""

    def __init__(self) -> None:
        self.parts: list[pa.Table] = []
        self.waiting = 0

    def add(self, part: pa.Table) -> None:
        self.parts.append(part)
        self.waiting += part.num_rows
        if self.waiting > WAITING:
            self.parts, self.waiting = [self.table], 0

    @property
    def table(self) -> pa.Table:
        """A row a name."""
        if not self.parts:
            return pa.table({"name": pa.array([], pa.string()), **{name: pa.array([], pa.int64()) for name in COUNTS}})
        return _summed(pa.concat_tables(self.parts))


def _summed(table: pa.Table) -> pa.Table:
    groups = table.group_by("name", use_threads=False).aggregate([(name, "sum") for name in COUNTS])
    return groups.rename_columns([name.removesuffix("_sum") for name in groups.column_names]).select(["name", *COUNTS])


def grouped(names: pa.ChunkedArray | pa.Array, *counts: npt.NDArray[np.int64]) -> pa.Table:
    """Sums by name of some rows; `counts` are those of each row, in the order of `COUNTS`."""
    names = pc.fill_null(names.cast(pa.string()), NONE)
    return _summed(pa.table({"name": names, **dict(zip(COUNTS, map(pa.array, counts), strict=True))}))


class Tallies:
    """The measure of several columns of a report."""

    def __init__(self, wanted: Sequence[str]):
        self.columns = ("kept", "chars_in", "chars_out", *wanted)
        self.by_column = {column: Tally() for column in wanted}

    def measure(self, batch: Batch) -> list[pa.Table]:
        ones = np.ones(len(batch), np.int64)
        chars = [np.nan_to_num(batch.floats(column)).astype(np.int64) for column in ("chars_in", "chars_out")]
        counts = (ones, chars[0], batch.kept.astype(np.int64), chars[1] * batch.kept)
        columns = {column: batch.table[column] for column in self.by_column}
        return [grouped(hosts(values) if column == "url" else values, *counts) for column, values in columns.items()]

    def add(self, measured: list[pa.Table]) -> None:
        for tally, part in zip(self.by_column.values(), measured, strict=True):
            tally.add(part)


def count_shards(reader: RunReader, stage: str, columns: Iterable[str]) -> dict[str, Tally]:
    """What goes on by columns that a stage's report lacks and its documents have. A report's rows that were kept are its documents, in
    their order; where a shard is damaged it is left out with a warning."""
    schema = reader.schema(stage, "data")
    wanted = [column for column in columns if schema is not None and column in schema.names]
    tallies = {column: Tally() for column in wanted}
    there = set(reader.stages[stage].outputs("data/"))

    def work(piece: tuple[int, str, int]) -> tuple[dict[str, pa.Table], list[str]]:
        own = copy.copy(reader)
        own.warnings = []
        return _count_shard(own, stage, piece[1], wanted, there), own.warnings

    for found, warnings in in_threads(work, shards(reader, stage)) if wanted else ():
        for sentence in warnings:
            reader.warn(sentence)
        for column, part in found.items():
            tallies[column].add(part)
    return tallies


def _count_shard(reader: RunReader, stage: str, report: str, wanted: Sequence[str], there: set[str]) -> dict[str, pa.Table]:
    data = report.replace("report/", "data/", 1)
    if data not in there:
        return {}
    decided = [table for _, table in reader.shard_groups(stage, report, ["kept", "chars_out"])]
    documents = [table for _, table in reader.shard_groups(stage, data, wanted)]
    if not decided or not documents:
        return {}
    rows, table = pa.concat_tables(decided), pa.concat_tables(documents)
    chars = rows.filter(rows["kept"])["chars_out"].to_numpy()
    if len(chars) != table.num_rows:
        reader.warn(f"{stage}: {data} has {table.num_rows:,} documents where the report kept {len(chars):,}; left out of the origins.")
        return {}
    ones, none = np.ones(len(chars), np.int64), np.zeros(len(chars), np.int64)
    return {column: grouped(table[column], none, none, ones, chars) for column in table.column_names}


class Encodings:
    """The measure of encodings: rows of (used, claimed, kind of record) with their counts."""

    KEYS = ("encoding", "encoding_claimed", "record_type")
    columns = ("kept", "chars_in", "chars_out", *KEYS)

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str | None, str], list[int]] = {}

    def fits(self, names: set[str]) -> bool:
        """Whether a report has the columns."""
        return names.issuperset(self.KEYS)

    def measure(self, batch: Batch) -> list[dict[str, object]]:
        table = batch.table.select([*self.KEYS, "chars_in", "chars_out"]).append_column("kept", pa.array(batch.kept.astype(np.int64)))
        sums = [("kept", "sum"), ("chars_in", "sum"), ("chars_out", "sum")]
        rows: list[dict[str, object]] = table.group_by(list(self.KEYS), use_threads=False).aggregate([([], "count_all"), *sums]).to_pylist()
        return rows

    def add(self, measured: list[dict[str, object]]) -> None:
        for row in measured:
            used, claimed, kind = (row[key] for key in self.KEYS)
            if used is not None:
                key = (str(used), None if claimed is None else str(claimed), str(kind))
                held = self.counts.setdefault(key, [0, 0, 0, 0])
                for place, name in enumerate(("count_all", "chars_in_sum", "kept_sum", "chars_out_sum")):
                    held[place] += int(row[name] or 0)  # type: ignore[call-overload]
