"""Which rows of a report pass a filter: numbers and addresses by DuckDB, verdicts and origins by the arrays beside it."""

import os
import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.report.explore.asked import Filter, Unfit, shown
from corpusmill.report.explore.table import NUMBER, ORIGINS, Bools, Column, Remembered, Rows, StageTable
from corpusmill.report.host import lower
from corpusmill.report.read import DATA_STAGES, Place, RunReader


@dataclass
class Conditions:
    """The part of a filter that DuckDB answers: SQL with places for `values`."""

    terms: list[str]
    values: list[Any]

    def add(self, term: str, value: Any) -> None:
        self.values.append(value)
        self.terms.append(term.replace("?", f"${len(self.values)}"))


def select(table: StageTable, asked: Filter) -> Bools:
    """bool (rows): which rows pass everything but the search in texts. Raises Unfit for rules and columns that there are none of."""
    numbers = [_rule(table, name) for name in asked.rule]
    mask = table.verdicts.where(asked.decision, numbers, asked.alone)[table.verdict] if table.rows else np.zeros(0, bool)
    for origin in ORIGINS:
        if (value := getattr(asked, origin)) is not None:
            number = table.names[origin].numbers.get((lower(value) if origin == "host" else value) or None, -1)
            mask &= table.origins[origin] == number
    conditions = _conditions(table, asked)
    if conditions.terms and mask.any():
        mask &= _passing(table, conditions)
    return mask


def _rule(table: StageTable, name: str) -> int:
    number = table.verdicts.rule(name)
    if number is None:
        raise Unfit(f"The stage {table.name} has no rule {shown(name)}.")
    return number


def number_column(table: StageTable, name: str) -> Column:
    """A column of numbers. Raises Unfit where there is none of this name."""
    column = table.columns.get(name)
    if column is None or column.kind != NUMBER:
        raise Unfit(f"The report of {table.name} has no column of numbers {shown(name)}.")
    return column


def _conditions(table: StageTable, asked: Filter) -> Conditions:
    found = Conditions([], [])
    for ends, comparison in ((asked.low, ">="), (asked.high, "<=")):
        for name, end in ends.items():
            found.add(f"{number_column(table, name).sql} {comparison} ?::DOUBLE", end)
    if asked.url is not None:
        found.add("contains(url, ?::VARCHAR)", asked.url)
    return found


def _passing(table: StageTable, conditions: Conditions) -> Bools:
    mask = np.zeros(table.rows, bool)
    query = f"SELECT number FROM {table.table} WHERE {' AND '.join(conditions.terms)}"
    with table.cursor() as cursor:
        mask[cursor.execute(query, conditions.values).fetchnumpy()["number"]] = True
    return mask


Positions = npt.NDArray[np.int32]


@dataclass
class Texts:
    """`positions` (rows of the report): the place of each text among those of `stage`, -1 where there is none.

    `groups` says at which place each row group of the stage's documents begins; `count` are all of them.
    """

    reader: RunReader
    stage: str
    positions: Positions
    groups: list[tuple[int, Place]]
    count: int

    def group(self, position: int) -> int:
        """The row group that holds a place."""
        return bisect_right(self.groups, position, key=lambda group: group[0]) - 1

    def end(self, group: int) -> int:
        """The first place behind a row group."""
        return self.groups[group + 1][0] if group + 1 < len(self.groups) else self.count

    def read(self, group: int) -> pa.ChunkedArray | None:
        """The texts of a row group; None where it can't be read."""
        place = self.groups[group][1]
        for _, table in self.reader.groups(self.stage, "data", ["text"], only={(place.shard, place.group)}):
            return table["text"] if "text" in table.column_names else None
        return None

    def of(self, row: int) -> str | None:
        """The text of a row of the report."""
        position = int(self.positions[row])
        if position < 0:
            return None
        begin, place = self.groups[self.group(position)]
        found = self.reader.row(Place(place.stage, place.shard, place.group, position - begin), ["text"])
        text: str | None = found.get("text")
        return text


