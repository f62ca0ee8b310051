"""Tests a task that needs more memory than there is: it is done in parts, with the same bytes, or given up and named."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from faulty_run import plant
from killing import in_child

from corpusmill.pipeline.memory import limit_memory

#: MB that a process may allocate beyond what it holds, and bytes that the filter's function allocates for a text.
ROOM_MB, A_TEXT = 1024, 100 << 20
#: The same for Ray, which watches the machine's memory: all of Ray and two workers take half of the limit.
RAYS_ROOM, RAYS_TEXT = 3 << 30, 500 << 20


def run_limited(carry_out, run: Path, said: Path) -> None:
    limit_memory(ROOM_MB)
    said.write_text(carry_out(run, last="filter"))


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the size of a process is told by Linux alone")
def test_a_task_without_enough_memory_is_done_in_parts(
    carry_out, fault: Path, ingested: Path, tmp_path: Path, reference: Path, tree, faults_of
) -> None:
    run, said = ingested, tmp_path / "said"
    plant(fault, kind="memory", when="class ZipFile", bytes_a_text=A_TEXT)
    assert in_child(run_limited, carry_out, run, said) == 0
    assert said.read_text() == ""
    assert tree(run / "filter") == tree(reference / "filter") and faults_of(run) == []


@pytest.mark.long
def test_a_worker_that_ray_ends_for_its_memory(recipe_and_crawl, fault: Path, tmp_path: Path, undisturbed, tree, faults_of) -> None:
    """Nothing else may allocate or free gigabytes meanwhile, because Ray watches the whole machine's memory."""
    memory = psutil.virtual_memory()
    if memory.available < 2 * RAYS_ROOM:
        pytest.skip("the machine has too little memory to take some away")
    plant(fault, kind="memory", when="class ZipFile", bytes_a_text=RAYS_TEXT)
    run, (recipe, crawl) = tmp_path / "run", recipe_and_crawl
    command = [sys.executable, "-m", "corpusmill", "run", recipe, crawl, "--output", str(run), "--engine", "ray", "--workers", "2"]
    threshold = (memory.total - memory.available + RAYS_ROOM) / memory.total
    watch = {"RAY_memory_usage_threshold": f"{threshold:.4f}", "RAY_memory_monitor_refresh_ms": "50"}
    process = subprocess.run(command, env=os.environ | watch, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    split = [event for event in events if event["stage"] == "filter" and event["event"] == "split"]
    assert split and "its process died (the machine ran out of memory" in json.dumps(split)
    assert tree(run) == undisturbed and faults_of(run) == []
