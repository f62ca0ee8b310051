"""Search in texts: a share of them with each request, within a time budget, over the rows that pass everything else."""

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.report.explore.coding import Bools
from corpusmill.pipeline.report.explore.texts import Texts

#: Seconds that a request searches.
BUDGET = 0.25
#: Searches that are remembered, so that each goes on where it was.
REMEMBERED = 8


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

    def go_on(self, wanted: int, budget: float = BUDGET) -> None:
        """Searches until there are `wanted` hits, all is searched, or the time is over (row groups are searched whole)."""
        deadline = time.monotonic() + budget
        with self.lock:
            while not self.done and len(self.hits) < wanted and time.monotonic() < deadline:
                self._search_group()

    def _search_group(self) -> None:
        """Searches the rows whose texts lie in the next row group."""
        positions = self.texts.positions
        group = self.texts.group(int(positions[self.rows[self.searched]]))
        begin, end = self.texts.groups[group][0], self.texts.end(group)
        ahead = positions[self.rows[self.searched : self.searched + (end - begin)]]
        outside = np.flatnonzero((ahead < begin) | (ahead >= end))
        rows = self.rows[self.searched : self.searched + (int(outside[0]) if len(outside) else len(ahead))]
        texts = self.texts.read(group)
        if texts is not None:
            some = texts.take(pa.array(positions[rows] - begin))
            hits = pc.match_substring(some, self.needle).to_numpy()
            self.hits += rows[np.asarray(hits, bool)].tolist()
        self.searched += len(rows)

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
