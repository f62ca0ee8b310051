"""Where a training works: in its stage's folder of the run, or where the run lies on a store, in a folder of this machine's cache.

A store gets what a training goes on from on another machine: its saved states (`state_folder.py`), its logs with each state, and what
makes a state a model folder. What a machine has of it is a scratch, which nobody misses.
"""

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from corpusmill.pipeline.cache import cache_folder, fetch_file, forget_model
from corpusmill.pipeline.config import digest
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.shards import publish
from corpusmill.pipeline.storage import Storage, is_remote
from corpusmill.train.state_folder import StateFolder, StateStore

if TYPE_CHECKING:
    from corpusmill.pipeline.runner import StageRun
    from corpusmill.train.parallel.layout import Layout

#: Where the lines of a training's steps lie in its stage's folder.
LOG = "logs/train.jsonl"
#: In the cache: a folder a training whose run lies on a store.
SCRATCH = "training"
#: What a training leaves for its stage to publish.
LEFT = ("adapter", "model")
#: For the time of a training: the model that it starts from, where that is a parent with more tokens.
START = "start"


@dataclass(frozen=True)
class Workplace:
    """`work` is RUN/STAGE/checkpoints/TRAINING and `log` RUN/STAGE/logs/train.jsonl, paths or URLs as all processes know them."""

    work: str
    log: str

    @classmethod
    def of(cls, run: "StageRun", identity: str) -> "Workplace":
        """That of a task that trains, by its identity."""
        return cls(run.storage.path(f"checkpoints/{identity[:16]}"), run.storage.path(LOG))

    @cached_property
    def store(self) -> Storage | None:
        """The training's folder on the store; None where the run lies on a disk."""
        return Storage(self.work) if is_remote(self.work) else None

    @property
    def folder(self) -> Path:
        """Where this machine's processes work on the training."""
        return cache_folder() / SCRATCH / digest(self.work)[:16] if self.store else Path(self.work)

    @property
    def processes(self) -> Path:
        """Where the processes of this machine leave what they say."""
        return self.folder.with_name(f"{self.folder.name}-processes") if self.store else self.folder / "processes"

    @property
    def log_file(self) -> Path:
        """The log that is written here; those of other names stand beside it."""
        return self.folder / "logs" / Path(self.log).name if self.store else Path(self.log)

    @property
    def states(self) -> StateFolder:
        folder = self.folder / "state"
        return StateStore(self.store.child("state"), folder, self.keep_logs) if self.store else StateFolder(folder)

    # ---- what a store keeps -----------------------------------------------------------------------------

    def fetch_logs(self) -> None:
        """Takes the logs over that the store has: for the first process, before it goes on."""
        if not self.store:
            return
        shutil.rmtree(self.log_file.parent, ignore_errors=True)
        for name in self._logs.list_files():
            fetch_file(self._logs, name, self.log_file.parent / name)

    def keep_logs(self) -> None:
        """Brings the logs to the store as they are now. Raises CorpusmillError where somebody has removed them."""
        if self.store and not self.log_file.is_file():
            raise CorpusmillError(f"{self.log_file}: is gone, though the training writes its log there.")
        if self.store:
            _upload(self.log_file.parent, self._logs)

    def keep(self, name: str) -> None:
        """Brings a folder of the working folder to the store."""
        if self.store:
            _upload(self.folder / name, self.store.child(name))

    def leave(self, layout: "Layout") -> None:
        """Called by all processes when the first has made what is published. Where there are several, whoever publishes it may be on
        another machine, so it goes to the store, and nothing stays here. The logs go there once more, as trackers write until they are
        closed, after the last state."""
        if layout.is_main:
            self.keep_logs()
        for name in LEFT if layout.is_main and layout.world > 1 else ():
            self.keep(name)
        layout.barrier()
        if layout.world > 1:
            self.clear()

    def left(self) -> list[Path]:
        """The files that the training has left, here; those that another machine made are fetched, and leave the store."""
        for name in LEFT if self.store else ():
            assert self.store
            for path in self.store.list_files(name):
                fetch_file(self.store, path, self.folder / path)
            self.store.remove_folder(name)
        return [path for name in LEFT for path in sorted((self.folder / name).glob("*"))]

    def clear(self) -> None:
        """Removes what this machine has of a training whose run lies on a store."""
        if self.store:
            shutil.rmtree(self.folder, ignore_errors=True)
            forget_model(self.store.path(START))

    @property
    def _logs(self) -> Storage:
        return Storage(self.log.rpartition("/")[0])


def _upload(folder: Path, storage: Storage) -> None:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        publish(storage, path.relative_to(folder).as_posix(), path)
