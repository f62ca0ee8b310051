"""Search in texts: a share of them with each request, within a time budget, over the rows that pass everything else."""

import os
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.report.explore.coding import Bools
from corpusmill.report.explore.texts import Texts

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


class Searches:
    """The last searches."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Search] = OrderedDict()

    def of(self, key: str, texts: Texts, needle: str, mask: Bools) -> Search:
        """The search for `needle` among the rows of `mask`; `key` names both."""
        with self._lock:
            if key not in self._known:
                rows = np.flatnonzero(mask & (texts.positions >= 0))
                self._known[key] = Search(texts, needle, rows)
                while len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)
            self._known.move_to_end(key)
            return self._known[key]
