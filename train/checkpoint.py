"""Training states, from which a run resumes with the same bits: safetensors and JSON, no pickle.

Every rank writes one file. When all files are complete, the first rank turns them into a state (`checkpoint_dir.py`). At the end of this
file: the list of a run's states, and the export of any of them as a model folder.
"""

import copy
import json
import math
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint import DefaultLoadPlanner, DefaultSavePlanner, HuggingFaceStorageReader, Metadata
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from corpusmill.pipeline.cache import cache_folder
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.names import instead_of, not_a_run
from corpusmill.pipeline.storage import Storage
from corpusmill.train.checkpoint_dir import FILE, LOG, CheckpointDir, SavedState, StateFolder, first_line, trainings, write_tensors
from corpusmill.train.options import Architecture
from corpusmill.train.parallel.dims import ParallelDims

# ---- tensors of one rank -----------------------------------------------------------------------------
#
# Uses the plans and the reader of torch.distributed.checkpoint (DCP).
#
# DCP's plans decide which rank writes which part of a tensor (plain or DTensor, on all ranks or some), each part once. Its
# HuggingFaceStorageReader fills tensors of any other layout. Its HuggingFaceStorageWriter is not used, though the files have its format:
# it writes three metadata entries into safetensors, whose order differs between processes, so equal states would have different bytes;
# it builds a file in memory before it writes it; and it plans anew, with collectives, in every save.

#: The metadata entry in which DCP's reader finds the offset of each part in its tensor.
OFFSETS = "DCP_SHARDING_INFO"
#: Exceptions of DCP's reader on foreign or damaged files, as it trusts their headers.
UNREADABLE = (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError, AssertionError)


