"""Tests trainings by Ray Train on a cluster of two raylets, a process on each, without a shared disk; one raylet is killed."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from launch_runs import left, on_store, run_with_tokens, train
from raylets import Raylets

from corpusmill.pipeline.on_ray.engine import RayEngine
from corpusmill.pipeline.storage import Storage
from corpusmill.train import launch as launching

#: CPUs of a node: as many as each of two processes of this machine has, for the same number of threads, and the same last bits.
CPUS = max(1, len(os.sched_getaffinity(0)) // 2)


@pytest.fixture(scope="module")
def cluster(s3: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Raylets]:
    """Starts the driver's machine, whose head has no CPU, and two others."""
    folder, node = tmp_path_factory.mktemp("caches"), {"CPU": CPUS}
    variables = {"CORPUSMILL_CACHE": str(folder / "workers"), **s3.environment}
    with Raylets([node, node], variables=variables) as raylets, pytest.MonkeyPatch.context() as patch:
        for name, value in {"CORPUSMILL_CACHE": str(folder / "driver"), **raylets.environment}.items():
            patch.setenv(name, value)
        yield raylets


@pytest.fixture(scope="module")
def engine(ray_engine: RayEngine, cluster: Raylets) -> Iterator[RayEngine]:
    ray_engine.close()
    engine = RayEngine()
    yield engine
    engine.close()


@pytest.fixture
def run(s3: Any, tmp_path: Path, tokenizer_json: bytes, finish: Any, documents_of: Any) -> Storage:
    return on_store(s3, run_with_tokens(tmp_path / "run", tokenizer_json, finish, documents_of), f"{s3.bucket('cluster')}/run")


@pytest.mark.long
def test_a_killed_raylet_and_a_new_one(
    engine: RayEngine,
    cluster: Raylets,
    run: Storage,
    trained_by_two: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The training waits for a node and resumes there from its last state, with the bytes of an undisturbed one."""
    marker, real = tmp_path / "in step 6", launching.launch

    def with_wait(job: str, arguments: dict[str, Any], *rest: Any, **options: Any) -> dict[str, Any]:
        return real("launched:train_and_wait", {**arguments, "marker": str(marker)}, *rest, **options)

    def disturb() -> None:
        until(lambda: marker.exists() and marker.read_text())
        (node,) = [number for number in (1, 2) if int(marker.read_text().split()[0]) in cluster.processes(number)]
        cluster.kill(node)
        time.sleep(3)  # Ray notices that there is no room
        cluster.add({"CPU": CPUS})

    monkeypatch.setattr(launching, "launch", with_wait)
    thread = threading.Thread(target=disturb, daemon=True)
    thread.start()
    train(run, engine)
    thread.join()
    assert left(run) == trained_by_two
    first, *more = [line for line in capfd.readouterr().err.splitlines() if line.startswith("corpusmill: ")]
    assert re.fullmatch(r"corpusmill: pretrain: process \d of 2 \w.*; all begin again from the last state \(restart 1 of 3\)\.", first)
    assert all("waiting for room on the Ray cluster" in line for line in more) and len(more) < 2
    names = run.list_files("pretrain/checkpoints")
    assert any("shard-00001-of-00002" in name for name in names)
    assert not [name for name in names if "/processes/" in name or "/model/" in name]
    driver = Path(os.environ["CORPUSMILL_CACHE"])
    assert not [path for cache in driver.parent.iterdir() for path in (cache / "training").rglob("*.safetensors")]


def until(found: Callable[[], Any], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        time.sleep(0.1)
