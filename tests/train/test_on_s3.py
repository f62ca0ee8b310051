"""Tests trainings of a run on a store (a real S3 server on loopback): the bytes of a run on a disk, whichever machine resumes them."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import training_on_store as training
from launch_runs import on_store, run_with_tokens
from training_on_store import EARLIER, PRETRAINING

from corpusmill.pipeline.cache import local_model
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.train import pretrain_job
from corpusmill.train.checkpoint import CheckpointDir, checkpoints, export_state, on_disk
from corpusmill.train.data import TokenDataset, WindowLoader
from corpusmill.train.evaluate import EvaluateStage
from corpusmill.train.parallel import ParallelDims
from corpusmill.train.tuning import AlignStage, SftStage

pytestmark = pytest.mark.long

LOOP = {"steps": 4, "save_every": 2, "threads": 1}
TUNING = [
    SftStage(SftStage.Config.model_validate({"batch": 4, "examples": 40, "template": "llama3", "loop": LOOP, "device": "cpu"})),
    AlignStage(
        AlignStage.Config.model_validate({"batch": 4, "pairs": 40, "held_out": 0.2, "loop": LOOP, "device": "cpu", "lora": {"rank": 2}})
    ),
    EvaluateStage(EvaluateStage.Config.model_validate({"samples": 2, "max_tokens": 8, "device": "cpu"})),
]
STAGES = ("pretrain", "sft", "align", "evaluate")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, tokenizer_json: bytes, finish: Any, documents_of: Any) -> Storage:
    """Makes a run on a disk with finished tokens."""
    return run_with_tokens(tmp_path_factory.mktemp("local") / "run", tokenizer_json, finish, documents_of)


@pytest.fixture(scope="module")
def remote(s3: Any, local: Storage) -> Storage:
    """Makes the same run on a store."""
    return on_store(s3, local, f"{s3.bucket('training')}/runs/one")


@pytest.fixture(scope="module")
def trained(local: Storage, remote: Storage, execute: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tunes and evaluates both runs; returns the cache of the machine that did it."""
    cache = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CORPUSMILL_CACHE", str(cache))
        for run in (local, remote):
            execute(run, PRETRAINING, *TUNING, earlier=EARLIER)
    return cache


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Makes this process act as another machine: with its own cache, empty at first."""

    def enter(name: str) -> Path:
        monkeypatch.setenv("CORPUSMILL_CACHE", str(tmp_path / name))
        return tmp_path / name

    enter("first")
    yield enter


def left(run: Storage, stages: tuple[str, ...] = STAGES) -> dict[str, Any]:
    """Returns the published files of stages of a run, by path, and their logs."""
    found: dict[str, Any] = {f"{s}/{o.path}": o.sha256 for s in stages for row in Manifest(run.child(s)).rows() for o in row.outputs}
    return found | {f"{s}/log": run.read_bytes(f"{s}/logs/train.jsonl") for s in stages if s != "evaluate"}


def scratch(machine: Path) -> list[str]:
    return [path.relative_to(machine).as_posix() for path in (machine / "training").rglob("*") if path.is_file()]


def states(run: Storage) -> dict[str, list[str]]:
    """Returns the files of each saved state of a run's pre-training on the store."""
    found: dict[str, list[str]] = {}
    for path in run.list_files("pretrain/checkpoints"):
        if "/state/" in path:
            step, name = path.split("/")[-2:]
            found.setdefault(step, []).append(name)
    return found


def test_a_training_killed_again_and_again_goes_on_elsewhere_with_the_same_bytes(
    local: Storage, remote: Storage, execute: Any, machine: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, s3: Any
) -> None:
    execute(local, PRETRAINING, earlier=EARLIER)

    assert training.exit_code(remote, "dying_in_step_6") == -signal.SIGKILL
    whole = ["shard-00000-of-00001.safetensors", "state.json"]
    assert states(remote) == {"step-00000004": whole, "step-00000005": whole}  # at 5 the rate begins to fall
    machine("second")
    assert training.exit_code(remote, "dying_before_state_8_is_whole") == -signal.SIGKILL
    assert states(remote)["step-00000008"] == ["shard-00000-of-00001.safetensors"]
    assert [state.step for state in checkpoints(remote.root)] == [4, 5]

    third, steps = machine("third"), list[int]()
    batches = pretrain_job._Job.batches
    monkeypatch.setattr(pretrain_job._Job, "batches", lambda self, step, share: (steps.append(step), batches(self, step, share))[1])
    execute(remote, PRETRAINING, earlier=EARLIER)
    assert sorted(set(steps)) == list(range(5, 12))
    assert left(remote, ("pretrain",)) == left(local, ("pretrain",))
    assert list(states(remote)) == ["step-00000005", "step-00000008", "step-00000012"] and scratch(third) == []
    names = {path.split("/")[3] for path in remote.list_files("pretrain/checkpoints")}
    assert names == {"state", "tokenizer"} and s3.uploads("training") == []
    assert execute(remote, PRETRAINING, earlier=EARLIER).performed == 0


