"""A small training on any layout, whose processes can be killed (SIGKILL) at a step, for tests of resuming."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from corpusmill.train.architecture import Architecture
from corpusmill.train.bits import Batch
from corpusmill.train.loop import fit
from corpusmill.train.model import Llama, initialise
from corpusmill.train.objective import Share, TokenObjective
from corpusmill.train.options import LoopConfig, ParallelConfig
from corpusmill.train.parallel.layout import Layout

ARCH = Architecture(vocab_size=37, layers=2, width=16, heads=4, kv_heads=2, head_dim=4, ffn=24, context=16)
ROWS, STEPS = 8, 12


def rows_of(step: int) -> torch.Tensor:
    return torch.randint(37, (ROWS, 17), generator=torch.Generator().manual_seed(step))


class Rows(TokenObjective):
    """Each step's rows, in micro-batches of two; at step `kill` the process of rank `victim` is killed before its last micro-batch."""

    def __init__(self, rank: int, kill: int | None, victim: int):
        self.kill, self.dies, self.seen = kill, rank == victim, dict[int, list[list[int]]]()

    def batches(self, step: int, share: Share) -> Iterator[Batch]:
        begin, end = share.bounds(ROWS)
        for first in range(begin, end, 2):
            if step == self.kill and self.dies and first == end - 2:
                os.kill(os.getpid(), signal.SIGKILL)
            ids = rows_of(step)[first : first + 2]
            self.seen.setdefault(step, []).extend(ids.tolist())
            yield ids[:, :-1], ids[:, 1:], None


def train(folder: str, parallel: dict[str, Any], options: dict[str, Any], kill: int | None = None, victim: int = 0) -> dict[str, Any]:
    """Trains in `folder` until step `kill` or the end: what the run was, and the rows that this process saw by step."""
    torch.set_num_threads(1)
    config, device = ParallelConfig.model_validate(parallel), torch.device("cpu")
    layout = Layout.distributed(config, device) if config.world > 1 else Layout.single(device)
    loop = LoopConfig.model_validate({"steps": STEPS, "save_every": 4, "warmup": 2, "threads": 1, **options})
    model, rows = Llama(ARCH), Rows(layout.rank, kill, victim)
    initialise(model, 7)
    result = fit(model, rows, loop, layout=layout, state=Path(folder) / "state", log=Path(folder) / "train.jsonl")
    return {"begin": result.resumed_from, "losses": result.losses, "seen": rows.seen, "random": torch.rand(1).item()}
