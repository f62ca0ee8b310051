"""Tests saved states of several processes: sharded, replicated and single-rank tensors, read back by any other layout."""

import hashlib
import json
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from resuming import STEPS, files, rows_of, rows_seen, train
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.train.checkpoint import States, read_weights
from corpusmill.train.options import ParallelConfig
from corpusmill.train.parallel.dims import ParallelDims

# ---- state ranks -------------------------------------------------------------------------------------

LAYOUTS = {
    1: ParallelConfig(),
    2: ParallelConfig(shard=2),
    3: ParallelConfig(shard=3),
    4: ParallelConfig(shard=2, tensor=2),
}
SHAPES = {"tall": (7, 3), "wide": (4, 8), "short": (2, 5), "vector": (6,), "scalar": (), "half": (4, 4), "empty": (0, 3)}


def whole(name: str) -> Tensor:
    """Returns the values of a tensor, which every rank knows."""
    values = torch.randn(SHAPES[name], generator=torch.Generator().manual_seed(len(name) + ord(name[0])))
    return values.bfloat16() if name == "half" else values


def spread(world: int, rank: int, fill: bool) -> dict[str, Tensor]:
    """Returns the tensors as the ranks of a layout have them: matrices sharded over all dimensions of the mesh, vectors and scalars on
    every rank, and one on a single rank; all zeros without `fill`.
    """
    tensors = {f"model/{name}": whole(name) if fill else torch.zeros_like(whole(name)) for name in SHAPES}
    if world == 1:
        return {**tensors, "optimizer/lonely": torch.arange(9.0) if fill else torch.zeros(9)}
    if world == 4:
        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("shard", "tensor"))
        placements = {
            "tall": [Shard(0), Replicate()],
            "wide": [Shard(0), Shard(1)],
            "short": [Replicate(), Shard(1)],
            "half": [Shard(1), Shard(0)],
        }
    else:
        mesh = init_device_mesh("cpu", (world,), mesh_dim_names=("shard",))
        placements = {name: [Shard(0)] for name in ("tall", "wide", "short", "half", "empty")}
    for name, where in placements.items():
        tensors[f"model/{name}"] = distribute_tensor(tensors[f"model/{name}"], mesh, where)
    if rank == world - 1:
        tensors["optimizer/lonely"] = torch.arange(9.0) if fill else torch.zeros(9)
    return tensors


def dims(world: int) -> ParallelDims:
    device = torch.device("cpu")
    return ParallelDims.distributed(LAYOUTS[world], device) if world > 1 else ParallelDims.single(device)


def save(folder: Path, world: int, background: bool) -> None:
    torch.manual_seed(dist.get_rank() if world > 1 else 0)
    with States(folder, place := dims(world), background=background) as states:
        states.save(3, spread(world, place.rank, True), {"loss": 0.1}, 2.5)


def load(folder: Path, world: int) -> dict[str, Tensor]:
    """Returns a rank's values after loading, and its next random number."""
    place = dims(world)
    torch.manual_seed(1000 + place.rank)
    states, tensors = States(folder, place), spread(world, place.rank, False)
    saved = states.latest()
    assert saved is not None and (saved.step, saved.record, saved.score) == (3, {"loss": 0.1}, 2.5)
    states.load(saved, tensors)
    full = {name: t.full_tensor() if hasattr(t, "full_tensor") else t for name, t in tensors.items()}
    return {**full, "random": torch.rand(1)}


def run(world: int, function, *arguments):  # type: ignore[no-untyped-def]
    return run_ranks(function, world, *arguments) if world > 1 else [function(*arguments)]


@pytest.mark.parametrize(("world", "others"), [(1, [2]), (3, [1, 4]), (4, [1, 3])])
def test_what_any_layout_saves_others_read(tmp_path: Path, world: int, others: list[int]) -> None:
    run(world, save, tmp_path, world, True)
    state = tmp_path / "step-00000003"
    assert len(list(state.iterdir())) == world + 1
    weights = read_weights(state)
    assert weights.keys() == SHAPES.keys() and all(torch.equal(weights[name], whole(name)) for name in SHAPES)
    assert weights["half"].dtype is torch.bfloat16
    for other in others:
        found = run(other, load, tmp_path, other)
        for tensors in found:
            assert all(torch.equal(tensors[f"model/{name}"], whole(name)) for name in SHAPES)
        assert torch.equal(found[-1]["optimizer/lonely"], torch.arange(9.0))
        for rank, tensors in enumerate(found):
            seed = rank if rank < world else 1000 + rank
            assert torch.equal(tensors["random"], torch.rand(1, generator=torch.Generator().manual_seed(seed)))


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def save_both(folder: Path) -> None:
    for background in (True, False):
        save(folder / str(background), 2, background)


def test_equal_states_have_equal_bytes(tmp_path: Path) -> None:
    run(2, save_both, tmp_path / "a")
    run(2, save_both, tmp_path / "b")
    first, *others = (digests(tmp_path / name / how / "step-00000003") for name in "ab" for how in ("True", "False"))
    assert others == [first] * 3 and len(first) == 3


