"""Tests trainings by Ray Train on a real Ray, started once for all of these tests."""

import contextlib
import platform
import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from launch_runs import left, train

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.on_ray.engine import RayEngine
from corpusmill.pipeline.storage import Storage
from corpusmill.train import launch as launching
from corpusmill.train.launch import launch
from corpusmill.train.launch_ray import RayGroup, _work
from corpusmill.train.options import ParallelConfig


@pytest.fixture(scope="module")
def engine(ray_engine: RayEngine) -> Iterator[RayEngine]:
    """Returns the Ray of two CPUs; with an address, a training uses Ray Train."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "local")
        yield ray_engine


@pytest.mark.long
def test_the_bytes_of_local_processes_though_one_is_killed(
    engine: RayEngine,
    token_run: Storage,
    trained_by_two: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    real = launching.launch

    def with_death(job: str, arguments: dict[str, Any], *rest: Any, **options: Any) -> dict[str, Any]:
        return real("launched:train_and_die", {**arguments, "marker": str(tmp_path / "died")}, *rest, **options)

    monkeypatch.setattr(launching, "launch", with_death)
    train(token_run, engine)
    assert left(token_run) == trained_by_two
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ("corpusmill: pretrain: process 2 of 2 died (ActorDiedError); all begin again from the last state (restart 1 of 3).\n")


@pytest.mark.long
def test_errors_are_sentences_at_once(engine: RayEngine, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def add(deed: str, world: int = 2) -> dict[str, Any]:
        folder = tmp_path / "processes"
        return launch("launched:add", {"deed": deed}, ParallelConfig(shard=world), "cpu", None, folder=folder, engine=engine)

    with pytest.raises(InputError, match=r"^parallel: 3 processes need a CPU each, and the nodes of the cluster have 2 CPUs\.$"):
        add("", world=3)
    with pytest.raises(InputError, match=r"^tokens\.bin: broken at byte 7\.$"):
        add("bad input")
    assert capfd.readouterr() == ("", "") and not (tmp_path / "processes").exists()


def test_an_interrupt_leaves_no_folder(engine: RayEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, end = threading.Event(), threading.Event()

    def trainer(self: RayGroup, per_worker: Any, left: Storage, folder: str) -> Any:
        (Path(folder) / "ray").touch()
        begun.set()
        return SimpleNamespace(fit=lambda: end.wait(60))

    def interrupt() -> None:
        assert begun.wait(60) and list(tmp_path.glob("corpusmill-train-*/ray"))
        raise KeyboardInterrupt

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(RayGroup, "_trainer", trainer)
    task: Any = {"job": "", "arguments": {}, "parallel": {"shard": 2}, "device": "cpu"}
    left = Storage(str(tmp_path / "processes"))
    with pytest.raises(KeyboardInterrupt):
        RayGroup(task, left, engine, lambda: contextlib.nullcontext(interrupt), "pretrain").run(left)
    end.set()
    assert not list(tmp_path.glob("corpusmill-train-*"))


def test_a_node_without_the_runs_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"^{tmp_path}/missing: the node {re.escape(platform.node())} has no such folder; "):
        _work({"left": str(tmp_path / "missing"), "cwd": "", "task": {}, "threads": 1})