def texts_before(reader: RunReader, stage: str, ids: pa.ChunkedArray) -> Texts:
    """The texts that came into a stage, by the ids of its report's rows; for `ingest` those that it made."""
    earlier = DATA_STAGES[: DATA_STAGES.index(stage)] if stage in DATA_STAGES else DATA_STAGES
    source = next((name for name in reversed(earlier) if reader.stages[name].outputs("data/")), stage)
    parts, groups, count = [], list[tuple[int, Place]](), 0
    for place, table in reader.groups(source, "data", ["id"]):
        if "id" in table.column_names:
            groups.append((count, place))
            parts.append(table["id"].combine_chunks().cast(pa.string()))
            count += table.num_rows
    if not parts:
        return Texts(reader, source, np.full(len(ids), -1, np.int32), [], 0)
    at = pc.index_in(ids, pa.concat_arrays(parts))
    return Texts(reader, source, pc.fill_null(at, -1).to_numpy().astype(np.int32), groups, count)


#: Seconds that a request searches; what is being searched then is finished.
BUDGET = 0.15
#: Row groups that are searched side by side.
THREADS = min(4, os.cpu_count() or 1)
#: Searches that are remembered, so that each goes on where it was.
REMEMBERED = 8


_POOL = ThreadPoolExecutor(THREADS)


@dataclass
class Search:
    """A substring in the texts of some rows (`rows`, in the order of the report), `searched` of which are done."""

    texts: Texts
    needle: str
    rows: npt.NDArray[np.int64]
    searched: int = 0
    hits: list[int] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)

    @property
    def done(self) -> bool:
        return self.searched >= len(self.rows)

    def go_on(self, wanted: int) -> None:
        """Searches until there are `wanted` hits, all is searched, or the time is over (row groups are searched whole)."""
        deadline = time.monotonic() + BUDGET
        with self.lock:
            while not self.done and len(self.hits) < wanted and time.monotonic() < deadline:
                for searched, hits in _POOL.map(self._search_group, self._next_groups()):
                    self.searched += searched
                    self.hits += hits

    def _next_groups(self) -> list[tuple[int, npt.NDArray[np.int64]]]:
        """The next row groups of texts, and the rows of the report whose texts lie in each."""
        found = list[tuple[int, npt.NDArray[np.int64]]]()
        begin, positions = self.searched, self.texts.positions
        while begin < len(self.rows) and len(found) < THREADS:
            group = self.texts.group(int(positions[self.rows[begin]]))
            first, end = self.texts.groups[group][0], self.texts.end(group)
            ahead = positions[self.rows[begin : begin + end - first]]
            outside = np.flatnonzero((ahead < first) | (ahead >= end))
            rows = self.rows[begin : begin + (int(outside[0]) if len(outside) else len(ahead))]
            found.append((group, rows))
            begin += len(rows)
        return found

    def _search_group(self, piece: tuple[int, npt.NDArray[np.int64]]) -> tuple[int, list[int]]:
        """How many rows were searched, and which of them have the substring."""
        group, rows = piece
        texts = self.texts.read(group)
        if texts is None:
            return len(rows), []
        some = texts.take(pa.array(self.texts.positions[rows] - self.texts.groups[group][0]))
        hits: list[int] = rows[np.asarray(pc.match_substring(some, self.needle).to_numpy(), bool)].tolist()
        return len(rows), hits

    def told(self, given: int) -> dict[str, Any]:
        """How far the search is; `given`: how many hits the asker has."""
        whole = self.done and given >= len(self.hits)
        return {"searched": self.searched, "of": len(self.rows), "cursor": None if whole else str(given)}

    def mask(self) -> Bools:
        """bool (rows of the report): the hits so far."""
        mask = np.zeros(len(self.texts.positions), bool)
        mask[self.hits] = True
        return mask


#: The order of the report's rows.
PLACE = "place"
#: Bytes of orders that are kept in memory.
KEPT_BYTES = 200_000_000


