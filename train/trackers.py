"""Programs that show a training while it runs: TensorBoard, and Weights & Biases."""

import math
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from corpusmill.pipeline.errors import InputError

#: In which of the programs' sections a value stands, by the beginning of its name; all others are of the training.
SECTIONS = ("validation", "speed")


class Tracker(Protocol):
    """Takes the numbers of a step, by `section/name`."""

    def write(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def open_tracker(kind: str, folder: Path, begin: int, title: str) -> Tracker:
    """The tracker that writes below `folder`; values from step `begin` on that an earlier process wrote are replaced.

    Raises InputError where its package is missing.
    """
    try:
        return TensorBoard(folder, begin, title) if kind == "tensorboard" else WeightsAndBiases(folder, begin, title)
    except ImportError as error:
        raise InputError(f"{title}.loop.log: {kind} can't be imported ({error}); pip install {kind}.") from error


def numbers(line: Mapping[str, Any], section: str = "") -> dict[str, float]:
    """The numbers of a line by `section/name`; `validation_low` stands in the section validation."""
    found = {}
    for name, value in line.items():
        if isinstance(value, int | float) and name != "step":
            inside, _, rest = name.partition("_")
            found[f"{section}/{name}" if section else f"{inside}/{rest}" if inside in SECTIONS and rest else f"train/{name}"] = float(value)
    return found


class TensorBoard:
    """Event files, a new one for each process; TensorBoard drops what an earlier one wrote from `begin` on."""

    def __init__(self, folder: Path, begin: int, title: str):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=begin)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run whose id is kept beside the logs, so that a resumed training goes on with it; WANDB_MODE=offline sends nothing."""

    def __init__(self, folder: Path, begin: int, title: str):
        import wandb

        known = folder / "wandb-id.txt"
        if not begin or not known.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            known.write_text(secrets.token_hex(8))
        project = os.environ.get("WANDB_PROJECT", "corpusmill")
        self.run = wandb.init(project=project, id=known.read_text().strip(), resume="allow", dir=str(folder), name=f"{title}")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log({name: value for name, value in values.items() if math.isfinite(value)}, step=step)

    def close(self) -> None:
        self.run.finish()
