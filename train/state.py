"""The training states from which a run goes on bit by bit: safetensors and JSON, nothing is pickled.

Every rank writes one file into a temporary folder; when all are whole on the disk, the first rank writes `state.json` and renames the
folder. That is done in a thread beside the training, which waits only while its tensors are copied. The thread's collectives have a
process group of their own, so they can't be mixed with the training's.
"""

import base64
import copy
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.storage import TEMPORARY
from corpusmill.train.files import finish_folder, temporary_folder, write_json
from corpusmill.train.parallel.layout import Layout
from corpusmill.train.pieces import Pieces, read_into, read_named

STEP = "step-{:08d}"
FILE = "shard-{:05d}-of-{:05d}.safetensors"
STATE = "state.json"
MODEL = "model/"

T = TypeVar("T")


@dataclass(frozen=True)
class Saved:
    """A state on the disk, after `step` steps. `record` is what was saved with it; `ranks` describes each rank's file and its
    generators of random numbers; `parallel` is the layout that it was saved from."""

    path: Path
    step: int
    record: dict[str, Any]
    score: float | None
    parallel: dict[str, Any]
    ranks: list[dict[str, Any]]

    @property
    def bytes(self) -> int:
        """Of all its tensors."""
        return sum(rank["bytes"] for rank in self.ranks)

    def require(self, wanted: Mapping[str, Any]) -> None:
        """Raises InputError where these entries of the record are others."""
        for key, value in wanted.items():
            if difference := _difference(key, self.record.get(key), value):
                raise InputError(f"{self.path}: holds the state of another configuration ({difference}); remove it to begin anew.")

    def damage(self, rank: int) -> str | None:
        """What is wrong with the file of this rank, if anything is."""
        path, described = self.path / FILE.format(rank, len(self.ranks)), self.ranks[rank]
        try:
            if path.stat().st_size != described["bytes"]:
                return f"{path}: {path.stat().st_size} bytes, and {described['bytes']} were written."
            return None if _sha256(path) == described["sha256"] else f"{path}: its content has changed since it was written."
        except OSError as error:
            return f"{path}: can't be read ({error.strerror})."


def saved_states(folder: Path) -> list[Saved]:
    """The states in `folder` by step; ones whose `state.json` is not whole are left out."""
    found = []
    for path in sorted(folder.glob("step-*")):
        try:
            state = json.loads((path / STATE).read_bytes())
            saved = Saved(path, **{key: state[key] for key in ("step", "record", "score", "parallel", "ranks")})
            _check(saved)
            found.append(saved)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return found


def _check(saved: Saved) -> None:
    """Raises ValueError, KeyError or TypeError where it is not what `save` writes."""
    kinds = [(saved.step, int), (saved.record, dict), (saved.score, float | int | None), (saved.parallel, dict), (saved.ranks, list)]
    kinds += [(rank[name], kind) for rank in saved.ranks for name, kind in (("bytes", int), ("sha256", str), ("random", dict))]
    if not saved.ranks or not all(isinstance(value, kind) for value, kind in kinds):
        raise ValueError("a value is of another kind")
    for rank in saved.ranks:
        _ = [_tensor(text) for text in {"cpu": rank["random"]["cpu"], **rank["random"]}.values()]


