"""Chooses the rows of a report that pass a filter: numbers and URLs by DuckDB, verdicts and origins by numpy arrays."""

import os
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.report.explore.parameters import BadRequest, Filter, shown
from corpusmill.report.explore.table import NUMBER, ORIGINS, Bools, Column, LruCache, Rows, StageTable
from corpusmill.report.host import lower
from corpusmill.report.read import DATA_STAGES, Place, RunReader


@dataclass
class Conditions:
    """The part of a filter that DuckDB checks: SQL terms with placeholders for `values`."""

    terms: list[str]
    values: list[Any]

    def add(self, term: str, value: Any) -> None:
        self.values.append(value)
        self.terms.append(term.replace("?", f"${len(self.values)}"))


def select(table: StageTable, asked: Filter) -> Bools:
    """bool (rows): which rows pass the filter, apart from the search in texts. Raises BadRequest for unknown rules and columns."""
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
        raise BadRequest(f"The stage {table.name} has no rule {shown(name)}.")
    return number


def number_column(table: StageTable, name: str) -> Column:
    """Returns a column of numbers. Raises BadRequest if there is none of this name."""
    column = table.columns.get(name)
    if column is None or column.kind != NUMBER:
        raise BadRequest(f"The report of {table.name} has no column of numbers {shown(name)}.")
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
    """The texts of a report's rows. `positions`: for each row the position of its text among the documents of `stage`, -1 without a text.

    `groups`: the first position of each row group of these documents. `count`: the number of documents.
    """

    reader: RunReader
    stage: str
    positions: Positions
    groups: list[tuple[int, Place]]
    count: int

    def group(self, position: int) -> int:
        """Returns the row group that holds a position."""
        return bisect_right(self.groups, position, key=lambda group: group[0]) - 1

    def end(self, group: int) -> int:
        """Returns the first position after a row group."""
        return self.groups[group + 1][0] if group + 1 < len(self.groups) else self.count

    def read(self, group: int) -> pa.ChunkedArray | None:
        """Reads the texts of a row group; None if it can't be read."""
        place = self.groups[group][1]
        for _, table in self.reader.groups(self.stage, "data", ["text"], only={(place.shard, place.group)}):
            return table["text"] if "text" in table.column_names else None
        return None

    def of(self, row: int) -> str | None:
        """Returns the text of a row of the report."""
        position = int(self.positions[row])
        if position < 0:
            return None
        begin, place = self.groups[self.group(position)]
        found = self.reader.row(Place(place.stage, place.shard, place.group, position - begin), ["text"])
        text: str | None = found.get("text")
        return text


def texts_before(reader: RunReader, table: StageTable) -> Texts:
    """Finds the input texts of a stage's documents by their ids; for `ingest` its output texts."""
    earlier = DATA_STAGES[: DATA_STAGES.index(table.name)] if table.name in DATA_STAGES else DATA_STAGES
    source = next((name for name in reversed(earlier) if reader.stages[name].outputs("data/")), table.name)
    texts = Texts(reader, source, np.zeros(0, np.int32), [], 0)

    def given() -> Iterator[tuple[pa.Array, pa.Array]]:
        for place, group in reader.groups(source, "data", ["id"]):
            if "id" in group.column_names:
                texts.groups.append((texts.count, place))
                yield group["id"].combine_chunks().cast(pa.string()), pa.array(np.arange(group.num_rows, dtype=np.int32) + texts.count)
                texts.count += group.num_rows

    texts.positions = table.first_of(given())
    return texts


#: Seconds that a request searches. Row groups in progress are finished after that.
BUDGET = 0.15
#: Row groups that are searched in parallel.
THREADS = min(4, os.cpu_count() or 1)
#: Searches that are remembered, so that each can go on later.
REMEMBERED = 8


_POOL = ThreadPoolExecutor(THREADS)