class Orders:
    """The rows of a report by each of its columns. Rows without a value come last in both directions, equal ones by place."""

    def __init__(self, table: StageTable):
        self.table = table
        self._known = Remembered[tuple[Rows, int]](KEPT_BYTES, lambda found: int(found[0].nbytes))

    def page(self, mask: Bools, order: str, descending: bool, offset: int, limit: int) -> list[int]:
        """`limit` rows of `mask` (bool, rows) from the `offset`-th on."""
        if order == PLACE:
            rows = np.flatnonzero(mask)
            rows = rows[::-1] if descending else rows
            found: list[int] = rows[offset : offset + limit].tolist()
            return found
        by_value, known = self.of(order)
        valued, without = by_value[:known], by_value[known:]
        valued, without = valued[mask[valued]], without[mask[without]]
        valued = valued[::-1] if descending else valued
        found = valued[offset : offset + limit].tolist()
        begin = max(0, offset - len(valued))
        return found + without[begin : begin + limit - len(found)].tolist()

    def prepare(self, go_on: Callable[[], None]) -> None:
        """Finds the orders by all columns of numbers, then by address, as far as they fit in memory. `go_on` may raise to end that."""
        numbers = [column.name for column in self.table.numbers()]
        for column in [*numbers, "url"][: KEPT_BYTES // max(4 * self.table.rows, 1)]:
            go_on()
            self.of(column)

    def of(self, column: str) -> tuple[Rows, int]:
        """All rows by a column, rising, and how many of them have a value. Raises Unfit where there is no such column."""
        if column != "url" and column not in self.table.columns:
            raise Unfit(f"The report of {self.table.name} has no column {shown(column)}.")
        return self._known.get(column, lambda: self._find(column))

    def _find(self, column: str) -> tuple[Rows, int]:
        described = self.table.columns.get(column)
        if described is not None and described.kind == NUMBER:
            values = self.table.array(column)
            missing = int(np.isnan(values).sum()) if values.dtype.kind == "f" else 0
            return np.argsort(values, kind="stable").astype(np.int32), len(values) - missing
        with self.table.cursor() as cursor:
            name = described.sql if described is not None else "url"
            texts = cursor.sql(f"SELECT {name} AS v FROM {self.table.table}").to_arrow_table()["v"]
        rows: npt.NDArray[np.int32] = pc.array_sort_indices(texts, null_placement="at_end").to_numpy().astype(np.int32)
        return rows, len(texts) - texts.null_count


#: Filters whose rows are remembered: a page asks for documents, counts and charts of one.
MASKS_KEPT = 12


class Loaded:
    """A stage's report and its documents' texts."""

    def __init__(self, reader: RunReader, table: StageTable):
        self.reader, self.table, self.orders = reader, table, Orders(table)
        self._masks, self._searches = Remembered[Bools](MASKS_KEPT), Remembered[Search](REMEMBERED)
        self._finding = threading.Lock()
        self._texts: Texts | None = None
        self.description: dict[str, Any] | None = None  # what a page is told of the stage, once it was asked for

    def texts(self) -> Texts:
        """Where the texts lie; found when it is first asked for."""
        with self._finding:
            if self._texts is None:
                self._texts = texts_before(self.reader, self.table.name, self.table.ids())
            return self._texts

    def mask(self, asked: Filter) -> Bools:
        """bool (rows): what passes all of a filter but the search in texts; of the same filter it is found once."""
        return self._masks.get(_key(asked, with_text=False), lambda: select(self.table, asked))

    def search(self, asked: Filter) -> Search | None:
        """The search that a filter asks for, as far as it is."""
        if (needle := asked.text) is None:
            return None
        texts, mask = self.texts(), self.mask(asked)
        return self._searches.get(_key(asked, with_text=True), lambda: Search(texts, needle, np.flatnonzero(mask & (texts.positions >= 0))))


def _key(asked: Filter, with_text: bool) -> str:
    """A filter as a string, whatever else was asked for with it."""
    return asked.model_dump_json(include=set(Filter.model_fields) - (set() if with_text else {"text"}))
