"""The training state from which a run goes on bit by bit: safetensors and JSON, nothing is pickled."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from corpusmill.pipeline.errors import InputError
from corpusmill.train.files import begin_folder, finish_folder, read_tensors, write_json, write_tensors
from corpusmill.train.parallel.layout import Layout

STEP = "step-{:08d}"
TENSORS = "state.safetensors"


@dataclass(frozen=True)
class Saved:
    """A whole state on the disk, after `step` steps. `record` is what was saved with it."""

    path: Path
    step: int
    record: dict[str, Any]


class States:
    """The saved states of one training: `folder/step-00000123`, each of which appears whole or not at all."""

    def __init__(self, folder: Path, layout: Layout, keep: int = 2, keep_best: int = 0):
        self.folder, self.layout, self.keep, self.keep_best = folder, layout, keep, keep_best

    def save(self, step: int, tensors: Mapping[str, Tensor], record: dict[str, Any], score: float | None = None) -> None:
        """Saves the state after `step` steps. `record` is JSON; floats come back bit by bit. The lower a `score`, the better.

        Raises CorpusmillError, with the states before it intact.
        """
        target = self.folder / STEP.format(step)
        temporary = begin_folder(target)
        write_tensors(temporary / TENSORS, dict(tensors))
        write_json(temporary / "state.json", {"step": step, "bytes": (temporary / TENSORS).stat().st_size, "record": record})
        finish_folder(temporary, target)
        for old in self._paths()[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)

    def latest(self) -> Saved | None:
        """The latest whole state; None where there is none.

        One that is damaged is passed over for the one before it: redoing its steps gives the same bits.
        """
        for path in reversed(self._paths()):
            try:
                state = json.loads((path / "state.json").read_bytes())
                if (path / TENSORS).stat().st_size == state["bytes"]:
                    return Saved(path, int(state["step"]), state["record"])
            except (OSError, ValueError, KeyError):
                continue
        return None

    def load(self, saved: Saved, tensors: Mapping[str, Tensor]) -> None:
        """Fills `tensors` in place. Raises InputError where the state has others or of another shape."""
        found = read_tensors(saved.path / TENSORS)
        if {name: t.shape for name, t in found.items()} != {name: t.shape for name, t in tensors.items()}:
            raise InputError(f"{saved.path}: holds the state of another model; remove it to begin anew.")
        for name, tensor in tensors.items():
            tensor.detach().copy_(found[name])

    def finish(self) -> None:
        """Waits for what is being saved. Raises CorpusmillError where that fails."""

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("step-*")) if self.folder.is_dir() else []


def read_weights(path: Path) -> dict[str, Tensor]:
    """The whole weights of a saved state by name, in one process, whatever layout saved them."""
    prefix = "model/"
    return {name.removeprefix(prefix): t for name, t in read_tensors(path / TENSORS).items() if name.startswith(prefix)}
