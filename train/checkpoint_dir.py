"""The folder of a training and its saved states: in its stage's folder of the run, or on a store with copies in this machine's cache.

On a disk, a state is written under a temporary name and then renamed. On a store, its files are uploaded first and `state.json` last; to
remove a state, `state.json` goes first. So files without a `state.json` are not a state.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from corpusmill.pipeline.cache import cache_folder, fetch_file, forget_model, locked
from corpusmill.pipeline.config import digest
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.shards import publish
from corpusmill.pipeline.storage import TEMPORARY, Storage, fsync_folder, is_remote

if TYPE_CHECKING:
    from corpusmill.pipeline.runner import StageRun
    from corpusmill.train.parallel.dims import ParallelDims


# ---- saved states ------------------------------------------------------------------------------------

STEP = "step-{:08d}"
FILE = "shard-{:05d}-of-{:05d}.safetensors"
STATE = "state.json"


@dataclass(frozen=True)
class SavedState:
    """A state after `step` steps. `record`: values saved with it; `ranks`: each rank's file and random generators; `parallel`: the layout
    that saved it. `path`: where its files are read. If they lie on a `store`, `damage` fetches them there."""

    path: Path
    step: int
    record: dict[str, Any]
    score: float | None
    parallel: dict[str, Any]
    ranks: list[dict[str, Any]]
    store: Storage | None = None

    @classmethod
    def read(cls, content: bytes, path: Path, store: Storage | None = None) -> "SavedState | None":
        """Returns the state that a `state.json` describes; None if the file is not complete."""
        try:
            state = json.loads(content)
            found = cls(path, **{key: state[key] for key in ("step", "record", "score", "parallel", "ranks")}, store=store)
            found._check()
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        return found

    def _check(self) -> None:
        """Raises ValueError, KeyError or TypeError if a field is missing or has another type."""
        kinds: list[tuple[Any, Any]] = [
            (self.step, int), (self.record, dict), (self.score, float | int | None), (self.parallel, dict), (self.ranks, list)
        ]  # fmt: skip
        kinds += [(rank[name], kind) for rank in self.ranks for name, kind in (("bytes", int), ("sha256", str), ("random", dict))]
        if not self.ranks or not all(isinstance(value, kind) for value, kind in kinds):
            raise ValueError("a value is of another kind")

    @property
    def place(self) -> str:
        """The state's path or URL."""
        return self.store.root if self.store else str(self.path)

    @property
    def bytes(self) -> int:
        """The bytes of all its tensors."""
        return sum(rank["bytes"] for rank in self.ranks)

    @property
    def date(self) -> datetime:
        """The time when it was saved."""
        time = self.store.times().get(STATE) if self.store else (self.path / STATE).stat().st_mtime
        return datetime.fromtimestamp(time or 0.0, UTC)

    def require(self, wanted: Mapping[str, Any]) -> None:
        """Raises InputError if the record differs in these entries."""
        for key, value in wanted.items():
            if difference := _difference(key, self.record.get(key), value):
                raise InputError(f"{self.place}: holds the state of another configuration ({difference}); remove it to begin anew.")

    def damage(self, rank: int) -> str | None:
        """Returns what is wrong with this rank's file, or None. Raises InputError if a store can't be reached."""
        name, described = FILE.format(rank, len(self.ranks)), self.ranks[rank]
        if self.store:
            with locked(self.path / name):
                return self._fetched(self.store, name, described)
        return _damage(self.path / name, described, str(self.path / name))

    def _fetched(self, store: Storage, name: str, described: Mapping[str, Any]) -> str | None:
        """Fetches a file from the store, unless a whole copy is here. Returns what is wrong with it, or None."""
        path, url = self.path / name, store.path(name)
        if path.is_file() and not _damage(path, described, url):
            return None
        try:
            fetch_file(store, name, path)
        except FileNotFoundError:
            return f"{url}: no such file."
        return _damage(path, described, url)


