"""Tests saved states of several processes, and trainings that are killed: each state is read by any other layout."""

import json
import os
import resource
import shutil
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from killing import in_child
from ranks import run_ranks
from resuming import STEPS, files, rows_of, rows_seen, train

from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.storage import Storage
from corpusmill.train.checkpoint import CheckpointDir, States, saved_states
from corpusmill.train.options import ParallelConfig
from corpusmill.train.parallel import ParallelDims

# ---- state ranks -------------------------------------------------------------------------------------

TENSORS = {f"model/{number}": torch.full((1000,), float(number)) for number in range(20)}


def two() -> ParallelDims:
    return ParallelDims.distributed(ParallelConfig(shard=2), torch.device("cpu"))


def test_each_rank_writes_its_half_of_what_all_have(tmp_path: Path) -> None:
    run_ranks(save_copies, 2, tmp_path)
    sizes = [path.stat().st_size for path in sorted((tmp_path / "step-00000001").glob("*.safetensors"))]
    assert len(sizes) == 2 and max(sizes) < 1.1 * min(sizes) and 80_000 < sum(sizes) < 90_000


def save_copies(folder: Path) -> None:
    States(folder, two()).save(1, TENSORS, {})


def fill_the_disk(folder: Path, background: bool) -> str:
    """The second save fails on one rank, whose files can't grow beyond 100 bytes: returns every rank's error, and the remaining files."""
    place = two()
    states = States(folder, place, background=background)
    states.save(1, TENSORS, {})
    states.finish()
    if place.rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    try:
        states.save(2, TENSORS, {})
        states.finish()
    except CorpusmillError as error:
        saved = states.latest()
        assert saved is not None and saved.step == 1
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return "saved"


@pytest.mark.parametrize("background", [True, False])
def test_a_disk_that_is_full_on_one_rank_is_one_sentence_on_all(tmp_path: Path, background: bool) -> None:
    told = run_ranks(fill_the_disk, 2, tmp_path, background)
    assert told[0] == told[1] and "shard-00001-of-00002.safetensors: can't be written" in told[0] and "File too large" in told[0]
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def latest_steps(*folders: Path) -> list[int | None]:
    saved = [States(folder, two()).latest() for folder in folders]
    return [state and state.step for state in saved]


def save_steps(folder: Path) -> None:
    states = States(folder, two(), keep=3)
    for step in (1, 2, 3):
        states.save(step, TENSORS, {})


def test_what_is_damaged_is_passed_over_on_all_ranks(tmp_path: Path) -> None:
    changed, gone, cut = (tmp_path / name for name in ("changed", "gone", "cut"))
    run_ranks(save_steps, 2, changed)
    path = changed / "step-00000003" / "shard-00001-of-00002.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # of the same length
    path.write_bytes(content)
    shutil.copytree(changed, gone)
    (gone / "step-00000002" / "shard-00000-of-00002.safetensors").unlink()
    shutil.copytree(gone, cut)
    (cut / "step-00000001" / "state.json").write_text('{"step": 1, "rec')
    assert run_ranks(latest_steps, 2, changed, gone, cut) == [[2, 1, None]] * 2


def save_elsewhere(folder: Path) -> None:
    place = two()
    States(folder / str(place.rank), place).save(1, TENSORS, {})


def test_processes_that_do_not_share_a_folder_are_told_so(tmp_path: Path) -> None:
    with pytest.raises(CorpusmillError, match="process 1 wrote elsewhere; all processes need to see the same folder"):
        run_ranks(save_elsewhere, 2, tmp_path)


def export_slowly(folder: Path) -> list[str]:
    """The first process exports for longer than the timeout of the collectives; all leave together, and so see its files."""
    dist.destroy_process_group()
    store = dist.FileStore(str(folder / "store"), 2)
    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=2))
    dims = two()
    checkpoint_dir = CheckpointDir(str(folder / "checkpoints" / "one"), str(folder / "train.jsonl"))
    if dims.is_main:
        time.sleep(5)
        (checkpoint_dir.folder / "model").mkdir(parents=True)
        (checkpoint_dir.folder / "model" / "config.json").touch()
    checkpoint_dir.leave(dims)
    return [path.name for path in checkpoint_dir.left()]


@pytest.mark.long
def test_an_export_may_take_longer_than_the_timeout_of_the_collectives(tmp_path: Path) -> None:
    assert run_ranks(export_slowly, 2, tmp_path) == [["config.json"]] * 2


# ---- resume ------------------------------------------------------------------------------------------

# Trainings that are killed (SIGKILL): equal to the bit on the same layout, within rounding on another.