class RankTensors:
    """The parts of tensors that this rank writes. Ranks agree on them once, through `gather`, for tensors with fixed names and shapes."""

    def __init__(self, tensors: Mapping[str, Tensor], rank: int, gather: Callable[[Any], list[Any]]):
        self.planner = DefaultSavePlanner(flatten_state_dict=False)
        self.planner.set_up_planner(dict(tensors), is_coordinator=rank == 0)
        plans, _ = self.planner.create_global_plan(gather(self.planner.create_local_plan()))
        self.items = [item for item in plans[rank].items if not _is_empty(item)]
        self.copies: dict[str, Tensor] = {}

    def of(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns this rank's parts, by the names of their tensors."""
        self.planner.set_up_planner(dict(tensors))
        pieces = {item.index.fqn: self.planner.resolve_data(item) for item in self.items}
        return {name: piece.detach() for name, piece in pieces.items() if isinstance(piece, Tensor)}

    def copied(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies the parts to CPU memory; valid until the next call. The memory is reused, as new memory takes five times as long."""
        pieces = self.of(tensors)
        if not self.copies:
            self.copies = {name: torch.empty_like(t, device="cpu", pin_memory=t.is_cuda) for name, t in pieces.items()}
        for name, piece in pieces.items():
            self.copies[name].copy_(piece, non_blocking=True)
        for device in {piece.device for piece in pieces.values() if piece.is_cuda}:
            torch.cuda.current_stream(device).synchronize()  # the copies wait in the stream of the device that they come from
        return self.copies

    def write(self, path: Path, pieces: Mapping[str, Tensor]) -> None:
        """Writes the parts and their offsets durably. Raises CorpusmillError, with the file's name, where it can't be written."""
        places = {item.index.fqn: {"saved_offsets": list(item.index.offset or ())} for item in self.items}
        write_tensors(path, pieces, (OFFSETS, json.dumps(places, sort_keys=True)))


def _is_empty(item: Any) -> bool:
    """Whether a rank has no part of a tensor, as when it has fewer rows than ranks. A tensor that is empty itself is kept."""
    return 0 in item.tensor_data.chunk.sizes and 0 not in item.tensor_data.size


def read_into(folder: Path, tensors: Mapping[str, Tensor], everywhere: set[str] | None = None) -> None:
    """Fills tensors (or this rank's parts of DTensors) in place from the files in `folder`, whichever ranks wrote them.

    Raises InputError if a tensor is missing or has another shape or type. With `everywhere`, the names that all ranks have together, the
    folder must have no other names either.
    """
    with _readable(folder) as (reader, metadata):
        _check(folder, metadata, tensors, everywhere)
        planner = DefaultLoadPlanner(flatten_state_dict=False)
        planner.set_up_planner(dict(tensors), metadata)
        reader.set_up_storage_reader(metadata, is_coordinator=True)
        reader.read_data(planner.create_local_plan(), planner).wait()


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Returns the whole weights of a saved state by name, in one process, whatever layout saved them."""
    with _readable(folder) as (_, metadata):
        found = {name: t for name, t in _described(metadata).items() if name.startswith(MODEL)}
        tensors = {name: torch.empty(t.size, dtype=t.properties.dtype) for name, t in sorted(found.items())}
    read_into(folder, tensors)
    return {name.removeprefix(MODEL): tensor for name, tensor in tensors.items()}


@contextmanager
def _readable(folder: Path) -> Iterator[tuple[HuggingFaceStorageReader, Metadata]]:
    """Yields DCP's reader of the folder's files, and what it knows of them. Raises InputError if they can't be read."""
    try:
        reader = HuggingFaceStorageReader(str(folder))
        yield reader, reader.read_metadata()
    except UNREADABLE as error:
        raise InputError(f"{folder}: can't be read, perhaps cut short or damaged ({type(error).__name__}: {first_line(error)}).") from error


def _described(metadata: Metadata) -> dict[str, TensorStorageMetadata]:
    return {name: t for name, t in metadata.state_dict_metadata.items() if isinstance(t, TensorStorageMetadata)}


def _check(folder: Path, metadata: Metadata, tensors: Mapping[str, Tensor], everywhere: set[str] | None) -> None:
    saved = _described(metadata)
    if missing := sorted((everywhere or tensors.keys()) - saved.keys()):
        raise InputError(f"{folder}: {missing[0]} is missing ({len(missing)} in all): it holds the state of another model.")
    if everywhere and (surplus := sorted(saved.keys() - everywhere)):
        raise InputError(f"{folder}: holds {surplus[0]}, which this training does not have ({len(surplus)} such in all).")
    for name, tensor in tensors.items():
        size, dtype = list(saved[name].size), saved[name].properties.dtype
        if (size, dtype) != (list(tensor.shape), tensor.dtype):
            raise InputError(f"{folder}: {name} is {size} of {dtype}, and in this training {list(tensor.shape)} of {tensor.dtype}.")


# ---- the states --------------------------------------------------------------------------------------
#
# A background thread writes the files; training waits only while its tensors are copied. The thread's collectives have a process group of
# their own (`ParallelDims.patient`), so that they can't mix with those of the training.

MODEL = "model/"

T = TypeVar("T")


class States:
    """The saved states of one training in a folder (a path or a StateFolder). A state appears whole or not at all.

    The latest `keep` states are kept, the `keep_best` with the lowest scores, and those of the steps `marked`. All ranks call the same
    methods in the same order. A failure on one rank is raised on all. With `background`, `save` returns once the tensors are copied; a
    later failure is raised by the next call of `save` or `finish`. As a context manager, it waits for the last write.
    """

    def __init__(
        self,
        folder: Path | StateFolder,
        dims: ParallelDims,
        keep: int = 2,
        keep_best: int = 0,
        background: bool = False,
        marked: Collection[int] = (),
    ):
        self.folder = StateFolder(Storage(str(folder))) if isinstance(folder, Path) else folder
        self.dims, self.keep, self.keep_best, self.marked = dims, keep, keep_best, marked
        self.thread = ThreadPoolExecutor(1, "state") if background else None
        self.writing: Future[None] | None = None
        self.pieces: RankTensors | None = None

    def __enter__(self) -> "States":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.thread:
            self.thread.shutdown()
        if kind is None:
            self.finish()

    def save(self, step: int, tensors: Mapping[str, Tensor], record: dict[str, Any], score: float | None = None) -> None:
        """Saves the state after `step` steps. `record` is JSON; its floats are restored bit by bit. A lower `score` is better; one that is
        not finite is none.

        Raises CorpusmillError if that fails; earlier states stay intact.
        """
        self.finish()
        if self.pieces is None:
            self.pieces = RankTensors(tensors, self.dims.rank, lambda plan: self._together(lambda: plan))
        record = copy.deepcopy(record)  # the training continues while it is written
        score = score if score is not None and math.isfinite(score) else None
        state = {"step": step, "record": record, "score": score, "parallel": self.dims.config.model_dump(mode="json")}
        taken = self.pieces.copied(tensors) if self.thread else self.pieces.of(tensors)
        job = partial(self._write, self.pieces, taken, state)
        if self.thread:
            self.writing = self.thread.submit(job)
        else:
            job()

    def finish(self) -> None:
        """Waits until the current state is written. Raises CorpusmillError if that failed."""
        if self.writing:
            writing, self.writing = self.writing, None
            writing.result()

    def latest(self, wanted: Callable[[int], Mapping[str, Any]] | None = None, others: Sequence[StateFolder] = ()) -> SavedState | None:
        """Returns the latest whole state, or None. A damaged state is passed over for an earlier one: its steps are redone with the same
        bits.

        `wanted(step)`: the entries that the record of a state of that step must have. States of the folder itself come before those of the
        `others`. Raises InputError where the folder has only states with other entries.
        """
        folders = [self.folder, *others]

        def candidates() -> list[tuple[int, SavedState]]:
            differences = [
                (number, saved, saved.difference(wanted(saved.step)) if wanted else None)
                for number, folder in enumerate(folders)
                for saved in folder.saved()
            ]
            own = [(saved, difference) for number, saved, difference in differences if not number]
            if own and all(difference for _, difference in own):
                saved, difference = own[-1]
                raise InputError(f"{saved.storage.root}: holds the state of another configuration ({difference}); remove it to begin anew.")
            fitting = [(number, saved) for number, saved, difference in differences if not difference]
            return sorted(fitting, key=lambda candidate: (candidate[0] > 0, -candidate[1].step))

        return self._first_whole(candidates, folders)

    def best(self) -> SavedState | None:
        """Returns the whole state with the lowest score; None if no state has a score."""

        def scored() -> list[tuple[int, SavedState]]:
            return [(0, saved) for saved in by_score(self.folder.saved())]

        return self._first_whole(scored, [self.folder])

    def load(self, saved: SavedState, tensors: Mapping[str, Tensor]) -> None:
        """Fills `tensors` in place. Raises InputError if the state has other tensors or shapes."""
        everywhere = set[str]().union(*self._together(lambda: set(tensors)))
        self._together(lambda: read_into(saved.path, tensors, everywhere))
        if saved.storage.remote:
            shutil.rmtree(saved.path, ignore_errors=True)

    def load_weights(self, saved: SavedState, parameters: Mapping[str, Tensor]) -> None:
        """Fills `parameters` in place with the state's weights, and changes nothing else."""
        self._together(lambda: read_into(saved.path, {MODEL + name: p for name, p in parameters.items()}, None))

    def prune(self, step: int) -> None:
        """Removes states before `step` that are no longer kept; a killed run may not have done so."""
        self._together(lambda: self._prune(step) if self.dims.is_main else None)

    # ---- the work -------------------------------------------------------------------------------------

    def _together(self, work: Callable[[], T]) -> list[T]:
        """Runs `work` on every rank. Returns all results in the order of ranks, or raises the first failure on every rank."""
        result: tuple[Any, CorpusmillError | None]
        try:
            result = work(), None
        except CorpusmillError as failure:
            result = None, failure
        except Exception as failure:
            if self.dims.world == 1:
                raise
            result = None, CorpusmillError(f"process {self.dims.rank} of {self.dims.world}: {type(failure).__name__}: {failure}")
        results: list[tuple[Any, CorpusmillError | None]] = [result] * self.dims.world
        if self.dims.world > 1:
            dist.all_gather_object(results, result, group=self.dims.patient)
        for _, error in results:
            if error is not None:
                raise error
        return [value for value, _ in results]

    def _write(self, pieces: RankTensors, taken: Mapping[str, Tensor], state: dict[str, Any]) -> None:
        folder, step, name = self.folder, state["step"], FILE.format(self.dims.rank, self.dims.world)
        try:
            self._together(lambda: folder.remove(step) if self.dims.is_main else None)
            files = self._together(lambda: folder.write(step, name, lambda path: pieces.write(path, taken)))
            self._together(lambda: self._commit({**state, "ranks": files}) if self.dims.is_main else None)
        except BaseException:
            if self.dims.is_main:
                with suppress(CorpusmillError, OSError):  # the first error is the one to tell
                    folder.remove(step)
            raise

    def _commit(self, state: dict[str, Any]) -> None:
        """Turns the written files into a state, and removes earlier states that are no longer kept."""
        self.folder.commit(state["step"], state)
        self._prune(state["step"])

    def _prune(self, step: int) -> None:
        """Removes earlier states that are not kept. States after `step` are damaged; they will be overwritten."""
        found = [saved for saved in self.folder.saved() if saved.step <= step]
        kept = {saved.step for saved in [*found[-self.keep :], *by_score(found)[: self.keep_best]]}
        self.folder.remove_before(step, kept.union(self.marked))

    def _first_whole(self, candidates: Callable[[], list[tuple[int, SavedState]]], folders: Sequence[StateFolder]) -> SavedState | None:
        """Returns the first rank's first candidate (a folder's number, and a state in it) whose files are all whole. Ranks divide the
        checks among them; from a store each rank fetches all files, as it may be alone on its machine."""
        self.finish()
        rank, world = self.dims.rank, self.dims.world
        for number, found in self._together(lambda: candidates() if self.dims.is_main else [])[0]:
            saved = folders[number].here(found)
            ranks = len(saved.state.ranks)
            mine = range(ranks) if saved.storage.remote else range(rank, ranks, world)
            if all(self._together(lambda s=saved, mine=mine: not any(map(s.damage, mine)))):  # type: ignore[misc]
                return saved
        return None


def by_score(found: Sequence[SavedState]) -> list[SavedState]:
    """Returns those that have a score, the lowest first, and equal ones by step."""
    scored = [(saved.score, saved.step, saved) for saved in found if saved.score is not None]
    return [saved for _, _, saved in sorted(scored, key=lambda one: one[:2])]


# ---- the saved states of a run -----------------------------------------------------------------------

STAGES = ("pretrain", "sft", "align")


@dataclass(frozen=True)
class TrainingState:
    """A saved state of a stage's training. A stage has one training for each configuration that it was run with."""

    stage: str
    checkpoint_dir: CheckpointDir
    saved: SavedState

    @property
    def training(self) -> str:
        """The name of the training's folder."""
        return self.checkpoint_dir.work.rpartition("/")[2]

    @property
    def date(self) -> datetime:
        return self.saved.date

    @property
    def processes(self) -> str:
        """The layout of the processes that saved the state."""
        layout = self.saved.state.parallel
        sizes = [f"{kind} {layout[kind]}" for kind in ("replicate", "shard", "tensor", "pipeline") if layout[kind] > 1]
        return ", ".join(sizes) or "one"


def checkpoints(run: str, stage: str | None = None) -> list[TrainingState]:
    """Returns the saved states of a run (of one stage), each training's by step; the training that was saved last comes last."""
    if stage not in (None, *STAGES):
        raise InputError(f"checkpoints: {stage} is no stage that trains{instead_of(stage, STAGES)}.")
    storage = Storage(run)
    if not storage.remote and not Path(storage.root).is_dir():
        raise InputError(not_a_run(run))
    found: list[list[TrainingState]] = []
    for name in STAGES if stage is None else (stage,):
        dirs = [CheckpointDir(work, storage.path(f"{name}/{LOG}")) for work in trainings(storage.child(f"{name}/checkpoints"))]
        known = [[TrainingState(name, checkpoint_dir, saved) for saved in checkpoint_dir.states.saved()] for checkpoint_dir in dirs]
        found += sorted(filter(None, known), key=lambda states: max(state.date for state in states))
    return [state for states in found for state in states]


def export_state(run: str, step: int, output: Path, stage: str | None = None) -> TrainingState:
    """Writes the model of a stage after `step` steps as a folder that opens in `transformers`. Raises InputError if no such state
    exists.

    Without a `stage`, the first stage with that step; among several trainings, the one that was saved last.
    """
    from corpusmill.train.finetune import merged_model
    from corpusmill.train.model_folder import model_of, save_model, tokenizer_files

    known = checkpoints(run, stage)
    having = [state for state in known if state.saved.step == step]
    if not having:
        there = ", ".join(map(str, sorted({state.saved.step for state in known})))
        raise InputError(f"{run}: no state was saved after {step} steps" + (f"; there are {there}." if there else ", nor any other."))
    chosen = [state for state in having if state.stage == having[0].stage][-1]
    if output.exists():
        raise InputError(f"{output}: already exists.")
    saved, work = chosen.saved, Storage(chosen.checkpoint_dir.work)
    with ExitStack() as stack:
        if saved.storage.remote:  # into a folder of its own: a training on this machine may read the same state
            cache_folder().mkdir(parents=True, exist_ok=True)
            private = stack.enter_context(TemporaryDirectory(prefix="export-", dir=cache_folder()))
            saved = replace(saved, path=Path(private) / saved.path.name)
        if damage := next(filter(None, map(saved.damage, range(len(saved.state.ranks)))), None):
            raise InputError(damage)
        with torch.no_grad():
            model = merged_model(saved.path, work, Storage(run)) or model_of(
                Architecture.model_validate(saved.record["model"]), read_weights(saved.path)
            )
        save_model(model, output, tokenizer_files(work.child("tokenizer")))
    return chosen
