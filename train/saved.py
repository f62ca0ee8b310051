"""The saved states of a run's trainings: what there is, and a model folder of any of them."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from corpusmill.pipeline.errors import InputError
from corpusmill.train.architecture import Architecture
from corpusmill.train.state import STATE, Saved, read_weights, saved_states

STAGES = ("pretrain", "sft", "align")


@dataclass(frozen=True)
class Checkpoint:
    """A saved state of a stage; `training` is the name of its folder, of which a stage has one for each configuration it was run with."""

    stage: str
    training: str
    saved: Saved

    @property
    def date(self) -> datetime:
        return datetime.fromtimestamp((self.saved.path / STATE).stat().st_mtime, UTC)

    @property
    def layout(self) -> str:
        """The processes that saved it."""
        sizes = [
            f"{kind} {self.saved.parallel[kind]}" for kind in ("replicate", "shard", "tensor", "pipeline") if self.saved.parallel[kind] > 1
        ]
        return ", ".join(sizes) or "one"


def checkpoints(run: str, stage: str | None = None) -> list[Checkpoint]:
    """Those of a run's trainings (of one stage), the training that was saved last at the end, each by step."""
    if stage not in (None, *STAGES):
        raise InputError(f"checkpoints: {stage} is no stage that trains; those are {', '.join(STAGES)}.")
    if not Path(run).is_dir():
        raise InputError(f"{run}: no such run.")
    found: list[list[Checkpoint]] = []
    for name in STAGES if stage is None else (stage,):
        works = sorted((Path(run) / name / "checkpoints").glob("*/state"))
        trainings = [[Checkpoint(name, work.parent.name, saved) for saved in saved_states(work)] for work in works]
        found += sorted(filter(None, trainings), key=lambda states: max(state.date for state in states))
    return [state for states in found for state in states]


def export(run: str, step: int, output: Path, stage: str | None = None) -> Checkpoint:
    """Writes the model that a stage had after `step` steps as a folder that opens in `transformers`; InputError where there is none.

    Without a `stage` it is the first one that has that step; of several trainings the one that was saved last.
    """
    import torch

    from corpusmill.train.checkpoint import model_of, save_model
    from corpusmill.train.tuned import merged_model

    known = checkpoints(run, stage)
    having = [state for state in known if state.saved.step == step]
    if not having:
        there = ", ".join(str(state.saved.step) for state in known)
        raise InputError(f"{run}: no state was saved after {step} steps" + (f"; there are {there}." if there else ", nor any other."))
    chosen = [state for state in having if state.stage == having[0].stage][-1]
    saved = chosen.saved
    if damage := next(filter(None, map(saved.damage, range(len(saved.ranks)))), None):
        raise InputError(damage)
    if output.exists():
        raise InputError(f"{output}: is there already.")
    with torch.no_grad():
        model = merged_model(saved.path, Path(run)) or model_of(
            Architecture.model_validate(saved.record["model"]), read_weights(saved.path)
        )
    save_model(model, output, saved.path.parents[1] / "tokenizer")
    return chosen


def score_text(saved: Saved) -> str:
    return "" if saved.score is None or math.isnan(saved.score) else f"{saved.score:.4f}"
