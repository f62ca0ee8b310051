"""Tests the status of a run on which nobody works: its own records may be damaged, hostile, or missing."""

import io
import json

import pytest
from built_run import HOSTILE, RunBuilder, write_run
from rich.console import Console

from corpusmill.pipeline.lease import LeaseHolder
from corpusmill.report.live.status import read_status
from corpusmill.report.live.status_view import show_status

GOOD = {
    "host": HOSTILE,
    "process": 1,
    "began": "2026-01-01T00:00:00.000+00:00",
    "ended": "2026-01-01T00:00:10.000+00:00",
    "failure": f"x {HOSTILE}",
    "failures": {"count": 1, "last": [{"stage": "ingest", "task": HOSTILE, "message": HOSTILE}]},
    "stages": ["ingest"],
    "stages_began": {},
    "phases": [],
}


@pytest.mark.parametrize(
    ("content", "state"),
    [
        (json.dumps(GOOD), "failed"),
        ("half a li", "abandoned"),
        (json.dumps({**GOOD, "began": "yesterday"}), "abandoned"),
        (json.dumps({**GOOD, "failure": "\u009b31m"}), "failed"),
        (json.dumps({**GOOD, "phases": [{"stage": "ingest"}]}), "abandoned"),
    ],
)
def test_what_a_run_says_may_be_damaged_or_hostile(tmp_path, corpusmill, content: str, state: str) -> None:
    run = write_run(tmp_path / "run", ("ingest",))
    run.stage("filter", [{"some.bin": b""}], finish=False)
    run.storage.write_bytes("progress.json", content.encode())
    run.storage.write_bytes("lease.json", LeaseHolder("", "mill-1", "", 1, 1, 1, 30.0).content())
    status = read_status(str(run.folder))
    assert status["state"] == state and {stage["name"]: stage["status"] for stage in status["stages"]} == {
        "ingest": "complete",
        "filter": "unfinished",
        "dedup": "not run",
    }
    code, out, _ = corpusmill("status", run.folder)
    assert code == 1 and b"\x1b" not in out and "\u202e" not in out.decode()
    code, out, _ = corpusmill("status", run.folder, "--json")
    assert code == 1 and json.loads(out) and not set("\x1b\u009b\u202e") & set(out.decode())


def test_a_training_says_its_steps_and_the_time_left(tmp_path, corpusmill) -> None:
    phase = {"stage": "pretrain", "phase": "", "tasks": 1, "taken_over": 0, "done": 0, "rows": 0, "bytes": 0, "size": 0,
             "size_taken_over": 0, "size_done": 0, "workers": 1, "began": GOOD["began"], "ended": None}  # fmt: skip
    run = RunBuilder(tmp_path)
    run.json("run.json", {"recipe": {"pretrain": {}}})
    run.json(
        "progress.json",
        {**GOOD, "ended": None, "failure": None, "stages": ["pretrain"], "stages_began": {"pretrain": GOOD["began"]}, "phases": [phase]},
    )
    lines = {"train": [{"step": 3, "loss": 2.5}], "speed": [{"step": 3, "steps": 8, "tokens_per_second": 100, "seconds_left": 600}]}
    for name, steps in lines.items():
        run.storage.write_bytes(f"pretrain/logs/{name}.jsonl", "".join(json.dumps(step) + "\n" for step in steps).encode())
    training = read_status(str(tmp_path))["training"]
    assert (training["steps_done"], training["steps"], training["loss"], training["tokens_per_second"]) == (4, 8, 2.5, 100)
    assert 0 < training["seconds_left"] <= 600
    assert "step 4 of 8" in corpusmill("status", tmp_path)[1].decode()


def test_a_run_that_never_began(tmp_path, corpusmill) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"recipe": {"ingest": {}, "filter": {"steps": []}}}))
    status = read_status(str(tmp_path))
    assert status["state"] == "unknown" and status["sentence"] == "Nothing has run yet."
    assert corpusmill("status", tmp_path)[0] == 0
    (tmp_path / "progress.json").write_text("half a li")
    assert "It has not said that it ended" in read_status(str(tmp_path))["sentence"]


@pytest.mark.parametrize("as_json", [False, True])
def test_watching_ends_with_the_run(tmp_path, capsys, as_json: bool) -> None:
    run = write_run(tmp_path / "run", ("ingest",))
    run.json("progress.json", {**GOOD, "ended": None, "failure": None, "stages_began": {"ingest": GOOD["began"]}})
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        run.json("progress.json", {**GOOD, "ended": None, "failure": None} if len(waited) < 3 else GOOD)

    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    assert show_status(str(run.folder), console, watch=True, as_json=as_json, wait=wait) == 1
    assert waited == [2.0] * 3
    if as_json:
        assert [json.loads(line)["state"] for line in capsys.readouterr().out.splitlines()] == ["unknown"] * 3 + ["failed"]
    else:
        drawn = console.file.getvalue()
        assert drawn.count("56 documents kept") >= 5  # four reads, and the last once more below
        assert "It failed" in drawn and "\x1b]0" not in drawn
