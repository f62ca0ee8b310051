"""The runs below a path: their names, and an explorer for each run that is asked for."""

import secrets
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from corpusmill.filters.fork import next_name
from corpusmill.filters.labels import checked_name, login_name
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.memory import available_memory
from corpusmill.pipeline.names import not_a_run
from corpusmill.pipeline.storage import Storage, stays_inside
from corpusmill.report.explore.comparison import RunComparison
from corpusmill.report.explore.explorer import Explorer
from corpusmill.report.explore.parameters import BadRequest, shown
from corpusmill.report.explore.runs import RunList, run_stamp
from corpusmill.report.explore.table import LruCache
from corpusmill.report.query.sql import LEAST_MEMORY
from corpusmill.report.read import RunReader

if TYPE_CHECKING:
    from corpusmill.report.explore.jobs import ChildRun

#: Runs whose reports stay loaded, and comparisons that stay open. The one that was asked for least recently goes first.
KEPT = 4


class Console:
    """A run, or the runs in a folder or bucket. `one`: whether `path` itself is a run, whose name is then the empty string.

    A run's name is its path relative to `path`. `token`: the secret that each action must carry; None where nothing may be changed.
    `acting`: held while an action is at work. `who`: the name under which labels are given. `job`: the last command that the page has
    started. Where one run is explored, it and the forks that the page makes of it also have their folders' names. Raises InputError if
    there is no run.
    """

    def __init__(self, path: str, stage: str | None = None, write: bool = False, who: str | None = None):
        self.path, self.stage, self.storage = path, stage, Storage(path)
        self.token = secrets.token_urlsafe(32) if write else None
        self.acting = threading.Lock()
        self.who = checked_name(who, "a person's name") if who is not None else login_name()
        self.job: ChildRun | None = None
        self.runs = RunList(self.storage)
        self._explorers, self._lock = LruCache[Explorer](KEPT, drop=Explorer.stop), threading.Lock()
        self._comparisons, self._comparing = LruCache[RunComparison](KEPT, drop=RunComparison.close), threading.Lock()
        self._scratch = tempfile.TemporaryDirectory(prefix="corpusmill-explore-")
        try:
            RunReader(path)
            self.one = True
        except InputError:
            self.one = False
            if not self.runs.names():
                raise InputError(not_a_run(path)) from None
        self._beside = {Path(Storage(path).absolute).resolve().name: path} if self.one else {}
        if self.one:
            self.explorer("")

    @property
    def scratch(self) -> str:
        """A folder that only this user can read. It is removed at the end."""
        return self._scratch.name

    def folder(self, name: str) -> str:
        """Returns the folder of a run by its name. Raises BadRequest if there is none below `path`; links are not followed."""
        if self.one and name == "":
            return self.path
        if name in self._beside and Storage(self._beside[name]).exists("run.json"):
            return self._beside[name]
        inside = not self.one and stays_inside(name) and (self.storage.remote or self._is_no_link(name))
        if not inside or not self.storage.exists(f"{name}/run.json"):
            raise BadRequest(f"There is no run {shown(name)} here." if name else "Say which run is meant.", 404)
        return self.storage.path(name)

    def name(self, name: str) -> str:
        """Returns a run's name, where one run is explored the name of its folder."""
        return name or next(iter(self._beside), "")

    def beside(self, name: str, new: str) -> tuple[str, str]:
        """Returns the name and the folder of a new run beside a run. `new`: the name of its folder; empty: the next free one."""
        free = next_name(self.folder(name))
        folder = free.removesuffix(free.rpartition("/")[2]) + new if new else free
        if self.one:
            self._beside[folder.rpartition("/")[2]] = folder
            return folder.rpartition("/")[2], folder
        return folder.removeprefix(f"{self.storage.root}/"), folder

    def _is_no_link(self, name: str) -> bool:
        place = Path(self.storage.root).resolve() / name
        return place.resolve() == place

    def explorer(self, name: str) -> Explorer:
        """Returns the explorer of a run; the first call makes it, and its reports are then loaded in a thread. Raises BadRequest."""
        with self._lock:
            return self._explorers.get(name, lambda: self._made(name))

    def _made(self, name: str) -> Explorer:
        try:
            memory = max(LEAST_MEMORY, available_memory() // (2 if self.one else 2 * KEPT))
            explorer = Explorer(self.folder(name), self.stage, self.scratch, memory)
        except CorpusmillError as error:
            if self.one:
                raise
            raise BadRequest(str(error), 404) from error
        explorer.loader.start()
        return explorer

    def comparison(self, a: str, b: str) -> RunComparison:
        """Returns the comparison of two runs; the first call matches their documents. Raises BadRequest or InputError."""
        folders = [self.folder(name) for name in (a, b)]
        key = "\0".join([a, b, *(run_stamp(Storage(folder)) for folder in folders)])
        with self._comparing:
            return self._comparisons.get(key, lambda: RunComparison(*folders))

    def forget(self, name: str) -> None:
        """Drops the explorer of a run that an action has changed: the next question loads it again."""
        self._explorers.forget(name)

    def stop(self) -> None:
        """Ends the loading of all runs and the command that the page has started, and removes the temporary files."""
        if self.job is not None:
            self.job.close()
        self._explorers.clear()
        self._comparisons.clear()
        self._scratch.cleanup()
