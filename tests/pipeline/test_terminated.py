"""Tests SIGTERM (`ray job stop`, Slurm, Kubernetes) and Ctrl-C: one sentence, an exit code, no process left; the next run resumes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

MARK = "CORPUSMILL_TEST_MARK"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Makes a recipe, and JSON lines that become six tasks, too many to be done without Ray."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "recipe.yaml").write_text("ingest: {task_mb: 4}\n")
    draw = random.Random(4)
    words = [f"{draw.getrandbits(40):x}" for _ in range(5000)]
    with open(folder / "texts.jsonl", "w") as file:
        for number in range(12_000):
            file.write(json.dumps({"id": str(number), "text": " ".join(draw.choices(words, k=180))}) + "\n")
    return folder / "recipe.yaml", folder / "texts.jsonl"


def start(inputs: tuple[Path, Path], run: Path, mark: str = "") -> subprocess.Popen[str]:
    recipe, texts = inputs
    command = [sys.executable, "-m", "corpusmill", "run", recipe, texts, "--output", run, "--to", "ingest"]
    command += ["--workers", "2"] if mark else ["--engine", "inline"]
    environment = {**os.environ, MARK: mark}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finished(inputs: tuple[Path, Path], run: Path) -> None:
    process = start(inputs, run)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err


def ended(process: subprocess.Popen[str], run: Path, number: int) -> tuple[int, str]:
    """Sends the signal as soon as a task is finished; returns the exit code and standard error."""
    manifest = run / "ingest/manifest.jsonl"
    until = time.monotonic() + 200
    while not (manifest.exists() and b"\n" in manifest.read_bytes()):
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=200)
    return process.returncode, err


def alive(mark: str) -> list[str]:
    """Returns the commands of processes with this mark in their environment."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if f"{MARK}={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_run_on_ray_is_terminated_and_goes_on(inputs: tuple[Path, Path], tmp_path: Path, tree: Callable[[Path], dict[str, str]]) -> None:
    mark = uuid.uuid4().hex
    code, err = ended(start(inputs, tmp_path / "run", mark), tmp_path / "run", signal.SIGTERM)
    assert (code, err) == (143, "corpusmill: terminated; run the same command again to go on where it stopped.\n")
    until = time.monotonic() + 60  # a process that has just started notices that it is alone when its libraries are loaded
    while alive(mark) and time.monotonic() < until:
        time.sleep(0.1)
    assert alive(mark) == []
    finished(inputs, tmp_path / "run")
    finished(inputs, tmp_path / "calm")
    assert tree(tmp_path / "run") == tree(tmp_path / "calm")


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGTERM, 143, "terminated"), pytest.param(signal.SIGINT, 130, "interrupted", marks=pytest.mark.long)],
)
def test_a_run_in_one_process_ends_the_same_way(inputs: tuple[Path, Path], tmp_path: Path, number: int, code: int, said: str) -> None:
    found = ended(start(inputs, tmp_path / "run"), tmp_path / "run", number)
    assert found == (code, f"corpusmill: {said}; run the same command again to go on where it stopped.\n")
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".tmp-")]
