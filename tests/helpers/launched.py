"""Jobs for the tests of launchers, in a module of their own, because other processes import it."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from corpusmill.pipeline.errors import InputError
from corpusmill.train.parallel import ParallelDims
from corpusmill.train.watch import loop_bar


def add(dims: ParallelDims, progress: Any, deed: str = "", then: str = "", marker: str = "", bar: bool = False) -> dict[str, Any]:
    """Adds up the ranks, twice; in between, the second one performs its `deed`, or `then` if it has left a marker file. With `bar`, the
    first shows the third step of seven before.
    """
    if bar and dims.is_main:
        speed = {"step": 2, "memory_bytes": 1, "tokens_per_second": 1.0}
        with loop_bar(progress, "add", 0, 7) as show:
            show({"step": 2, "loss": 1.0, "lr": 0.1}, speed)
            time.sleep(1.5)
    total = _sum(dims.rank + 1)
    if dims.rank == 1:
        again = bool(marker) and Path(marker).exists()
        if marker:
            Path(marker).touch()
        do(then if again else deed)
    return {"sum": total, "again": _sum(total), "pid": os.getpid()}


def do(deed: str) -> None:
    if deed == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif deed == "bad input":
        raise InputError("tokens.bin: broken at byte 7.")
    elif deed == "bug":
        raise KeyError("no such thing")
    elif deed.startswith("wait "):
        Path(deed.removeprefix("wait ")).write_text(f"{os.getpid()} {torch.get_num_threads()}")
        time.sleep(600)


def _sum(value: int) -> int:
    tensor = torch.tensor([value])
    dist.all_reduce(tensor)
    return int(tensor)


def train_and_wait(dims: ParallelDims, progress: Any, marker: str, **arguments: Any) -> dict[str, Any]:
    """Runs a pre-training in which rank 1 waits in step 6 to be killed, once."""
    return _disturbed(dims, progress, marker, f"wait {marker}", arguments)


def train_and_die(dims: ParallelDims, progress: Any, marker: str, **arguments: Any) -> dict[str, Any]:
    """Runs a pre-training in which rank 1 kills itself in the middle of step 6, once."""
    return _disturbed(dims, progress, marker, "die", arguments)


def _disturbed(dims: ParallelDims, progress: Any, marker: str, deed: str, arguments: dict[str, Any]) -> dict[str, Any]:
    from corpusmill.train import pretrain_job

    whole = pretrain_job._Job.batches

    def dying(self: Any, step: int, share: Any) -> Any:
        if step == 6 and dims.rank == 1 and not Path(marker).exists():
            Path(marker).touch()
            do(deed)
        yield from whole(self, step, share)

    pretrain_job._Job.batches = dying  # type: ignore[method-assign]
    return pretrain_job.train(dims, progress, **arguments)