class StateFolder:
    """States as `folder/step-00000123/` on a disk that all processes see, each with a file from each process and `state.json`."""

    store: Storage | None = None

    def __init__(self, folder: Path):
        self.folder = folder

    def saved(self) -> list[SavedState]:
        """Returns the whole states, by step."""
        found = []
        for path in sorted(self.folder.glob("step-*")):
            try:
                found.append(SavedState.read((path / STATE).read_bytes(), path))
            except OSError:
                continue
        return [state for state in found if state]

    def here(self, saved: SavedState) -> SavedState:
        """Returns a state that another process found, with the path where this process reads it."""
        return saved

    def loaded(self, saved: SavedState) -> None:
        """Is called when all processes have loaded a state."""

    def tidy(self) -> None:
        """Removes the files of processes that were killed while they saved."""
        for left in self.folder.glob(f"{TEMPORARY}*"):
            shutil.rmtree(left, ignore_errors=True)

    def begin(self, step: int) -> None:
        """Is called by the first process before any process writes a file of this state."""

    def write(self, step: int, name: str, write: Callable[[Path], None]) -> dict[str, Any]:
        """Lets `write` make a file of a state, durably. Returns its size and sha256."""
        path = self._temporary(step) / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CorpusmillError(f"{self._target(step)}: can't be written ({error.strerror}).") from error
        write(path)
        return {"bytes": path.stat().st_size, "sha256": _sha256(path)}

    def commit(self, step: int, state: dict[str, Any]) -> None:
        """Is called by the first process when all files are written. Raises CorpusmillError if one is missing."""
        temporary = self._temporary(step)
        for number in range(len(state["ranks"])):
            if not (temporary / FILE.format(number, len(state["ranks"]))).is_file():
                raise CorpusmillError(f"{self.folder}: process {number} wrote elsewhere; all processes need to see the same folder.")
        write_json(temporary / STATE, state)
        finish_folder(temporary, self._target(step))

    def discard(self, step: int) -> None:
        """Removes the files of a state that were written since `begin`."""
        shutil.rmtree(self._temporary(step), ignore_errors=True)

    def remove_before(self, step: int, kept: Collection[int]) -> None:
        """Removes everything of earlier steps, whole states or not, except of the steps `kept`."""
        names = {STEP.format(number) for number in kept}
        for path in self.folder.glob("step-*"):
            if path.name < STEP.format(step) and path.name not in names:
                shutil.rmtree(path, ignore_errors=True)

    def _target(self, step: int) -> Path:
        return self.folder / STEP.format(step)

    def _temporary(self, step: int) -> Path:
        return temporary_folder(self._target(step))


class StateStore(StateFolder):
    """States on a store; `folder` on this machine has temporary copies of their files. The first process calls `before` just before a
    state becomes whole."""

    store: Storage

    def __init__(self, store: Storage, folder: Path, before: Callable[[], None]):
        super().__init__(folder)
        self.store, self.before = store, before

    def saved(self) -> list[SavedState]:
        return [saved for name, files in self._folders().items() if STATE in files and (saved := self._read(name))]

    def here(self, saved: SavedState) -> SavedState:
        return replace(saved, path=self.folder / STEP.format(saved.step))

    def loaded(self, saved: SavedState) -> None:
        shutil.rmtree(saved.path, ignore_errors=True)

    def begin(self, step: int) -> None:
        self._remove(STEP.format(step), self._folders().get(STEP.format(step), []))

    def write(self, step: int, name: str, write: Callable[[Path], None]) -> dict[str, Any]:
        described = super().write(step, name, write)
        path = self._temporary(step) / name
        publish(self.store, f"{STEP.format(step)}/{name}", path)
        path.unlink()
        return described

    def commit(self, step: int, state: dict[str, Any]) -> None:
        self.before()
        content = json.dumps(state, indent=2, sort_keys=True).encode() + b"\n"
        self.store.write_bytes(f"{STEP.format(step)}/{STATE}", content)
        shutil.rmtree(self._temporary(step), ignore_errors=True)

    def remove_before(self, step: int, kept: Collection[int]) -> None:
        names = {STEP.format(number) for number in kept}
        for name, files in self._folders().items():
            if name < STEP.format(step) and name not in names:
                self._remove(name, files)

    def _folders(self) -> dict[str, list[str]]:
        """Returns the names of the files of each step, by the name of its folder, in the order of steps."""
        found: dict[str, list[str]] = {}
        for path in self.store.list_files():
            name, _, file = path.rpartition("/")
            if name.startswith("step-"):
                found.setdefault(name, []).append(file)
        return dict(sorted(found.items()))

    def _read(self, name: str) -> SavedState | None:
        try:
            return SavedState.read(self.store.read_bytes(f"{name}/{STATE}"), self.folder / name, self.store.child(name))
        except FileNotFoundError:  # it was removed after it was listed
            return None

    def _remove(self, name: str, files: list[str]) -> None:
        for file in sorted(files, key=lambda file: file != STATE):
            self.store.remove(f"{name}/{file}")