def test_tuning_and_evaluation_leave_the_same_bytes(local: Storage, remote: Storage, trained: Path) -> None:
    assert left(remote) == left(local)
    assert scratch(trained) == [] and list((trained / "model-folders").rglob("*.safetensors"))
    assert not [path for path in remote.list_files() if "/start/" in path or "/processes/" in path]


def test_states_and_models_are_used_from_the_store(
    remote: Storage, local: Storage, trained: Path, machine: Callable[[str], Path], tmp_path: Path, corpusmill: Any
) -> None:
    checkpoint_dir = CheckpointDir(checkpoints(remote.root)[0].work.root, remote.path("pretrain/logs/train.jsonl"))
    checkpoint_dir.begin({})  # as if the training were in progress here
    half_written = on_disk(checkpoint_dir.states.child("step-00000016")) / "shard-00000-of-00001.safetensors"
    half_written.parent.mkdir(parents=True)
    half_written.write_bytes(b"half")
    at_work = scratch(machine("first"))
    assert len(at_work) > 1
    assert [(state.stage, state.step) for state in checkpoints(remote.root)][:3] == [
        ("pretrain", 5),
        ("pretrain", 8),
        ("pretrain", 12),
    ]
    for run, name in ((local, "here"), (remote, "there")):
        export_state(run.root, 8, tmp_path / name, "pretrain")
        export_state(run.root, 4, tmp_path / f"{name}-align", "align")
    assert scratch(machine("first")) == at_work and not list(machine("first").glob("export-*"))
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        for kind in ("", "-align"):
            assert (tmp_path / f"here{kind}" / name).read_bytes() == (tmp_path / f"there{kind}" / name).read_bytes()
    written = [corpusmill("generate", f"{run.root}/align/model", "--prompt", "The mill", "--max-tokens", 8) for run in (local, remote)]
    assert written[0][0] == 0 and written[0] == written[1]
    with pytest.raises(InputError, match=r"^s3://training/none: no such model folder\.$"):
        local_model("s3://training/none")


def test_a_copy_of_a_model_follows_the_store_and_a_former_one_goes_when_unused(s3: Any, machine: Callable[[str], Path]) -> None:
    url, copies = f"{s3.bucket('models')}/m", []
    for content in (b"one", b"two!"):
        s3.put(f"{url}/config.json", content)
        copies.append(local_model(url))
        assert (copies[-1] / "config.json").read_bytes() == content and local_model(url) == copies[-1]
    assert (copies[0] / "config.json").read_bytes() == b"one"  # another process may read it
    os.utime(copies[0].parent, (0, 0))
    assert local_model(url) == copies[1] and not copies[0].exists()
    os.utime(copies[1].parent, (0, 0))
    s3.put(f"{url}2/config.json", b"")
    assert local_model(f"{url}2").exists() and not copies[1].exists()


def test_the_end_of_the_logs_comes_to_the_store(s3: Any, machine: Callable[[str], Path]) -> None:
    """Trackers write the end of their logs when they are closed, after the last state."""
    run = Storage(f"{s3.bucket('logs')}/run/pretrain")
    checkpoint_dir = CheckpointDir(run.path("checkpoints/one"), run.path("logs/train.jsonl"))
    checkpoint_dir.log_file.parent.mkdir(parents=True)
    checkpoint_dir.log_file.write_bytes(b"{}")
    checkpoint_dir.keep_logs()
    (checkpoint_dir.log_file.parent / "events").write_bytes(b"the last one")
    checkpoint_dir.leave(ParallelDims.single(torch.device("cpu")))
    assert run.read_bytes("logs/events") == b"the last one"
    shutil.rmtree(checkpoint_dir.folder)
    with pytest.raises(CorpusmillError, match=r"train\.jsonl: was removed while the training writes its log there\.$"):
        checkpoint_dir.keep_logs()


def test_workers_of_a_loader_read_shards_of_a_store(remote: Storage, local: Storage, machine: Callable[[str], Path]) -> None:
    """The process has used the store before it starts the workers, which therefore must not be its forks."""
    loaders = [WindowLoader(TokenShards(run.path("tokens/train")), 64, 4, 1, False) for run in (local, remote)]
    here, there = ([ids.tolist() for ids, *_ in TokenDataset(loader, steps=3).batches(workers)] for loader, workers in zip(loaders, (0, 2)))
    assert here == there