PLAIN: dict[str, Any] = {"async_save": False, "optimizer": {"kind": "adamw"}, "precision": "bf16-params", "checkpointing": True}
BACKGROUND: dict[str, Any] = {"async_save": True, "optimizer": {"kind": "muon"}}


@pytest.mark.parametrize(("options", "kills", "then"), [(BACKGROUND, (2, 9), {}), (PLAIN, (6,), {"checkpointing": False})])
def test_a_process_that_is_killed_and_resumed_gives_the_same_bytes(
    tmp_path: Path, options: dict[str, Any], kills: tuple[int, ...], then: dict[str, Any]
) -> None:
    """Also in half precision, and if layers that were computed again are kept in memory now."""
    assert in_child(train, tmp_path / "whole", {}, options) == 0
    for kill in kills:
        assert os.WTERMSIG(in_child(train, tmp_path / "killed", {}, options, kill)) == signal.SIGKILL
    assert in_child(train, tmp_path / "killed", {}, options | then) == 0
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


ONE: dict[str, Any] = {}
COPIES, ZERO1, SHARDS, TENSOR = {"replicate": 2}, {"shard": 2, "zero": 1}, {"shard": 2}, {"tensor": 2}


def resumed(folder: Path, parallel: dict[str, Any], *arguments: Any) -> list[dict[str, Any]]:
    return run_ranks(train, ParallelConfig.model_validate(parallel).world, str(folder), parallel, *arguments)


def shares(parallel: dict[str, Any]) -> int:
    """Returns the number of processes that see different rows."""
    return int(parallel.get("replicate", 1) * parallel.get("shard", 1))


def long(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.long)


@pytest.mark.long
@pytest.mark.parametrize(
    ("parallel", "kind"),
    [
        (SHARDS, "muon"),
        ({"pipeline": 2}, "adamw"),
        long(TENSOR, "adamw"),
        long({"pipeline": 2, "shard": 2}, "muon"),
    ],
    ids=str,
)
@pytest.mark.rounding
def test_killed_on_several_processes_and_resumed_gives_the_same_bytes(tmp_path: Path, parallel: dict[str, Any], kind: str) -> None:
    options = {"optimizer": {"kind": kind}}
    resumed(tmp_path / "whole", parallel, options)
    for kill, victim in ((6, 1), (10, 0)):
        with pytest.raises(RuntimeError, match=f"rank {victim} ended with -9"):
            resumed(tmp_path / "killed", parallel, options, kill, victim)
    again = resumed(tmp_path / "killed", parallel, options)
    assert {result["begin"] for result in again} in (
        {4},
        {5},
        {8},
    )  # the state after 8 steps may have been half written at step 10; at 5 the rate begins to fall
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("layouts", "kind"),
    [
        ((ZERO1, {"pipeline": 2, "shard": 2}, ONE), "muon"),
        long((ONE, TENSOR, COPIES), "adamw"),
    ],
    ids=str,
)
@pytest.mark.rounding
def test_resumed_twice_on_other_layouts_goes_on_with_the_same_rows_and_losses(
    tmp_path: Path, layouts: tuple[dict[str, Any], ...], kind: str
) -> None:
    options = {"optimizer": {"kind": kind}, "async_save": False}
    resumed(tmp_path / "one", ONE, options)
    folder = tmp_path / "many"
    for number, (parallel, kill) in enumerate(zip(layouts, (5, 9, None), strict=True)):
        now = {**options, "keep": number + 1}  # the number of kept states may change
        if kill:
            with pytest.raises(RuntimeError, match="rank 0 ended with -9"):
                resumed(folder, parallel, now, kill)
        else:
            assert {result["begin"] for result in resumed(folder, parallel, now)} == {8}
        for step in range(4 * number, 4 * number + 4):
            assert rows_seen(folder, step, shares(parallel)) == rows_of(step).tolist()
    # A layout adds floats in its own order, which differs by processor. A loss of 3.6 in float32 has steps of 2.4e-7; 2.1e-6 was seen with
    # Muon, which orthogonalises rounding errors, too: its twelve updates are 0.02 each.
    apart = {"adamw": (1e-5, 1e-4), "muon": (1e-4, 1e-3)}[kind]  # of losses, of weights
    for line, wanted in zip(lines(folder), lines(tmp_path / "one"), strict=True):
        assert line["step"] == wanted["step"] and line["loss"] == pytest.approx(wanted["loss"], abs=apart[0])
    assert len(list((folder / "state").iterdir())) == 3
    last = [saved_states(Storage(str(path / "state")))[-1] for path in (folder, tmp_path / "one")]
    assert [saved.step for saved in last] == [STEPS] * 2
    weights, wanted = (saved.weights() for saved in last)
    assert weights.keys() == wanted.keys() and all(weights[name].allclose(wanted[name], atol=apart[1]) for name in wanted)
