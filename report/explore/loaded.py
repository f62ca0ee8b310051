"""A stage that can be asked for: its report, and what is remembered of earlier questions."""

import threading
from collections import OrderedDict
from typing import Any

from corpusmill.report.explore.asked import Filter
from corpusmill.report.explore.coding import Bools
from corpusmill.report.explore.order import Orders
from corpusmill.report.explore.search import Search, Searches
from corpusmill.report.explore.selection import select
from corpusmill.report.explore.table import StageTable
from corpusmill.report.explore.texts import Texts, texts_before
from corpusmill.report.read import RunReader

#: Filters whose rows are remembered: a page asks for documents, counts and charts of one.
REMEMBERED = 12


class Loaded:
    """A stage's report and its documents' texts."""

    def __init__(self, reader: RunReader, table: StageTable):
        self.reader, self.table = reader, table
        self.orders, self.searches = Orders(table), Searches()
        self._lock, self._finding = threading.Lock(), threading.Lock()
        self._masks: OrderedDict[str, Bools] = OrderedDict()
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
        key = _key(asked, with_text=False)
        with self._lock:
            if key in self._masks:
                self._masks.move_to_end(key)
                return self._masks[key]
        found = select(self.table, asked)
        with self._lock:
            self._masks[key] = found
            while len(self._masks) > REMEMBERED:
                self._masks.popitem(last=False)
        return found

    def search(self, asked: Filter) -> Search | None:
        """The search that a filter asks for, as far as it is."""
        if asked.text is None:
            return None
        return self.searches.of(_key(asked, with_text=True), self.texts(), asked.text, self.mask(asked))


def _key(asked: Filter, with_text: bool) -> str:
    """A filter as a string, whatever else was asked for with it."""
    return asked.model_dump_json(include=set(Filter.model_fields) - (set() if with_text else {"text"}))