@dataclass
class Search:
    """A search for a substring in the texts of some rows (`rows`, in the order of the report); the first `searched` are done."""

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
        """Searches until there are `wanted` hits, all rows are done, or the time is over. Row groups are searched whole."""
        deadline = time.monotonic() + BUDGET
        with self.lock:
            while not self.done and len(self.hits) < wanted and time.monotonic() < deadline:
                for searched, hits in _POOL.map(self._search_group, self._next_groups()):
                    self.searched += searched
                    self.hits += hits

    def _next_groups(self) -> list[tuple[int, npt.NDArray[np.int64]]]:
        """Returns the next row groups of texts, each with the report's rows in it."""
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
        """Returns how many rows were searched, and which of them hold the substring."""
        group, rows = piece
        texts = self.texts.read(group)
        if texts is None:
            return len(rows), []
        some = texts.take(pa.array(self.texts.positions[rows] - self.texts.groups[group][0]))
        hits: list[int] = rows[np.asarray(pc.match_substring(some, self.needle).to_numpy(), bool)].tolist()
        return len(rows), hits

    def progress(self, given: int) -> dict[str, Any]:
        """Returns the progress of the search. `given`: hits that the page already has."""
        whole = self.done and given >= len(self.hits)
        return {"searched": self.searched, "of": len(self.rows), "cursor": None if whole else str(given)}

    def mask(self) -> Bools:
        """bool (rows of the report): the hits so far."""
        mask = np.zeros(len(self.texts.positions), bool)
        mask[self.hits] = True
        return mask


#: The order of the report's rows.
PLACE = "place"


class Orders:
    """The rows of a report, ordered by each of its columns. Rows without a value come last in both directions; ties by place."""

    def __init__(self, table: StageTable):
        self.table = table
        self._known = LruCache[tuple[Rows, int]](table.cache, lambda found: int(found[0].nbytes))

    def page(self, mask: Bools, order: str, descending: bool, offset: int, limit: int) -> list[int]:
        """Returns `limit` rows of `mask` (bool, rows) from number `offset` on."""
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
        """Finds the orders by all columns of numbers, then by URL, as far as memory allows. `go_on` may raise to stop this."""
        numbers = [column.name for column in self.table.numbers()]
        for column in [*numbers, "url"][: self.table.cache // max(4 * self.table.rows, 1)]:
            go_on()
            self.of(column)

    def of(self, column: str) -> tuple[Rows, int]:
        """Returns all rows ordered by a column, ascending, and how many have a value. Raises BadRequest for an unknown column."""
        if column != "url" and column not in self.table.columns:
            raise BadRequest(f"The report of {self.table.name} has no column {shown(column)}.")
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


#: Filters whose rows are remembered: the page asks for documents, counts and charts of one filter.
MASKS_KEPT = 12


class Loaded:
    """A stage's report and the texts of its documents."""

    def __init__(self, reader: RunReader, table: StageTable):
        self.reader, self.table, self.orders = reader, table, Orders(table)
        self._masks, self._searches = LruCache[Bools](MASKS_KEPT), LruCache[Search](REMEMBERED)
        self._finding = threading.Lock()
        self._texts: Texts | None = None
        self.description: dict[str, Any] | None = None  # the stage's description for the page, made at the first request

    def texts(self) -> Texts:
        """Returns the places of the texts; they are found at the first call."""
        with self._finding:
            if self._texts is None:
                self._texts = texts_before(self.reader, self.table)
            return self._texts

    def mask(self, asked: Filter) -> Bools:
        """bool (rows): the rows that pass a filter, apart from the search in texts. The result is remembered."""
        return self._masks.get(_key(asked, with_text=False), lambda: select(self.table, asked))

    def search(self, asked: Filter) -> Search | None:
        """Returns the search that a filter asks for, with its progress; None without one."""
        if (needle := asked.text) is None:
            return None
        texts, mask = self.texts(), self.mask(asked)
        return self._searches.get(_key(asked, with_text=True), lambda: Search(texts, needle, np.flatnonzero(mask & (texts.positions >= 0))))


def _key(asked: Filter, with_text: bool) -> str:
    """Returns a filter as a string, without the request's other parameters."""
    return asked.model_dump_json(include=set(Filter.model_fields) - (set() if with_text else {"text"}))