def test_each_rank_writes_its_half_of_what_all_have(tmp_path: Path) -> None:
    run_ranks(save_copies, 2, tmp_path)
    sizes = [path.stat().st_size for path in sorted((tmp_path / "step-00000001").glob("*.safetensors"))]
    assert len(sizes) == 2 and max(sizes) < 1.1 * min(sizes) and 80_000 < sum(sizes) < 90_000


def save_copies(folder: Path) -> None:
    states = States(folder, dims(2))
    states.save(1, {f"model/{number}": torch.ones(1000) for number in range(20)}, {})


def fill_the_disk(folder: Path, background: bool) -> str:
    """The second save fails on one rank, whose files can't grow beyond 100 bytes: returns every rank's error, and the remaining files."""
    place = dims(2)
    states = States(folder, place, background=background)
    tensors = {f"model/{number}": torch.full((1000,), 1.0) for number in range(4)}
    states.save(1, tensors, {})
    states.finish()
    if place.rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    try:
        states.save(2, tensors, {})
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
    saved = [States(folder, dims(2)).latest() for folder in folders]
    return [state and state.step for state in saved]


def save_steps(folder: Path) -> None:
    states = States(folder, dims(2), keep=3)
    for step in (1, 2, 3):
        states.save(step, spread(2, states.dims.rank, True), {})


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


def load_other(folder: Path, shape: int) -> None:
    states = States(folder, dims(2))
    saved = states.latest()
    assert saved is not None
    extra = {"optimizer/more": torch.zeros(1)} if states.dims.rank and shape == 7 else {}
    states.load(saved, {**spread(2, states.dims.rank, False), "model/tall": torch.zeros(shape, 3), **extra})


def test_another_shape_is_a_sentence_on_all_ranks(tmp_path: Path) -> None:
    run_ranks(save, 2, tmp_path, 2, False)
    with pytest.raises(InputError, match=r"step-00000003: model/tall is \[7, 3\] of torch\.float32, and in this training \[8, 3\]"):
        run_ranks(load_other, 2, tmp_path, 8)
    with pytest.raises(InputError, match=r"step-00000003: optimizer/more is missing \(1 in all\)"):
        run_ranks(load_other, 2, tmp_path, 7)


def save_elsewhere(folder: Path) -> None:
    place = dims(2)
    States(folder / str(place.rank), place).save(1, spread(2, place.rank, True), {})


def test_processes_that_do_not_share_a_folder_are_told_so(tmp_path: Path) -> None:
    with pytest.raises(CorpusmillError, match="process 1 wrote elsewhere; all processes need to see the same folder"):
        run_ranks(save_elsewhere, 2, tmp_path)


# ---- resume ranks ------------------------------------------------------------------------------------

# Trainings of several processes that are killed: equal to the bit on the same layout, within rounding on another.

ONE: dict[str, Any] = {}
COPIES, ZERO1, SHARDS, TENSOR = {"replicate": 2}, {"shard": 2, "zero": 1}, {"shard": 2}, {"tensor": 2}
STAGES = {"pipeline": 2}


def resumed(folder: Path, parallel: dict[str, Any], *arguments: Any) -> list[dict[str, Any]]:
    return run_ranks(train, ParallelConfig.model_validate(parallel).world, str(folder), parallel, *arguments)


def shares(parallel: dict[str, Any]) -> int:
    """Returns the number of processes that see different rows."""
    return int(parallel.get("replicate", 1) * parallel.get("shard", 1))


def long(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.long)


@pytest.mark.parametrize(
    ("parallel", "kind"),
    [
        (SHARDS, "muon"),
        (STAGES, "adamw"),
        long(ZERO1, "muon"),
        long(COPIES, "muon"),
        long(TENSOR, "adamw"),
        long({"pipeline": 2, "shard": 2}, "muon"),
    ],
    ids=str,
)
@pytest.mark.rounding
def test_killed_on_several_processes_and_resumed_gives_the_same_bytes(tmp_path: Path, parallel: dict[str, Any], kind: str) -> None:
    options = {"optimizer": {"kind": kind}}
    whole = resumed(tmp_path / "whole", parallel, options)
    for kill, victim in ((6, 1), (10, 0)):
        with pytest.raises(RuntimeError, match=f"rank {victim} ended with -9"):
            resumed(tmp_path / "killed", parallel, options, kill, victim)
    again = resumed(tmp_path / "killed", parallel, options)
    assert {result["begin"] for result in again} in ({4}, {8})  # the state after 8 steps may have been half written at step 10
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert [result["random"] for result in again] == [result["random"] for result in whole]


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("layouts", "kind"),
    [
        ((SHARDS, ONE, COPIES), "adamw"),
        ((ZERO1, {"pipeline": 2, "shard": 2}, ONE), "muon"),
        long((ONE, TENSOR, SHARDS), "adamw"),
        long((COPIES, STAGES, {"shard": 4}), "muon"),
        long((SHARDS, {"shard": 2, "tensor": 2}, COPIES), "adamw"),
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
    weights, wanted = (read_weights(path / "state" / f"step-{STEPS:08d}") for path in (folder, tmp_path / "one"))
    assert weights.keys() == wanted.keys() and all(weights[name].allclose(wanted[name], atol=apart[1]) for name in wanted)
