"""Tests the main promise: a run killed anywhere, on any engine, with any number of workers, gives the same bytes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from flipped_bits import flip, outcome, perform
from forked import Driver
from whole_run import DATA, write_inputs

from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.run import execute, new_plan
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress

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
def inputs(tmp_path_factory) -> tuple[Path, Path]:
    """Returns the recipe, and a crawl that is large enough for Ray to start."""
    recipe, crawl = write_inputs(tmp_path_factory.mktemp("inputs"))
    recipe.write_text(RECIPE)
    return recipe, crawl


def arguments(inputs: tuple[Path, Path], run: Path, *options: str) -> list[str]:
    return ["run", *map(str, inputs), "--output", str(run), "--to", "tokens", *options]


def start(inputs: tuple[Path, Path], run: Path) -> Driver:
    return Driver(arguments(inputs, run, "--engine", "inline"), run.with_suffix(".txt"), {})


def start_on_ray(inputs: tuple[Path, Path], run: Path, workers: int) -> subprocess.Popen:
    command = [sys.executable, "-m", "corpusmill", *arguments(inputs, run, "--engine", "ray", "--workers", str(workers))]
    with open(run.with_suffix(".txt"), "w") as said:
        return subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)


def finish(process: Driver | subprocess.Popen, run: Path) -> str:
    out = process.wait(300), run.with_suffix(".txt").read_text()
    assert out[0] == 0, out
    return out[1]


@pytest.fixture(scope="module")
def reference(inputs, tmp_path_factory) -> Path:
    """Makes an undisturbed run, in this process, so that drivers forked later have all libraries loaded."""
    run = tmp_path_factory.mktemp("reference") / "run"
    plan = new_plan(str(run), str(inputs[0]), [str(inputs[1])], last="tokens")
    execute(plan, InlineEngine(), Progress(False))
    return run


@pytest.fixture(scope="module")
def undisturbed(reference, tree) -> dict[str, str]:
    found = tree(reference)
    for stage in ("ingest", "filter", "dedup", "tokenizer", "tokens"):
        assert any(path.startswith(f"{stage}/") for path in found)
    return found


def kill_when(process: Driver | subprocess.Popen, run: Path, stage: str, rows: int) -> None:
    """Sends SIGKILL to the run and all its processes as soon as the stage's manifest has `rows` rows."""
    manifest = run / stage / "manifest.jsonl"
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if manifest.exists() and manifest.read_bytes().count(b"\n") >= rows:
            break
        time.sleep(0.002)
    assert process.poll() is None, "the run ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)


#: The kills of each run, in order: the stage, and the number of rows in its manifest at the kill.
POINTS = [
    [("ingest", 1), ("filter", 4), ("dedup", 3), ("tokens", 1)],
    [("ingest", 2), ("filter", 1), ("tokenizer", 1), ("tokens", 7)],
]


@pytest.mark.parametrize("points", [POINTS[0], pytest.param(POINTS[1], marks=pytest.mark.long)], ids=["one", "two"])
def test_a_run_killed_again_and_again_in_any_stage_gives_the_same_bytes(inputs, undisturbed, tree, tmp_path, points):
    run = tmp_path / "run"
    for stage, rows in points:
        kill_when(start(inputs, run), run, stage, rows)
        assert tree(run) != undisturbed
    finish(start(inputs, run), run)
    assert tree(run) == undisturbed


@pytest.mark.parametrize(
    ("stage", "engine"), [pytest.param("filter", "inline", marks=pytest.mark.long), pytest.param("dedup", "ray", marks=pytest.mark.long)]
)
def test_a_run_on_ray_that_is_killed_gives_the_same_bytes_on_either_engine(inputs, undisturbed, tree, tmp_path, stage, engine):
    run = tmp_path / "run"
    kill_when(start_on_ray(inputs, run, 2), run, stage, 1)
    assert tree(run) != undisturbed
    finish(start(inputs, run) if engine == "inline" else start_on_ray(inputs, run, 1), run)
    assert tree(run) == undisturbed


def test_a_finished_run_does_nothing_again(inputs, tree, reference):
    run = reference
    before = {path: (run / path).stat().st_mtime_ns for path in tree(run)}
    metrics = (run / "metrics.jsonl").read_bytes()
    out = finish(start(inputs, run), run)
    assert {path: (run / path).stat().st_mtime_ns for path in tree(run)} == before
    assert (run / "metrics.jsonl").read_bytes() == metrics and "ingest" in out


#: A stage, a file that it reads, where in the file a bit is flipped, and how many of the stage's tasks were done before (0: none).
FLIPS = [
    ("filter", "ingest/data/part-00000.parquet", 0.5, 0),
    ("dedup", "filter/data/part-00001.parquet", 0.99, 0),  # in its footer
    ("dedup", "dedup/keys/part-00000.bands.arrow", 0.4, 6),
    ("tokenizer", "dedup/data/part-00002.parquet", 0.3, 0),
    ("tokens", "tokenizer/tokenizer.json", 0.5, 0),
    ("tokens", "tokens/encoded/part-00001.tokens.arrow", 0.5, 9),
    pytest.param("ingest", "ingest/index/index-00000-0000.json", 0.3, 2, marks=pytest.mark.long),
]


@pytest.mark.parametrize(("stage", "file", "share", "done"), FLIPS)
def test_a_flipped_bit_is_told_and_its_file_made_anew(reference, tmp_path, stage, file, share, done):
    bit = int((reference / file).stat().st_size * 8 * share)
    assert outcome(reference, tmp_path / "run", stage, file, bit, done) == "repaired"


def test_a_damaged_file_that_cannot_be_made_anew_costs_its_own_shard(inputs, reference, tmp_path):
    run, gone = tmp_path / "run", tmp_path / "gone"
    shutil.copytree(reference, run, ignore=lambda folder, names: ["filter", "dedup", "tokenizer", "tokens"] * (folder == str(reference)))
    flip(run / "ingest" / "data" / "part-00000.parquet", 9999)
    inputs[1].rename(gone)
    try:
        perform(run, "filter", "filter")
    finally:
        gone.rename(inputs[1])
    manifest = Manifest(Storage(str(run / "filter")), read_only=True)
    (lost,) = manifest.quarantined.values()
    assert "ingest/data/part-00000.parquet: this file is not the one that was written" in lost.message
    assert sum(row.task.startswith("part-") for row in manifest.rows()) == 2
