"""The order of documents: by a column, from the order of all rows, which is found once a column."""

import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from corpusmill.report.explore.asked import Unfit, shown
from corpusmill.report.explore.coding import Bools
from corpusmill.report.explore.table import NUMBER, Rows, StageTable

#: The order of the report's rows.
PLACE = "place"
#: Bytes of orders that are kept in memory.
KEPT_BYTES = 200_000_000


class Orders:
    """The rows of a report by each of its columns. Rows without a value come last in both directions, equal ones by place."""

    def __init__(self, table: StageTable):
        self.table = table
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[Rows, int]] = OrderedDict()

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
        with self._lock:
            if column in self._known:
                self._known.move_to_end(column)
                return self._known[column]
        found = self._find(column)
        with self._lock:
            self._known[column] = found
            while sum(rows.nbytes for rows, _ in self._known.values()) > KEPT_BYTES and len(self._known) > 1:
                self._known.popitem(last=False)
        return found

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
