"""The folder of a training and its saved states: in its stage's folder of the run, on a disk or on a store.

A state's tensors are written first and `state.json` last; to remove a state, `state.json` goes first. So files without a `state.json` are
not a state. What lies on a store has temporary copies in this machine's cache.
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
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
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


class RankFile(BaseModel):
    """One process's file of a state."""

    model_config = ConfigDict(strict=True)

    bytes: int
    sha256: str


class StateJson(BaseModel):
    """The content of a `state.json`: `record` are values saved with the state, `parallel` is the layout that saved it."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    step: int
    record: dict[str, Any]
    score: float | None
    parallel: dict[str, Any]
    ranks: Annotated[list[RankFile], Field(min_length=1)]


@dataclass(frozen=True)
class SavedState:
    """A state that lies in `storage`. `path`: where its files are read; `damage` fetches them there from a store."""

    state: StateJson
    storage: Storage
    path: Path

    @property
    def step(self) -> int:
        return self.state.step

    @property
    def score(self) -> float | None:
        return self.state.score

    @property
    def record(self) -> dict[str, Any]:
        return self.state.record

    @property
    def bytes(self) -> int:
        """The bytes of all its tensors."""
        return sum(rank.bytes for rank in self.state.ranks)

    @property
    def date(self) -> datetime:
        """The time when it was saved."""
        return datetime.fromtimestamp(self.storage.times().get(STATE) or 0.0, UTC)

    def difference(self, wanted: Mapping[str, Any]) -> str | None:
        """Returns, in words, the first of these entries that its record has not; None where all are equal."""
        return _difference("record", {key: self.record.get(key) for key in wanted}, dict(wanted))

    def damage(self, rank: int) -> str | None:
        """Returns what is wrong with this rank's file, or None. Raises InputError if a store can't be reached."""
        name, described = FILE.format(rank, len(self.state.ranks)), self.state.ranks[rank]
        path, place = self.path / name, self.storage.path(name)
        if not self.storage.remote:
            return _damage(path, described, place)
        with locked(path):
            if path.is_file() and not _damage(path, described, place):
                return None
            try:
                fetch_file(self.storage, name, path)
            except FileNotFoundError:
                return f"{place}: no such file."
            return _damage(path, described, place)


class StateFolder:
    """States as `step-00000123/`, each with a file from each process and `state.json`. Where `storage` is a store, `scratch` is the folder
    of this machine for temporary copies. The first process calls `before` just before a state becomes whole."""

    def __init__(self, storage: Storage, scratch: Path | None = None, before: Callable[[], None] = lambda: None):
        self.storage, self.before = storage, before
        self.folder = scratch or Path(storage.root)

    def saved(self) -> list[SavedState]:
        """Returns the whole states, by step."""
        return [found for name, files in self._folders().items() if STATE in files and (found := self._read(name))]

    def here(self, saved: SavedState) -> SavedState:
        """Returns a state that another process found, with the path where this process reads it."""
        return replace(saved, path=self.folder / saved.path.name)

    def remove(self, step: int) -> None:
        """Removes a state, or what is left of it. The first process calls it before any process writes, and after a failure."""
        self._remove(STEP.format(step), self._folders().get(STEP.format(step), []))

    def write(self, step: int, name: str, write: Callable[[Path], None]) -> dict[str, Any]:
        """Lets `write` make a file of a state, durably. Returns its size and sha256."""
        path = self.folder / STEP.format(step) / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CorpusmillError(f"{path.parent}: can't be written ({error.strerror}).") from error
        write(path)
        described = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        if self.storage.remote:
            publish(self.storage, f"{STEP.format(step)}/{name}", path)
            path.unlink()
        return described

    def commit(self, step: int, state: dict[str, Any]) -> None:
        """Is called by the first process when all files are written. Raises CorpusmillError if one is missing."""
        self.before()
        name, ranks = STEP.format(step), len(state["ranks"])
        for number in () if self.storage.remote else range(ranks):
            if not (self.folder / name / FILE.format(number, ranks)).is_file():
                raise CorpusmillError(f"{self.folder}: process {number} wrote elsewhere; all processes need to see the same folder.")
        self.storage.write_bytes(f"{name}/{STATE}", json.dumps(state, indent=2, sort_keys=True).encode() + b"\n")
        if self.storage.remote:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        else:
            fsync_folder(self.folder)

    def remove_before(self, step: int, kept: Collection[int]) -> None:
        """Removes everything of earlier steps, whole states or not, except of the steps `kept`."""
        names = {STEP.format(number) for number in kept}
        for name, files in self._folders().items():
            if name < STEP.format(step) and name not in names:
                self._remove(name, files)

    def _folders(self) -> dict[str, list[str]]:
        """Returns the names of the files of each step, by the name of its folder, in the order of steps."""
        found: dict[str, list[str]] = {}
        for path in self.storage.list_files():
            name, _, file = path.rpartition("/")
            if name.startswith("step-"):
                found.setdefault(name, []).append(file)
        return dict(sorted(found.items()))

    def _read(self, name: str) -> SavedState | None:
        """Returns the state in a folder; None if its `state.json` is not complete, or was removed after it was listed."""
        try:
            state = StateJson.model_validate(json.loads(self.storage.read_bytes(f"{name}/{STATE}")))
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        return SavedState(state, self.storage.child(name), self.folder / name)

    def _remove(self, name: str, files: list[str]) -> None:
        for file in sorted(files, key=lambda file: file != STATE):
            self.storage.remove(f"{name}/{file}")
        shutil.rmtree(self.folder / name, ignore_errors=True)


def _damage(path: Path, described: RankFile, name: str) -> str | None:
    try:
        if path.stat().st_size != described.bytes:
            return f"{name}: {path.stat().st_size} bytes, and {described.bytes} were written."
        return None if _sha256(path) == described.sha256 else f"{name}: its content has changed since it was written."
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
        return StateFolder(Storage(self.work).child("state"), self.folder / "state", self.keep_logs)

    def states_of(self, other: str) -> StateFolder:
        """Returns the states of another training, by its `work`, to read them. Copies from a store lie in this training's folder."""
        return StateFolder(Storage(other).child("state"), self.folder / other.rpartition("/")[2] if self.store else None)

    def others(self) -> list[str]:
        """Returns the `work` of the stage's other trainings that have saved states."""
        folder = self.work.rpartition("/")[0]
        return [work for work in trainings(Storage(folder)) if work != self.work]

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


def trainings(folder: Storage) -> list[str]:
    """Returns the paths or URLs of the trainings in a stage's folder `checkpoints` that have saved states."""
    names = {path.partition("/")[0] for path in folder.list_files() if path.endswith(f"/{STATE}")}
    return [folder.path(name) for name in sorted(names)]


def _upload(folder: Path, storage: Storage) -> None:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        publish(storage, path.relative_to(folder).as_posix(), path)


# ---- files that appear whole -------------------------------------------------------------------------


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yields a temporary folder, which becomes `target` (and replaces an old one) when the block succeeds, and is removed when it fails."""
    temporary = target.with_name(f"{TEMPORARY}{target.name}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        fsync_folder(temporary)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
        fsync_folder(target.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, CorpusmillError):
            raise InputError(f"{target}: can't be written ({error.strerror}).") from error
        raise


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
