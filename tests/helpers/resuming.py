"""A small training on any layout, whose processes can be killed (SIGKILL) at a step, for tests of resuming."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors.torch  # noqa: F401 - and torch._dynamo: a training needs both, and each forked process would import them anew
import torch
import torch._dynamo

from corpusmill.train.data import Batch, DataShare
from corpusmill.train.loop import fit
from corpusmill.train.model import Llama, Objective, initialise
from corpusmill.train.options import Architecture, LoopConfig, ParallelConfig
from corpusmill.train.parallel import ParallelDims

ARCH = Architecture(vocab_size=37, layers=2, width=16, heads=4, kv_heads=2, head_dim=4, ffn=24, context=16)
ROWS, STEPS = 8, 12


def rows_of(step: int) -> torch.Tensor:
    return torch.randint(37, (ROWS, 17), generator=torch.Generator().manual_seed(step))


class Rows(Objective):
    """Each step's rows, in micro-batches of two. A process records its rows in `folder`; at step `kill` the process of rank `victim`
    is killed before its last micro-batch.
    """

    def __init__(self, folder: Path, rank: int, kill: int | None, victim: int):
        self.folder, self.kill, self.dies = folder, kill, rank == victim
        folder.mkdir(parents=True, exist_ok=True)

    def batches(self, step: int, share: DataShare) -> Iterator[Batch]:
        ((begin, end),) = share.micro_batches(ROWS, 0)
        seen: list[list[int]] = []
        for first in range(begin, end, 2):
            if step == self.kill and self.dies and first == end - 2:
                os.kill(os.getpid(), signal.SIGKILL)
            ids = rows_of(step)[first : first + 2]
            seen += ids.tolist()
            yield ids[:, :-1], ids[:, 1:], None
        (self.folder / f"{step}-{share.index}-of-{share.of}.json").write_text(json.dumps(seen))


def rows_seen(folder: Path, step: int, shares: int) -> list[list[int]]:
    """Returns the rows of a step that `world` processes had, in the order of their shares."""
    files = [folder / "rows" / f"{step}-{index}-of-{shares}.json" for index in range(shares)]
    return [row for file in files for row in json.loads(file.read_text())]


def files(folder: Path) -> dict[str, bytes]:
    """Returns all files of a training, without times."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "speed.jsonl")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def train(
    folder: str | Path, parallel: dict[str, Any], options: dict[str, Any], kill: int | None = None, victim: int = 0
) -> dict[str, Any]:
    """Trains in `folder` until step `kill` or the end; returns the result of the run."""
    torch.set_num_threads(1)
    config, device = ParallelConfig.model_validate(parallel), torch.device("cpu")
    dims = ParallelDims.distributed(config, device) if config.world > 1 else ParallelDims.single(device)
    loop = LoopConfig.model_validate({"steps": STEPS, "save_every": 4, "warmup": 2, "threads": 1, "precision": "fp32", **options})
    llama, rows = Llama(ARCH), Rows(Path(folder) / "rows", dims.rank, kill, victim)
    initialise(llama, 7)
    result = fit(llama, rows, loop, dims=dims, state=Path(folder) / "state", log=Path(folder) / "train.jsonl")
    return {"begin": result.resumed_from, "losses": result.losses}
