"""Tests that clocks that jump by hours while a run works, and files with impossible times, change no byte of a run."""

import os
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "helpers" / "jumping_clock.c"
YEAR = 365 * 24 * 3600
#: Prints the time of day and the time since the start, eight times within four seconds, beside a run.
CLOCKS = "import time\nfor _ in range(8): print(time.time(), time.monotonic()); time.sleep(0.5)"


@pytest.fixture(scope="session")
def jumping_clock(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Compiles a library that makes the wall clock jump in a process that preloads it (`LD_PRELOAD`)."""
    compiler = shutil.which("cc")
    if not compiler:
        pytest.skip("no C compiler is here to make the library by which clocks jump")
    library = tmp_path_factory.mktemp("clock") / "jumping.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
    return str(library)


@pytest.mark.long
@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_a_run_whose_clock_jumps(recipe_and_crawl, jumping_clock: str, tmp_path: Path, undisturbed, tree, faults_of, engine) -> None:
    """On Ray the workers' clocks jump, too, because they inherit the library."""
    run, (recipe, crawl) = tmp_path / "run", recipe_and_crawl
    command = [sys.executable, "-m", "corpusmill", "run", recipe, crawl, "--output", str(run), "--engine", engine, "--workers", "2"]
    environment = {**os.environ, "LD_PRELOAD": jumping_clock}
    with subprocess.Popen([sys.executable, "-c", CLOCKS], env=environment, stdout=subprocess.PIPE, text=True) as clocks:
        process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr
        assert tree(run) == undisturbed and faults_of(run) == []
        of_day, since_start = zip(*(map(float, line.split()) for line in clocks.communicate()[0].splitlines()))
    steps = [after - before for before, after in pairwise(of_day)]
    assert min(steps) < -3000 and max(steps) > 3000 and 3.5 <= since_start[-1] - since_start[0] < 600


@pytest.mark.long
def test_times_of_files_decide_nothing_of_a_finished_run(reference: Path, carry_out, tmp_path: Path, undisturbed, tree) -> None:
    """Copies a run in ways that lose or change the times of files."""
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    for number, path in enumerate(sorted(run.rglob("*"))):
        os.utime(path, (at := time.time() + (YEAR if number % 2 else -YEAR), at))
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.parquet")}
    metrics = (run / "metrics.jsonl").read_bytes()
    carry_out(run)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.parquet")} == before
    assert (run / "metrics.jsonl").read_bytes() == metrics and tree(run) == undisturbed