class States:
    """The saved states of one training: `folder/step-00000123`, each of which appears whole or not at all.

    All ranks call the same methods in the same order; what fails on one is raised on all. With `background`, `save` returns when the
    tensors are copied; what fails later is raised by the next call of `save` or `finish`. As a context, it ends when all is written.
    """

    def __init__(self, folder: Path, layout: Layout, keep: int = 2, keep_best: int = 0, background: bool = False):
        self.folder, self.layout, self.keep, self.keep_best = folder, layout, keep, keep_best
        self.group = dist.new_group(backend="gloo") if layout.world > 1 else None
        self.thread = ThreadPoolExecutor(1, "state") if background else None
        self.writing: Future[None] | None = None
        self.pieces: Pieces | None = None

    def __enter__(self) -> "States":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.thread:
            self.thread.shutdown()
        if kind is None:
            self.finish()

    def save(self, step: int, tensors: Mapping[str, Tensor], record: dict[str, Any], score: float | None = None) -> None:
        """Saves the state after `step` steps. `record` is JSON; floats come back bit by bit. The lower a `score`, the better.

        Raises CorpusmillError, with the states before it intact.
        """
        self.finish()
        if self.pieces is None:
            self.pieces = Pieces(tensors, self.layout.rank, lambda plan: self._together(lambda: plan))
        record = copy.deepcopy(record)  # the training goes on while it is written
        state = {"step": step, "record": record, "score": score, "parallel": self.layout.config.model_dump(mode="json")}
        taken = self.pieces.copied(tensors) if self.thread else self.pieces.of(tensors)
        job = partial(self._write, self.pieces, taken, self._random(), state)
        if self.thread:
            self.writing = self.thread.submit(job)
        else:
            job()

    def finish(self) -> None:
        """Waits for what is being written. Raises CorpusmillError where that fails."""
        if self.writing:
            writing, self.writing = self.writing, None
            writing.result()

    def latest(self) -> Saved | None:
        """The latest whole state; None where there is none.

        One that is damaged is passed over for the one before it: redoing its steps gives the same bits.
        """
        return self._first_whole(lambda: list(reversed(saved_states(self.folder))))

    def best(self) -> Saved | None:
        """The whole state with the lowest score; None where none has a score."""
        return self._first_whole(lambda: sorted((s for s in saved_states(self.folder) if s.score is not None), key=_rank_of))

    def load(self, saved: Saved, tensors: Mapping[str, Tensor]) -> None:
        """Fills `tensors` in place, and takes over this rank's generators of random numbers where there was such a rank. Raises
        InputError where the state has other tensors, or of another shape."""
        self.finish()
        everywhere = set[str]().union(*self._together(lambda: set(tensors)))
        self._together(lambda: read_into(saved.path, tensors, everywhere))
        if self.layout.rank < len(saved.ranks):
            random = {name: _tensor(text) for name, text in saved.ranks[self.layout.rank]["random"].items()}
            try:
                torch.set_rng_state(random["cpu"])
            except (RuntimeError, TypeError) as error:
                raise InputError(f"{saved.path}: its generator of random numbers is no state of one ({error}).") from error
            if self.layout.device.type == "cuda" and "cuda" in random:
                torch.cuda.set_rng_state(random["cuda"], self.layout.device)

    def load_weights(self, saved: Saved, parameters: Mapping[str, Tensor]) -> None:
        """Fills `parameters` in place with the state's weights, and leaves all else as it is."""
        self._together(lambda: read_into(saved.path, {MODEL + name: p for name, p in parameters.items()}, None))

    # ---- what is done ---------------------------------------------------------------------------------

    def _together(self, work: Callable[[], T]) -> list[T]:
        """Does `work` on every rank; returns all results in the order of ranks, or raises the first failure on every rank."""
        result: tuple[Any, CorpusmillError | None]
        try:
            result = work(), None
        except CorpusmillError as failure:
            result = None, failure
        except Exception as failure:
            if self.layout.world == 1:
                raise
            result = None, CorpusmillError(f"process {self.layout.rank} of {self.layout.world}: {type(failure).__name__}: {failure}")
        results: list[tuple[Any, CorpusmillError | None]] = [result] * self.layout.world
        if self.layout.world > 1:
            dist.all_gather_object(results, result, group=self.group)
        for _, error in results:
            if error is not None:
                raise error
        return [value for value, _ in results]

    def _write(self, pieces: Pieces, taken: Mapping[str, Tensor], random: dict[str, str], state: dict[str, Any]) -> None:
        target = self.folder / STEP.format(state["step"])
        temporary = temporary_folder(target)

        def write() -> dict[str, Any]:
            try:
                temporary.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise CorpusmillError(f"{target}: can't be written ({error.strerror}).") from error
            path = temporary / FILE.format(self.layout.rank, self.layout.world)
            pieces.write(path, taken)
            return {"bytes": path.stat().st_size, "sha256": _sha256(path), "random": random}

        try:
            ranks = self._together(write)
            self._together(lambda: self._commit(temporary, target, {**state, "ranks": ranks}) if self.layout.is_main else None)
        except BaseException:
            if self.layout.is_main:
                shutil.rmtree(temporary, ignore_errors=True)
            raise

    def _commit(self, temporary: Path, target: Path, state: dict[str, Any]) -> None:
        for number in range(self.layout.world):
            if not (temporary / FILE.format(number, self.layout.world)).is_file():
                raise CorpusmillError(f"{self.folder}: process {number} wrote elsewhere; all processes need to see the same folder.")
        write_json(temporary / STATE, state)
        finish_folder(temporary, target)
        self._prune(state["step"])

    def _prune(self, step: int) -> None:
        """Removes what neither `keep` nor `keep_best` holds; later steps than the saved one's are damaged and will be written again."""
        found = [saved for saved in saved_states(self.folder) if saved.step <= step]
        scored = sorted((saved for saved in found if saved.score is not None), key=_rank_of)
        kept = {saved.path for saved in [*found[-self.keep :], *scored[: self.keep_best]]}
        for path in self.folder.glob("step-*"):
            if path not in kept and path.name < STEP.format(step):
                shutil.rmtree(path, ignore_errors=True)

    def _first_whole(self, candidates: Callable[[], list[Saved]]) -> Saved | None:
        """The first of the first rank's candidates whose files all are whole; the ranks share out the checking."""

        def tidy() -> list[Saved]:
            for left in self.folder.glob(f"{TEMPORARY}*"):  # by a process that was killed while it saved
                shutil.rmtree(left, ignore_errors=True)
            return candidates()

        self.finish()
        rank, world = self.layout.rank, self.layout.world
        for saved in self._together(lambda: tidy() if self.layout.is_main else [])[0]:
            mine = range(rank, len(saved.ranks), world)
            if all(self._together(lambda s=saved, mine=mine: not any(map(s.damage, mine)))):  # type: ignore[misc]
                return saved
        return None

    def _random(self) -> dict[str, str]:
        """The state of this rank's generators, for whoever draws from them: a model with dropout, say."""
        states = {"cpu": torch.get_rng_state()}
        if self.layout.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.layout.device)
        return {name: base64.b64encode(state.numpy().tobytes()).decode() for name, state in states.items()}


def read_weights(path: Path) -> dict[str, Tensor]:
    """The whole weights of a saved state by name, in one process, whatever layout saved them."""
    return read_named(path, MODEL)


def _difference(name: str, saved: Any, wanted: Any) -> str | None:
    """The first value that differs, in words."""
    if isinstance(saved, dict) and isinstance(wanted, dict):
        found = (_difference(f"{name}.{key}", saved.get(key), wanted.get(key)) for key in sorted(saved.keys() | wanted.keys()))
        return next(filter(None, found), None)
    return None if saved == wanted else f"{name} was {json.dumps(saved)} and is {json.dumps(wanted)}"


def _tensor(text: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)


def _rank_of(saved: Saved) -> tuple[float, int]:
    """By score, the earlier of equals first; what is no number comes last."""
    score = math.inf if saved.score is None or math.isnan(saved.score) else saved.score
    return score, saved.step


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