def _damage(path: Path, described: Mapping[str, Any], name: str) -> str | None:
    try:
        if path.stat().st_size != described["bytes"]:
            return f"{name}: {path.stat().st_size} bytes, and {described['bytes']} were written."
        return None if _sha256(path) == described["sha256"] else f"{name}: its content has changed since it was written."
    except OSError as error:
        return f"{name}: can't be read ({error.strerror})."


def _difference(name: str, saved: Any, wanted: Any) -> str | None:
    """Returns the first value that differs, in words; None if all are equal."""
    if isinstance(saved, dict) and isinstance(wanted, dict):
        found = (_difference(f"{name}.{key}", saved.get(key), wanted.get(key)) for key in sorted(saved.keys() | wanted.keys()))
        return next(filter(None, found), None)
    return None if saved == wanted else f"{name} was {json.dumps(saved)} and is {json.dumps(wanted)}"


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- the folder of a training ------------------------------------------------------------------------
#
# Where the run lies on a store, the store gets all that a training needs to resume on another machine: its saved states, its logs with
# each state, and the tokenizer, which turns a state into a model folder. The copy on a machine is scratch space that may be lost.

#: The log with a line for each training step, within the stage's folder.
LOG = "logs/train.jsonl"
#: In the cache: holds one folder for each training whose run lies on a store.
SCRATCH = "training"
#: Folders that a training writes for its stage to publish.
LEFT = ("adapter", "model")
#: The model that a training starts from, if it is its parent with added tokens; exists during the training.
START = "start"


