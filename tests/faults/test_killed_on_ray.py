"""Tests a run on a Ray cluster whose worker process, raylet and finally driver are killed (SIGKILL): it gives the same bytes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import victims
from raylets import Raylets

#: The process to kill, when the manifest of a stage has a number of rows.
KILLS = (("ingest", 2, "worker"), ("dedup", 1, "raylet"), ("tokens", 2, "driver"))


def until(done: Callable[[], Any], process: "subprocess.Popen[str]", log: Path) -> Any:
    """Waits until `done` returns a true value, and returns it."""
    over = time.monotonic() + 240
    while not (found := done()):
        assert process.poll() is None and time.monotonic() < over, log.read_text()
        time.sleep(0.01)
    return found


def rows(run: Path, stage: str) -> int:
    manifest = run / stage / "manifest.jsonl"
    return manifest.read_bytes().count(b"\n") if manifest.exists() else 0


@pytest.mark.long
def test_a_worker_a_raylet_and_the_driver_are_killed(recipe_and_crawl, tmp_path: Path, undisturbed, tree, faults_of) -> None:
    run, log, (recipe, crawl) = tmp_path / "run", tmp_path / "said", recipe_and_crawl
    command = [sys.executable, "-m", "corpusmill", "run", recipe, crawl, "--output", str(run), "--engine", "ray"]
    with Raylets(({"CPU": 1}, {"CPU": 1})) as cluster, open(log, "w") as said:
        environment = {**os.environ, **cluster.environment}
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said, text=True, start_new_session=True)
        try:
            for stage, wanted, target in KILLS:
                until(lambda stage=stage, wanted=wanted: rows(run, stage) >= wanted, process, log)  # type: ignore[misc]
                if target == "driver":
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    continue
                victim = until(lambda target=target: victims.find(target, process.pid, cluster), process, log)  # type: ignore[misc]
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim[0], signal.SIGKILL)
            assert tree(run) != undisturbed
            process = subprocess.Popen(command, env=environment, stdout=said, stderr=said, text=True, start_new_session=True)
            assert process.wait(240) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
    assert "it is done again" in log.read_text() and "something has changed" not in log.read_text()
    assert tree(run) == undisturbed and faults_of(run) == []
