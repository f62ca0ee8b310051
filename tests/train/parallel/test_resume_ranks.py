"""Trainings of several processes that are killed: bit by bit on the same layout, within rounding on another."""

from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import run_ranks
from resuming import train

ONE: dict[str, Any] = {}
COPIES, ZERO1, ZERO2, SHARDS = {"replicate": 2}, {"shard": 2, "zero": 1}, {"shard": 2, "zero": 2}, {"shard": 2}


def run(folder: Path, parallel: dict[str, Any], *arguments: Any) -> list[dict[str, Any]]:
    world = torch.tensor([size for kind, size in parallel.items() if kind != "zero"] or [1]).prod().item()
    if world == 1:
        return [train(str(folder), parallel, *arguments)]
    return run_ranks(train, int(world), str(folder), parallel, *arguments)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("parallel", [COPIES, ZERO1, ZERO2, SHARDS, {"tensor": 2}], ids=str)
def test_killed_on_several_processes_and_resumed_gives_the_same_bytes(tmp_path: Path, parallel: dict[str, Any], kind: str) -> None:
    options = {"optimizer": {"kind": kind}}
    whole = run(tmp_path / "whole", parallel, options)
    for kill, victim in ((6, 1), (10, 0)):
        with pytest.raises(RuntimeError, match=f"rank {victim} ended with -9"):
            run(tmp_path / "killed", parallel, options, kill, victim)
    again = run(tmp_path / "killed", parallel, options)
    assert [result["begin"] for result in again] == [8, 8]
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert [result["random"] for result in again] == [result["random"] for result in whole]
