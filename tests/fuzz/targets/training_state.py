"""Fuzzes the saved states of a training with one arbitrary file: skipped, refused in one sentence, or read as written."""

import contextlib
import json
from functools import cache
from pathlib import Path

import torch
from fuzzing import changed, choose, choosing, json_mutants, scratch

from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.storage import Storage
from corpusmill.train.checkpoint import FILE, STATE, STEP, States, saved_states
from corpusmill.train.parallel import ParallelDims

FILES = [STATE, FILE.format(0, 1)]
TENSORS = {"model/w": torch.arange(3.0), "optimizer/w/m": torch.zeros(3), "optimizer/w/step": torch.tensor(4.0)}


def states(folder: Path) -> States:
    return States(folder, ParallelDims.single(torch.device("cpu")))


@cache
def sound() -> Path:
    folder = scratch() / "states"
    for step in (1, 2):
        states(folder).save(step, TENSORS, {"loss": 0.5}, score=1.0 / step)
    return folder


def seeds() -> list[bytes]:
    latest = sound() / STEP.format(2)
    state = json.loads((latest / STATE).read_bytes())
    files = [choosing(place, (latest / name).read_bytes()) for place, name in enumerate(FILES)]
    return files + [choosing(0, content) for content in json_mutants("state", state, 12)]


def fuzz(data: bytes) -> None:
    name, content = choose(data, FILES)
    with changed(sound(), f"{STEP.format(2)}/{name}", content) as folder:
        found = states(folder)
        assert found.latest() is not None and found.best() is not None, "the whole state is passed over"
        for saved in saved_states(Storage(str(folder))):
            with contextlib.suppress(CorpusmillError):
                found.load(saved, {key: torch.empty_like(tensor) for key, tensor in TENSORS.items()})
            with contextlib.suppress(CorpusmillError):
                saved.weights()
