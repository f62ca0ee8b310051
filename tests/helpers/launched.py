"""Jobs for the tests of launchers, in a module of their own: other processes have to import it."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from corpusmill.pipeline.errors import InputError
from corpusmill.train.parallel.layout import Layout


def add(layout: Layout, progress: Any, deed: str = "", rank: int = 1, marker: str = "") -> dict[str, Any]:
    """Adds up the ranks, twice; in between, the rank `rank` does its `deed`, once where there is a marker."""
    total = _sum(layout.rank + 1)
    if layout.rank == rank and not (marker and Path(marker).exists()):
        if marker:
            Path(marker).touch()
        do(deed)
    return {"sum": total, "again": _sum(total), "threads": torch.get_num_threads(), "pid": os.getpid(), "bar": progress is not None}


def do(deed: str) -> None:
    if deed == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif deed == "bad input":
        raise InputError("tokens.bin: broken at byte 7.")
    elif deed == "bug":
        raise KeyError("no such thing")
    elif deed.startswith("wait "):
        Path(deed.removeprefix("wait ")).write_text(str(os.getpid()))
        time.sleep(60)


def _sum(value: int) -> int:
    tensor = torch.tensor([value])
    dist.all_reduce(tensor)
    return int(tensor)
