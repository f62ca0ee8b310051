"""Tests the main promise: a run killed anywhere, on any engine, with any number of workers, gives the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from whole_run import DATA, make_quality

TOKENS = """
tokens:
  validation_share: 0.1
  shard_tokens: 20000
  mixture:
    budget_tokens: 90000
    components:
      - {name: rows, where: {host: rows.test}, weight: 1, max_epochs: 3}
      - {name: pages, weight: 2, max_epochs: 2}
"""
RECIPE = DATA + TOKENS


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "data.yaml"
    path.write_text(RECIPE)
    make_quality(path.parent)
    return path


def start(recipe: Path, crawl: Path, output: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "corpusmill", "run", str(recipe), str(crawl), "--output", str(output), "--to", "tokens", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


def finish(process: subprocess.Popen) -> str:
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    return out


@pytest.fixture(scope="module")
def reference(recipe, crawl, tmp_path_factory) -> Path:
    """Makes an undisturbed run."""
    run = tmp_path_factory.mktemp("reference") / "run"
    finish(start(recipe, crawl, run, "--engine", "inline"))
    return run


@pytest.fixture(scope="module")
def undisturbed(reference, tree) -> dict[str, str]:
    found = tree(reference)
    for stage in ("ingest", "filter", "dedup", "tokenizer", "tokens"):
        assert any(path.startswith(f"{stage}/") for path in found)
    return found


def kill_when(process: subprocess.Popen, run: Path, stage: str, rows: int) -> None:
    """Sends SIGKILL to the run and all its processes as soon as the stage's manifest has `rows` rows."""
    manifest = run / stage / "manifest.jsonl"
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if manifest.exists() and manifest.read_bytes().count(b"\n") >= rows:
            break
        time.sleep(0.002)
    assert process.poll() is None, "the run ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


#: The kills of each run, in order: the stage, and the number of rows in its manifest at the kill.
POINTS = [
    [("ingest", 1), ("filter", 4), ("dedup", 3), ("tokens", 1)],
    [("ingest", 2), ("filter", 1), ("dedup", 1), ("tokens", 3)],
    [("filter", 2), ("tokenizer", 1), ("tokens", 7)],
]


@pytest.mark.parametrize(
    "points", [POINTS[0], *(pytest.param(points, marks=pytest.mark.long) for points in POINTS[1:])], ids=["one", "two", "three"]
)
def test_a_run_killed_again_and_again_in_any_stage_gives_the_same_bytes(recipe, crawl, undisturbed, tree, tmp_path, points):
    run = tmp_path / "run"
    for stage, rows in points:
        kill_when(start(recipe, crawl, run, "--engine", "inline"), run, stage, rows)
        assert tree(run) != undisturbed
    finish(start(recipe, crawl, run, "--engine", "inline"))
    assert tree(run) == undisturbed


@pytest.mark.long
def test_ray_gives_the_same_bytes_as_one_process(recipe, crawl, undisturbed, tree, tmp_path):
    run = tmp_path / "run"
    finish(start(recipe, crawl, run, "--engine", "ray", "--workers", "1"))
    assert tree(run) == undisturbed


def test_a_run_on_ray_with_two_workers_that_is_killed_gives_the_same_bytes(recipe, crawl, undisturbed, tree, tmp_path):
    run = tmp_path / "run"
    kill_when(start(recipe, crawl, run, "--engine", "ray", "--workers", "2"), run, "filter", 1)
    finish(start(recipe, crawl, run, "--engine", "ray", "--workers", "2"))
    assert tree(run) == undisturbed


def test_a_finished_run_does_nothing_again(recipe, crawl, tree, reference):
    run = reference
    before = {path: (run / path).stat().st_mtime_ns for path in tree(run)}
    metrics = (run / "metrics.jsonl").read_bytes()
    out = finish(start(recipe, crawl, run, "--engine", "inline"))
    assert {path: (run / path).stat().st_mtime_ns for path in tree(run)} == before
    assert (run / "metrics.jsonl").read_bytes() == metrics and "ingest" in out
