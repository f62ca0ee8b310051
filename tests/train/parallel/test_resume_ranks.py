"""Trainings of several processes that are killed: bit by bit on the same layout, within rounding on another."""

import json
from pathlib import Path
from typing import Any

import pytest
from ranks import run_ranks
from resuming import STEPS, files, rows_of, rows_seen, train

from corpusmill.train.options import ParallelConfig
from corpusmill.train.state import read_weights

pytestmark = pytest.mark.rounding

ONE: dict[str, Any] = {}
COPIES, ZERO1, ZERO2, SHARDS, TENSOR = {"replicate": 2}, {"shard": 2, "zero": 1}, {"shard": 2, "zero": 2}, {"shard": 2}, {"tensor": 2}
STAGES = {"pipeline": 2}


def run(folder: Path, parallel: dict[str, Any], *arguments: Any) -> list[dict[str, Any]]:
    return run_ranks(train, ParallelConfig.model_validate(parallel).world, str(folder), parallel, *arguments)


def shares(parallel: dict[str, Any]) -> int:
    """Processes that see different rows."""
    return int(parallel.get("replicate", 1) * parallel.get("shard", 1))


@pytest.mark.parametrize(
    ("parallel", "kind"),
    [(COPIES, "muon"), (ZERO1, "muon"), (SHARDS, "adamw"), pytest.param(TENSOR, "adamw", marks=pytest.mark.long)],
    ids=str,
)
def test_killed_on_several_processes_and_resumed_gives_the_same_bytes(tmp_path: Path, parallel: dict[str, Any], kind: str) -> None:
    options = {"optimizer": {"kind": kind}}
    whole = run(tmp_path / "whole", parallel, options)
    for kill, victim in ((6, 1), (10, 0)):
        with pytest.raises(RuntimeError, match=f"rank {victim} ended with -9"):
            run(tmp_path / "killed", parallel, options, kill, victim)
    again = run(tmp_path / "killed", parallel, options)
    assert {result["begin"] for result in again} in ({4}, {8})  # the state after 8 steps may have been half written at step 10
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert [result["random"] for result in again] == [result["random"] for result in whole]


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("layouts", "kind"),
    [
        ((SHARDS, ONE, {"shard": 4}), "muon"),
        ((ONE, COPIES, TENSOR), "adamw"),
        ((ZERO1, {"shard": 2, "tensor": 2}, ONE), "adamw"),
        ((STAGES, SHARDS, {"pipeline": 2, "shard": 2}), "muon"),
    ],
    ids=str,
)
def test_resumed_twice_on_other_layouts_goes_on_with_the_same_rows_and_losses(
    tmp_path: Path, layouts: tuple[dict[str, Any], ...], kind: str
) -> None:
    options = {"optimizer": {"kind": kind}, "async_save": False}
    run(tmp_path / "one", ONE, options)
    folder = tmp_path / "many"
    for number, (parallel, kill) in enumerate(zip(layouts, (5, 9, None), strict=True)):
        now = {**options, "keep": number + 1}  # how many are kept may change
        if kill:
            with pytest.raises(RuntimeError, match="rank 0 ended with -9"):
                run(folder, parallel, now, kill)
        else:
            assert {result["begin"] for result in run(folder, parallel, now)} == {8}
        for step in range(4 * number, 4 * number + 4):
            assert rows_seen(folder, step, shares(parallel)) == rows_of(step).tolist()
    # A layout adds floats in its own order, which differs by processor. A loss of 3.6 in float32 has steps of 2.4e-7; 2.1e-6 was seen with
    # Muon, which orthogonalises rounding errors, too: its twelve updates are 0.02 each.
    apart = {"adamw": (1e-5, 1e-4), "muon": (1e-4, 1e-3)}[kind]  # of losses, of weights
    for line, wanted in zip(lines(folder), lines(tmp_path / "one"), strict=True):
        assert line["step"] == wanted["step"] and line["loss"] == pytest.approx(wanted["loss"], abs=apart[0])
    assert len(list((folder / "state").iterdir())) == 3
    weights, wanted = (read_weights(path / "state" / f"step-{STEPS:08d}") for path in (folder, tmp_path / "one"))
    assert weights.keys() == wanted.keys() and all(weights[name].allclose(wanted[name], atol=apart[1]) for name in wanted)
