"""The saved states of a run's trainings: what there is, and a model folder of any of them."""

import math
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from corpusmill.pipeline.cache import cache_folder
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage
from corpusmill.train.checkpoint import read_weights
from corpusmill.train.checkpoint_dir import LOG, STATE, CheckpointDir, SavedState
from corpusmill.train.options import Architecture

STAGES = ("pretrain", "sft", "align")


@dataclass(frozen=True)
class TrainingState:
    """A saved state of a stage's training, of which a stage has one for each configuration it was run with."""

    stage: str
    place: CheckpointDir
    saved: SavedState

    @property
    def training(self) -> str:
        """The name of its folder."""
        return self.place.work.rpartition("/")[2]

    @property
    def date(self) -> datetime:
        return self.saved.date

    @property
    def processes(self) -> str:
        """The processes that saved it."""
        sizes = [
            f"{kind} {self.saved.parallel[kind]}" for kind in ("replicate", "shard", "tensor", "pipeline") if self.saved.parallel[kind] > 1
        ]
        return ", ".join(sizes) or "one"


def checkpoints(run: str, stage: str | None = None) -> list[TrainingState]:
    """Those of a run's trainings (of one stage), the training that was saved last at the end, each by step."""
    if stage not in (None, *STAGES):
        raise InputError(f"checkpoints: {stage} is no stage that trains; those are {', '.join(STAGES)}.")
    storage = Storage(run)
    if not storage.remote and not Path(storage.root).is_dir():
        raise InputError(f"{run}: no such run.")
    found: list[list[TrainingState]] = []
    for name in STAGES if stage is None else (stage,):
        folder = storage.child(f"{name}/checkpoints")
        works = sorted({path.partition("/")[0] for path in folder.list_files() if path.endswith(f"/{STATE}")})
        places = [CheckpointDir(folder.path(work), storage.path(f"{name}/{LOG}")) for work in works]
        trainings = [[TrainingState(name, place, saved) for saved in place.states.saved()] for place in places]
        found += sorted(filter(None, trainings), key=lambda states: max(state.date for state in states))
    return [state for states in found for state in states]


def export_state(run: str, step: int, output: Path, stage: str | None = None) -> TrainingState:
    """Writes the model that a stage had after `step` steps as a folder that opens in `transformers`; InputError where there is none.

    Without a `stage` it is the first one that has that step; of several trainings the one that was saved last.
    """
    import torch

    from corpusmill.train.finetune import merged_model
    from corpusmill.train.model_folder import model_of, save_model, tokenizer_files

    known = checkpoints(run, stage)
    having = [state for state in known if state.saved.step == step]
    if not having:
        there = ", ".join(str(state.saved.step) for state in known)
        raise InputError(f"{run}: no state was saved after {step} steps" + (f"; there are {there}." if there else ", nor any other."))
    chosen = [state for state in having if state.stage == having[0].stage][-1]
    if output.exists():
        raise InputError(f"{output}: is there already.")
    work = Storage(chosen.place.work)
    with _here(chosen.saved) as saved:
        if damage := next(filter(None, map(saved.damage, range(len(saved.ranks)))), None):
            raise InputError(damage)
        with torch.no_grad():
            model = merged_model(saved.path, work, Storage(run)) or model_of(
                Architecture.model_validate(saved.record["model"]), read_weights(saved.path)
            )
        save_model(model, output, tokenizer_files(work.child("tokenizer")))
    return chosen


@contextmanager
def _here(saved: SavedState) -> Iterator[SavedState]:
    """The state as this command alone reads it: where it lies on a store, the training's own folder of this machine is that of one that may
    be at work."""
    if not saved.store:
        yield saved
        return
    folder = cache_folder() / f"export-{secrets.token_hex(8)}"
    try:
        yield replace(saved, path=folder / saved.path.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def score_text(saved: SavedState) -> str:
    return "" if saved.score is None or math.isnan(saved.score) else f"{saved.score:.4f}"
