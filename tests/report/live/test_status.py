"""Tests the status of a run in progress: killed, failed, resumed, and on a store; counts are those of its manifest."""

import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.run import execute, new_plan
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.report.live.status import read_status
from corpusmill.report.page.html import render_body
from corpusmill.report.queries.summary import read_summary

SHARDS, PATIENCE = 6, 90.0
#: A step that waits at each shard until its gate opens, or fails there.
STEP = """
import time
from pathlib import Path
from corpusmill.filters.own import measures

@measures({"number": "int64"})
def gate(documents):
    gates, number = Path(__file__).parent / "gates", documents["text"][0].as_py().split()[1]
    while not (gates / number).exists():
        if (gates / f"{number}-bad").exists():
            raise ValueError("this one is bad")
        time.sleep(0.02)
    return {"number": [int(number)] * documents.num_rows}
"""


def rows_of(shard: int) -> int:
    return 70 + 6 * shard


@pytest.fixture(scope="module")
def crawl(tmp_path_factory) -> Path:
    """Makes six files of different sizes, each of which is a task."""
    folder = tmp_path_factory.mktemp("gated") / "in"
    folder.mkdir()
    for number in range(SHARDS):
        words = random.Random(number)
        rows = [f"shard {number} " + " ".join(str(words.random()) for _ in range(400)) for _ in range(rows_of(number))]
        (folder / f"{number}.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return folder


@pytest.fixture
def gated(crawl, tmp_path) -> Iterator[SimpleNamespace]:
    """Makes a run whose filter stage stops at each shard's gate."""
    (tmp_path / "gates").mkdir()
    (tmp_path / "step.py").write_text(STEP)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("ingest: {task_mb: 1}\nfilter: {steps: [{python: 'step.py:gate'}]}\ndedup: {minhash: {enabled: false}}\n")
    processes: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "corpusmill", "run", str(recipe), str(crawl), "--output", str(tmp_path / "run"), *options]
        processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True))
        return processes[-1]

    yield SimpleNamespace(
        run=tmp_path / "run", start=start, recipe=recipe, gate=lambda *names: [(tmp_path / "gates" / name).touch() for name in names]
    )
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.communicate()


def until(folder: object, seen: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Reads a run's status repeatedly; returns the first one that meets the condition."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if Storage(str(folder)).exists("run.json"):
            status = read_status(str(folder))
            json.dumps(status)  # all of it is JSON
            if seen(status):
                return status
        time.sleep(0.05)
    raise AssertionError(f"never seen within {PATIENCE} s: {status}")


def filtering(done: int) -> Callable[[dict[str, Any]], bool]:
    return lambda status: bool(status["phase"]) and status["phase"]["stage"] == "filter" and status["phase"]["tasks"]["done"] >= done


def check_counts(status: dict[str, Any], folder: object, before: int, done: int) -> None:
    """Checks that the phase's figures are those of the manifest, and the share is that of the bytes read."""
    manifest = Manifest(Storage(f"{folder}/filter"), read_only=True)
    phase, rows = status["phase"], list(manifest.tasks.values())[before:]
    assert phase["tasks"] == {"planned": SHARDS, "before": before, "done": done, "left": SHARDS - before - done} and len(rows) == done
    assert phase["rows"] == sum(row.rows_in for row in rows) > 0 and phase["bytes"] == sum(row.bytes_in for row in rows) > 0
    ingested = Manifest(Storage(f"{folder}/ingest"), read_only=True).rows()
    whole = sum(output.bytes for row in ingested for output in row.outputs if "data/" in output.path)
    read, earlier = (sum(ref.bytes for row in some for ref in row.inputs) for some in (rows, list(manifest.tasks.values())[:before]))
    assert phase["share_of"] == "bytes" and phase["share"] == pytest.approx((earlier + read) / whole)
    seconds = phase["seconds"] + np.array([-0.0005, 0.0005])  # it is rounded, and a phase can be a few hundredths old
    fastest, slowest = phase["rows"] / seconds
    assert slowest - 0.001 <= phase["rows_per_second"] <= fastest + 0.001
    soonest, latest = seconds * (whole - earlier - read) / read
    assert soonest - 0.001 <= phase["seconds_left"] <= latest + 0.001


def stages(status: dict[str, Any]) -> dict[str, str]:
    return {stage["name"]: stage["status"] for stage in status["stages"]}


def carry_out(gated, crawl, folder: str) -> None:
    """Runs in this process."""
    plan = new_plan(folder, str(gated.recipe), [str(crawl)])
    execute(replace(plan, strict=True), InlineEngine(), Progress(False))


def started(*arguments: Any) -> threading.Thread:
    """Starts the same in a thread."""
    thread = threading.Thread(target=carry_out, args=arguments, daemon=True)
    thread.start()
    return thread


def test_a_run_that_is_killed_fails_and_goes_on(gated, crawl, corpusmill, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    process = gated.start("--engine", "inline")
    first = until(gated.run, filtering(0))
    assert first["state"] == "running" and first["phase"]["seconds_left"] is None and first["phase"]["share"] == 0
    assert stages(first) == {"ingest": "complete", "filter": "running", "dedup": "to come"}
    gated.gate("0", "1")
    check_counts(until(gated.run, filtering(2)), gated.run, before=0, done=2)
    code, out, _ = corpusmill("status", gated.run)
    assert code == 0 and "2 of 6 tasks" in out.decode() and max(map(len, out.decode().splitlines())) <= 80
    assert re.search(r'id="progress".*2 of 6 tasks', render_body(read_summary(str(gated.run)))[0], re.S)
    process.send_signal(signal.SIGKILL)
    process.communicate()

    killed = read_status(str(gated.run))
    assert killed["state"] == "abandoned" and killed["lock"] == "free" and killed["phase"] is None
    assert "no process works on it" in killed["sentence"] and stages(killed)["filter"] == "unfinished"
    code, out, _ = corpusmill("status", gated.run, "--watch")
    assert code == 1 and b"filter     unfinished  2 tasks done" in out

    gated.gate("2", "3-bad")
    with pytest.raises(CorpusmillError, match="this one is bad"):
        carry_out(gated, crawl, str(gated.run))
    failed = read_status(str(gated.run))
    assert failed["state"] == "failed" and failed["ended"] and "this one is bad" in failed["failure"]
    assert failed["failures"]["count"] == 1
    assert {(f["stage"], f["task"]) for f in failed["failures"]["last"]} == {("filter", "part-00003")}
    assert "this one is bad" in failed["failures"]["last"][0]["message"]
    assert corpusmill("status", gated.run, "--json")[0] == 1

    (gated.recipe.parent / "gates" / "3-bad").unlink()
    thread = started(gated, crawl, str(gated.run))
    gated.gate("3")
    check_counts(until(gated.run, filtering(1)), gated.run, before=3, done=1)
    gated.gate("4", "5")
    thread.join(PATIENCE)
    done = read_status(str(gated.run))
    assert done["state"] == "complete" and done["ended"] and done["failures"]["count"] == 0
    documents = sum(map(rows_of, range(SHARDS)))
    assert [(s["documents_in"], s["documents_out"]) for s in done["stages"]] == [(documents, documents)] * 3
    assert 'id="progress"' not in render_body(read_summary(str(gated.run)))[0]
    code, out, _ = corpusmill("status", gated.run, "--watch", "--json")
    assert code == 0 and json.loads(out)["state"] == "complete"