@dataclass(frozen=True)
class CheckpointDir:
    """The folders of a training: `work` is RUN/STAGE/checkpoints/TRAINING, `log` is RUN/STAGE/logs/train.jsonl; paths or URLs that are the
    same for all processes."""

    work: str
    log: str

    @classmethod
    def of(cls, run: "StageRun", identity: str) -> "CheckpointDir":
        """Returns the folder of a training task, by the task's identity."""
        return cls(run.storage.path(f"checkpoints/{identity[:16]}"), run.storage.path(LOG))

    @cached_property
    def store(self) -> Storage | None:
        """The training's folder on the store; None if the run lies on a disk."""
        return Storage(self.work) if is_remote(self.work) else None

    @property
    def folder(self) -> Path:
        """The folder where this machine's processes work on the training."""
        return cache_folder() / SCRATCH / digest(self.work)[:16] if self.store else Path(self.work)

    @property
    def processes(self) -> Path:
        """The folder where this machine's processes leave results, errors and logs."""
        return self.folder.with_name(f"{self.folder.name}-processes") if self.store else self.folder / "processes"

    @property
    def log_file(self) -> Path:
        """The log of steps; the other logs are in the same folder."""
        return self.folder / "logs" / Path(self.log).name if self.store else Path(self.log)

    @property
    def states(self) -> StateFolder:
        folder = self.folder / "state"
        return StateStore(self.store.child("state"), folder, self.keep_logs) if self.store else StateFolder(folder)

    def begin(self, tokenizer: Mapping[str, bytes]) -> None:
        """Prepares the folder; called by the first process before it trains. Saves the tokenizer, without which a saved state makes no
        model folder, and fetches the logs of earlier steps from the store."""
        with new_folder(self.folder / "tokenizer") as temporary:
            for name, content in sorted(tokenizer.items()):
                write_file(temporary / name, content)
        self.keep("tokenizer")
        if not self.store:
            return
        shutil.rmtree(self.log_file.parent, ignore_errors=True)
        for name in self._logs.list_files():
            fetch_file(self._logs, name, self.log_file.parent / name)

    def keep_logs(self) -> None:
        """Uploads the logs to the store. Raises CorpusmillError if they were removed meanwhile."""
        if self.store and not self.log_file.is_file():
            raise CorpusmillError(f"{self.log_file}: was removed while the training writes its log there.")
        if self.store:
            _upload(self.log_file.parent, self._logs)

    def keep(self, name: str) -> None:
        """Uploads a folder of the working folder to the store."""
        if self.store:
            _upload(self.folder / name, self.store.child(name))

    def leave(self, dims: "ParallelDims") -> None:
        """Is called by all processes after the first has written the files that the stage publishes.

        With several processes the stage may run on another machine, so the files are uploaded to the store and removed here. The logs are
        uploaded once more, as trackers write until they are closed, after the last state.
        """
        if dims.is_main:
            self.keep_logs()
        for name in LEFT if dims.is_main and dims.world > 1 else ():
            self.keep(name)
        dims.barrier()
        if dims.world > 1:
            self.clear()

    def left(self) -> list[Path]:
        """Returns the files to publish. Files from another machine are fetched, and removed from the store."""
        for name in LEFT if self.store else ():
            assert self.store
            for path in self.store.list_files(name):
                fetch_file(self.store, path, self.folder / path)
            self.store.remove_folder(name)
        return [path for name in LEFT for path in sorted((self.folder / name).glob("*"))]

    def clear(self) -> None:
        """Removes this machine's copy of a training whose run lies on a store."""
        if self.store:
            shutil.rmtree(self.folder, ignore_errors=True)
            forget_model(self.store.path(START))

    @property
    def _logs(self) -> Storage:
        return Storage(self.log.rpartition("/")[0])


def _upload(folder: Path, storage: Storage) -> None:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        publish(storage, path.relative_to(folder).as_posix(), path)


# ---- files that appear whole -------------------------------------------------------------------------


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yields a temporary folder, which becomes `target` (and replaces an old one) when the block succeeds, and is removed when it fails."""
    temporary = temporary_folder(target)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{target}: can't be written ({error.strerror}).") from error
    try:
        yield temporary
        finish_folder(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def temporary_folder(target: Path) -> Path:
    """Returns the folder in which the future `target` is written."""
    return target.with_name(f"{TEMPORARY}{target.name}")


def finish_folder(temporary: Path, target: Path) -> None:
    """Renames the temporary folder to `target`, durably."""
    try:
        fsync_folder(temporary)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
        fsync_folder(target.parent)
    except OSError as error:
        raise CorpusmillError(f"{target}: can't be written ({error.strerror}).") from error


def write_file(path: Path, content: bytes) -> None:
    try:
        with open(path, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CorpusmillError(f"{path}: can't be written ({error.strerror}).") from error


def write_json(path: Path, value: Any) -> None:
    write_file(path, json.dumps(value, indent=2, sort_keys=True).encode() + b"\n")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: tuple[str, str] = ("format", "pt")) -> None:
    """Writes a safetensors file with one metadata entry. With several, their order would vary, and equal tensors would get other bytes."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        path.touch()
        mode = path.stat().st_mode  # safetensors makes files that only their owner can read
        save_file(ready, path, metadata=dict([metadata]))
        path.chmod(mode)
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
    except (OSError, SafetensorError) as error:
        raise CorpusmillError(f"{path}: can't be written ({first_line(error)}).") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file.") from error
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a whole safetensors file, perhaps cut short ({first_line(error)}).") from error


def first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")
