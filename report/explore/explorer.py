"""Loads a run's reports while the page is already open."""

import tempfile
import threading
import time
from typing import Any

import duckdb

from corpusmill.filters.labels import LabelFile
from corpusmill.filters.places import measure_again
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.log import LOG
from corpusmill.report.explore.load import load_stage
from corpusmill.report.explore.parameters import BadRequest, shown
from corpusmill.report.explore.selection import Loaded
from corpusmill.report.explore.table import KEPT_BYTES
from corpusmill.report.live.status import Status
from corpusmill.report.query.run import Run
from corpusmill.report.read import DATA_STAGES, RunReader

#: Stages with a row for each document.
EXPLORED = (*DATA_STAGES, "tokens")
#: Settings by which queries reach no file; they can't be changed later.
CLOSED = {"enable_external_access": "false", "lock_configuration": "true"}


class Stopped(Exception):
    """Raised in the loading thread when the explorer ends."""


class Explorer:
    """The reports of a run in DuckDB. Raises InputError if the folder is not a run, or no stage has a report.

    `scratch`: a folder of this user alone, in which DuckDB keeps what exceeds `memory` (bytes).
    """

    def __init__(self, folder: str, stage: str | None, scratch: str, memory: int):
        self.reader = RunReader(folder)
        self.folder = folder
        self.present = [name for name in EXPLORED if self.reader.stages[name].outputs("report/")]
        self.reader.require_report(stage, self.present)
        self.wanted = [stage] if stage else sorted(self.present, key=lambda name: name != "filter")
        self.loaded: dict[str, Loaded] = {}
        self.left_out: dict[str, str] = {}
        self.loading: dict[str, Any] | None = {"stage": self.wanted[0], "rows": 0, "of": 0}
        self.seconds = 0.0
        self.stopped = threading.Event()
        self.memory = memory
        self.cache = min(KEPT_BYTES, memory // 8)
        self.spill = tempfile.TemporaryDirectory(dir=scratch)
        kept = {"temp_directory": self.spill.name, "memory_limit": f"{memory >> 20} MiB"}
        self.connection = duckdb.connect(":memory:", config={**CLOSED, **kept})
        self.status, self.status_lock = Status(folder), threading.Lock()
        self.labels = LabelFile(Storage(folder))
        forked = (row.get("fields") for row in self.reader.json_lines(LOG) if row.get("event") == "forked")
        self.parent = next((str(fields["parent"]) for fields in forked if isinstance(fields, dict) and "parent" in fields), None)
        self.loader = threading.Thread(target=self.load, daemon=True)

    def load(self) -> None:
        """Loads the stages one after the other; then finds the places of texts and the orders that the page may ask for."""
        started = time.monotonic()
        try:
            with Run(self.reader, memory=self.memory) as run:
                for name in self.wanted:
                    self._load_or_leave_out(run, name)
            self.loading, self.seconds = None, time.monotonic() - started
            for loaded in list(self.loaded.values()):
                self._go_on()
                loaded.texts()
            for loaded in list(self.loaded.values()):
                loaded.orders.prepare(self._go_on)
                loaded.table.random_order  # noqa: B018 - found now, so that no question for documents to label waits for it
            self._go_on()
            list(measure_again(self.reader.settings("filter"), "A line.", {}))  # loads the kernels that the first marks need
        except Stopped:
            pass  # the server ends, so nobody asks for the rest
        except Exception as error:  # noqa: BLE001 - the last boundary of a thread: the page must not wait for what never comes
            self.reader.warn(f"internal error while the reports were loaded ({type(error).__name__}: {error}).")
        finally:
            self.loading = None

    def stop(self) -> None:
        """Ends the loading, if it still runs."""
        self.stopped.set()

    def _go_on(self) -> None:
        if self.stopped.is_set():
            raise Stopped

    def _load_or_leave_out(self, run: Run, name: str) -> None:
        try:
            self._load(run, name)
        except (CorpusmillError, OSError, ValueError, duckdb.Error) as error:
            self.left_out[name] = f"{name}: its report is left out: {str(error).rstrip('.')}."
            self.reader.warn(self.left_out[name])

    def _load(self, run: Run, name: str) -> None:
        rows = run.rows(f"SELECT count(*) FROM {name}_report")[0][0] if f"{name}_report" in run.tables else 0
        self.loading = progress = {"stage": name, "rows": 0, "of": rows}
        if not self.reader.is_report(name):
            raise InputError("none of its shards is a report that this version can read")

        def advance(done: int) -> None:
            self._go_on()
            progress["rows"] = done

        table = load_stage(run, self.connection, name, advance, self.cache)
        self.loaded[name] = Loaded(self.reader, table)

    def stage(self, name: str) -> Loaded:
        """Returns a loaded stage. Raises BadRequest if the run lacks it, or it is not loaded yet."""
        if name in self.loaded:
            return self.loaded[name]
        if name in self.left_out:
            raise BadRequest(self.left_out[name])
        if name in self.wanted and self.loading is not None:
            raise BadRequest(f"{name} is still being read.", 503)
        raise BadRequest(f"There is no stage {shown(name)} here (there are {', '.join(self.loaded)}).")

    def row(self, key: str) -> tuple[Loaded, int]:
        """Returns the loaded stage and the row that a document's key names (`filter/12`). Raises BadRequest if there is no such row."""
        stage, _, digits = key.partition("/")
        loaded = self.stage(stage)
        if not digits.isascii() or not digits.isdigit() or int(digits) >= loaded.table.rows:
            raise BadRequest(f"There is no document {shown(key)}.", 404)
        return loaded, int(digits)
