"""A run's reports, loaded while the page is open already, and the answers to what is asked of them."""

import threading
import time
from collections import OrderedDict
from typing import Any

import duckdb

from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.memory import available_memory
from corpusmill.pipeline.report.explore.asked import Filter, Unfit, shown
from corpusmill.pipeline.report.explore.coding import Bools
from corpusmill.pipeline.report.explore.load import load_stage, report_rows
from corpusmill.pipeline.report.explore.order import Orders
from corpusmill.pipeline.report.explore.search import Search, Searches
from corpusmill.pipeline.report.explore.table import StageTable
from corpusmill.pipeline.report.explore.texts import Texts, texts_before
from corpusmill.pipeline.report.read import DATA_STAGES, RunReader
from corpusmill.pipeline.report.status import Status

#: Stages with a row a document.
EXPLORED = (*DATA_STAGES, "tokens")
#: Filters whose rows are remembered: a page asks for documents, counts and charts of one.
REMEMBERED = 12


class Stopped(Exception):
    """The explorer is to end."""


class Loaded:
    """A stage that can be asked for."""

    def __init__(self, table: StageTable, texts: Texts):
        self.table, self.texts = table, texts
        self.orders, self.searches = Orders(table), Searches()
        self._lock = threading.Lock()
        self._masks: OrderedDict[str, Bools] = OrderedDict()

    def mask(self, asked: Filter) -> Bools:
        """bool (rows): what passes all of a filter but the search in texts; of the same filter it is found once."""
        from corpusmill.pipeline.report.explore.selection import select

        key = Filter(**asked.model_dump(include=set(Filter.model_fields) - {"text"})).model_dump_json()
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
        key = Filter(**asked.model_dump(include=set(Filter.model_fields))).model_dump_json()
        return self.searches.of(key, self.texts, asked.text, self.mask(asked))


class Explorer:
    """Raises InputError where the folder is no run, or no stage has a report."""

    def __init__(self, folder: str, stage: str | None = None):
        self.reader = RunReader(folder)
        self.folder = folder
        self.present = [name for name in EXPLORED if self.reader.stages[name].outputs("report/")]
        if stage is not None and stage not in self.present:
            there = f"there are {', '.join(self.present)}" if self.present else "no stage has one yet"
            raise InputError(f"{folder}: the stage {shown(stage)} has no report ({there}).")
        if not self.present:
            raise InputError(f"{folder}: no stage of this run has a report yet.")
        self.wanted = [stage] if stage else sorted(self.present, key=lambda name: name != "filter")
        self.loaded: dict[str, Loaded] = {}
        self.left_out: dict[str, str] = {}
        self.loading: dict[str, Any] | None = {"stage": self.wanted[0], "rows": 0, "of": 0}
        self.seconds = 0.0
        self.stopped = threading.Event()
        self.connection = duckdb.connect(":memory:")
        self.status, self.status_lock = Status(folder), threading.Lock()

    def load(self) -> None:
        """Loads the stages one after the other; then finds the orders that the page may ask for."""
        started = time.monotonic()
        try:
            for name in self.wanted:
                self._load_or_say(name)
            self.connection.execute("SET enable_external_access = false; SET lock_configuration = true")
            self.loading, self.seconds = None, time.monotonic() - started
            for loaded in list(self.loaded.values()):
                loaded.orders.prepare(self._go_on)
        except Stopped:
            pass
        except Exception as error:  # noqa: BLE001 - the last boundary of a thread: the page must not wait for what never comes
            self.reader.warn(f"internal error while the reports were loaded ({type(error).__name__}: {error}).")
        finally:
            self.loading = None

    def stop(self) -> None:
        """Ends the loading, if it is going on."""
        self.stopped.set()

    def _go_on(self) -> None:
        if self.stopped.is_set():
            raise Stopped

    def _load_or_say(self, name: str) -> None:
        try:
            self._load(name)
        except (CorpusmillError, OSError, ValueError, duckdb.Error) as error:
            self.left_out[name] = f"{name}: its report is left out: {str(error).rstrip('.')}."
            self.reader.warn(self.left_out[name])

    def _load(self, name: str) -> None:
        rows = report_rows(self.reader, name)
        self.loading = progress = {"stage": name, "rows": 0, "of": rows}
        need = self._bytes(name, rows)
        if need > 0.8 * available_memory():
            raise InputError(
                f"{rows:,} rows need about {need / 1e9:,.1f} GB of memory, and {available_memory() / 1e9:,.1f} GB are available; "
                f"corpusmill query and corpusmill stats work on the files themselves"
            )
        if not self.reader.is_report(name):
            raise InputError("it is of another version")

        def advance(done: int) -> None:
            self._go_on()
            progress["rows"] = done

        table, ids = load_stage(self.reader, self.connection, name, advance)
        self.loaded[name] = Loaded(table, texts_before(self.reader, name, ids))

    def _bytes(self, name: str, rows: int) -> int:
        """What a report takes in memory: 8 bytes a number, about 60 a text, and the arrays beside them."""
        schema = self.reader.schema(name, "report")
        columns = schema.types if schema is not None else []
        return rows * (sum(8 if str(kind) != "string" else 60 for kind in columns) + 120)

    def stage(self, name: str) -> Loaded:
        """A loaded stage. Raises Unfit where it is none of the run's, or not there yet."""
        if name in self.loaded:
            return self.loaded[name]
        if name in self.left_out:
            raise Unfit(self.left_out[name])
        if name in self.wanted and self.loading is not None:
            raise Unfit(f"{name} is still being read.", 503)
        raise Unfit(f"There is no stage {shown(name)} here (there are {', '.join(self.loaded)}).")
