"""Tests trainings by Ray Train on a real Ray, started once for all of these tests."""

import _thread
import platform
import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.on_ray.engine import RayEngine
from corpusmill.train import launch as launching
from corpusmill.train.launch import _run_on_ray, _work_on_ray, find_resources, launch
from corpusmill.train.options import ParallelConfig


@pytest.fixture(scope="module")
def engine(ray_engine: RayEngine) -> Iterator[RayEngine]:
    """Returns the Ray of two CPUs; with an address, a training uses Ray Train."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "local")
        yield ray_engine


@pytest.mark.long
def test_an_error_is_a_sentence_at_once(engine: RayEngine, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"^tokens\.bin: broken at byte 7\.$"):
        launch("launched:add", {"deed": "bad input"}, ParallelConfig(shard=2), "cpu", None, folder=tmp_path / "processes", engine=engine)
    assert capfd.readouterr() == ("", "") and not (tmp_path / "processes").exists()


@pytest.mark.long
def test_an_interrupt_leaves_no_folder(engine: RayEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, end = threading.Event(), threading.Event()

    def trainer(task: Any, parallel: Any, resources: Any, records: str) -> Any:
        (Path(records) / "ray").touch()
        begun.set()
        return SimpleNamespace(fit=lambda: end.wait(120))

    def interrupt() -> None:
        assert begun.wait(120) and list(tmp_path.glob("corpusmill-train-*/ray"))
        _thread.interrupt_main()

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(launching, "_trainer", trainer)
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        _run_on_ray(TASK, ParallelConfig(shard=2), engine, "pretrain")
    end.set()
    assert not list(tmp_path.glob("corpusmill-train-*"))


TASK: Any = {"job": "", "arguments": {}, "parallel": {}, "device": "cpu"}


def test_a_node_without_the_runs_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"^{tmp_path}/missing: the node {re.escape(platform.node())} has no such folder; "):
        _work_on_ray({"cwd": "", "task": {**TASK, "arguments": {"run": str(tmp_path / "missing")}}, "threads": 1})


@pytest.fixture
def nodes(engine: RayEngine, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Returns the node of the Ray, as one of a cluster that may get others: a training waits for them."""
    found: list[Any] = engine.connect().nodes()
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(launching, "LOOK", 0.1)
    return found


def test_no_room_is_a_sentence_and_a_wait_for_it_ends(
    engine: RayEngine, nodes: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine.connect(), "nodes", lambda: nodes * 2)
    has = "and the nodes of the cluster have 2 CPUs; 2 CPUs"
    for parallel, need in (({"shard": 5}, "5 processes need a CPU each"), ({"shard": 3, "cpus": 1000}, "1000 CPUs")):
        with pytest.raises(InputError, match=rf"^parallel: .*{need}.*, {has}\.$"):
            launch("launched:add", {}, ParallelConfig(**parallel, wait=0), "cpu", None, folder=tmp_path / "processes", engine=engine)
    with pytest.raises(InputError, match=rf"^parallel: 1000 processes .*{has}, for 1 seconds\.$"):
        _run_on_ray(TASK, ParallelConfig(shard=1000, wait=1), engine, "pretrain")
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("corpusmill: ")]
    assert len(said) == 1 and "waiting for room" in said[0]


def test_what_a_process_gets_of_unequal_nodes() -> None:
    head, small, large, gpus, bare = {}, {"CPU": 8.0}, {"CPU": 64.0}, {"CPU": 16.0, "GPU": 2.0}, {"GPU": 1.0}
    assert find_resources([head, small, small], 2, "auto") == {"CPU": 8.0}
    assert find_resources([head, large, small], 2, "cpu") == {"CPU": 32.0}
    assert find_resources([head, {"CPU": 1.0}, {"CPU": 1.0}], 3, "cpu") is None
    assert find_resources([large, gpus, gpus], 4, "auto") == {"CPU": 8.0, "GPU": 1.0}  # not on the large node, which has no GPU
    assert find_resources([large, gpus, gpus], 5, "auto") == {"CPU": 16.0}  # more than there are GPUs
    assert find_resources([small, bare, bare], 2, "cuda") == {"GPU": 1.0}
