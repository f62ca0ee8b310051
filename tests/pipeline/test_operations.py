"""Tests an operator's view of runs: the log, metrics, the last line, and the reason why tasks are redone; checked against manifests."""

import contextlib
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from metric_values import values

from corpusmill import cli
from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.events import Event
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.redo import expect
from corpusmill.pipeline.run import execute, new_plan
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.log import LOG, RunLog, read_appended
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.report.queries.rules import read_decisions
from corpusmill.report.query.run import Run
from corpusmill.report.read import RunReader

SECRET = "hunter2-and-more"
FILES, ROWS = 3, 80
#: A step that fails at the documents of file 1 while the file `bad` exists, and waits while `wait` does.
STEP = """
import time
from pathlib import Path
from corpusmill.filters.own import measures

@measures({"number": "int64"})
def gate(documents):
    folder, number = Path(__file__).parent, documents["text"][0].as_py().split()[1]
    if number == "1" and (folder / "bad").exists():
        raise ValueError("this one is bad: https://me:hunter2-and-more@host.test/x?sig=hunter2-and-more")
    while (folder / "wait").exists():
        time.sleep(0.02)
    return {"number": [len(text) for text in documents["text"].to_pylist()]}
"""
RECIPE = "ingest: {task_mb: 1}\nfilter: {steps: [{python: 'step.py:gate'}, {gopher_quality: {}}]}\ndedup: {minhash: {enabled: false}}\n"


@dataclass
class Mill:
    """A folder with a recipe of three stages, three input files, and a finished run: its output, and its metrics."""

    folder: Path
    out: str = ""
    metrics: str = ""

    def run(self, run: object, *options: str) -> list[str]:
        return [
            "run",
            str(self.folder / "recipe.yaml"),
            str(self.folder / "in"),
            "--output",
            str(run),
            "--engine",
            "inline",
            "--json",
            *options,
        ]

    def copy(self, run: Path, *without: str) -> Path:
        """Copies the finished run, without some of its stages."""
        shutil.copytree(self.folder / "run", run)
        for stage in without:
            shutil.rmtree(run / stage)
        (run / LOG).unlink()
        return run

    def carry_out(self, run: object, *sets: str, inputs: str = "in", **stages: Any) -> list[str]:
        """Runs in this process; returns the printed sentences."""
        said: list[str] = []
        plan = new_plan(str(run), str(self.folder / "recipe.yaml"), [str(self.folder / inputs)], sets, **stages)
        execute(plan, InlineEngine(), Progress(False, on_note=said.append))
        return said


def command(*arguments: str) -> tuple[int, str, str]:
    """Runs the command in this process; returns exit code, output, errors."""
    out, error, code = io.StringIO(), io.StringIO(), 0
    with patch.object(sys, "argv", ["corpusmill", *arguments]), redirect_stdout(out), redirect_stderr(error):
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
    return code, out.getvalue(), error.getvalue()


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Mill:
    made = Mill(tmp_path_factory.mktemp("mill"))
    (made.folder / "in").mkdir()
    for file in range(FILES):
        words = "and the words of a text that is long enough for a task of its own " * 110
        rows = [f"file {file} row {row} {words}" for row in range(ROWS + file)]
        (made.folder / f"in/{file}.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    (made.folder / "step.py").write_text(STEP)
    (made.folder / "recipe.yaml").write_text(RECIPE)
    code, made.out, error = command(*made.run(made.folder / "run", "--metrics-file", str(made.folder / "mill.prom")))
    assert code == 0, error
    made.metrics = (made.folder / "mill.prom").read_text()
    return made


@contextmanager
def told_to(mill: Mill, what: str) -> Iterator[None]:
    """Makes the recipe's step fail or wait within the block."""
    (mill.folder / what).touch()
    try:
        yield
    finally:
        (mill.folder / what).unlink()


def summary(out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out)
    assert set(found) == {"run", "status", "exit_code", "message", "seconds", "stages", "quarantined", "report"}
    return found


def log_of(run: object) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in read_appended(Storage(str(run)), LOG).splitlines()]
    assert all(set(line) == {"time", "level", "event", "run", "stage", "phase", "task", "node", "message", "fields"} for line in lines)
    return lines


def sums(run: object, stage: str) -> dict[str, int]:
    rows = list(Manifest(Storage(f"{run}/{stage}"), read_only=True).tasks.values())
    return {
        "tasks": len(rows),
        "rows_in": sum(r.rows_in for r in rows),
        "kept": sum(r.kept for r in rows),
        "bytes_in": sum(r.bytes_in for r in rows),
    }


def test_a_run_that_goes_well_is_counted_and_summed_up(mill: Mill) -> None:
    told, run, text = summary(mill.out), mill.folder / "run", mill.metrics
    assert (told["status"], told["exit_code"], told["message"], told["quarantined"]) == ("finished", 0, None, [])
    assert told["report"] == f"{run}/report.html" and list(told["stages"]) == ["ingest", "filter", "dedup"]
    documents = values(text, "corpusmill_documents", "stage", "fate")
    for stage, numbers in told["stages"].items():
        manifest = sums(run, stage)
        assert numbers["complete"] and numbers["performed"] == numbers["tasks"] == manifest["tasks"]
        assert numbers["bytes_in"] == manifest["bytes_in"] == values(text, "corpusmill_read_bytes_total", "stage")[stage,]
        assert values(text, "corpusmill_tasks_total", "stage")[stage,] == manifest["tasks"]
        assert values(text, "corpusmill_task_duration_seconds_count", "stage")[stage,] == manifest["tasks"]
        assert values(text, "corpusmill_rows_total", "stage", "fate")[stage, "in"] == manifest["rows_in"]
        report = read_decisions(Run(str(run)), stage)
        assert report is not None and (report.rows, report.kept, report.dropped) == (
            numbers["rows_in"], numbers["kept"], numbers["dropped"]
        ) == tuple(documents[stage, fate] for fate in ("in", "kept", "dropped"))  # fmt: skip
    assert told["stages"]["ingest"]["rows_in"] == sum(ROWS + file for file in range(FILES))
    assert set(values(text, "corpusmill_tasks_left", "stage").values()) == {0.0}


def test_the_log_has_each_task_and_no_text(mill: Mill) -> None:
    run = mill.folder / "run"
    lines, stages = log_of(run), summary(mill.out)["stages"]
    assert [line["event"] for line in lines][:3] == ["run_begin", "stage_begin", "phase_begin"] and lines[-1]["event"] == "run_end"
    tasks = [line for line in lines if line["event"] == "task"]
    assert Counter(line["stage"] for line in tasks) == {stage: numbers["tasks"] for stage, numbers in stages.items()}
    for line in tasks:
        row = Manifest(Storage(f"{run}/{line['stage']}"), read_only=True).tasks[line["task"]]
        for name in ("rows_in", "kept", "dropped", "bytes_in"):
            assert line["fields"][name] == getattr(row, name)
        assert line["node"] and line["fields"]["peak_mb"] > 0 and len(json.dumps(line)) < 400
    assert "words of a text" not in (run / LOG).read_text()


def test_a_task_that_always_fails(mill: Mill, tmp_path: Path) -> None:
    run = mill.copy(tmp_path / "run", "filter", "dedup")
    with told_to(mill, "bad"):
        code, out, error = command(*mill.run(run, "--to", "filter", "--metrics-file", str(tmp_path / "mill.prom")))
    told, text = summary(out), (tmp_path / "mill.prom").read_text()
    assert code == told["exit_code"] == 3 and told["status"] == "quarantined", error
    (given_up,) = told["quarantined"]
    assert (given_up["stage"], given_up["task"]) == ("filter", "part-00001") and told["stages"]["filter"]["quarantined"] == 1
    assert values(text, "corpusmill_tasks_taken_over_total", "stage") == {("filter",): 0.0}
    assert values(text, "corpusmill_failures_total", "stage")["filter",] == 1  # a sentence is not tried again
    assert not values(text, "corpusmill_retries_total", "cause")
    assert values(text, "corpusmill_tasks_quarantined_total", "stage")["filter",] == 1
    lines = {line["event"]: line for line in log_of(run) if line["task"] == "part-00001" and line["stage"] == "filter"}
    assert list(lines) == ["failure", "quarantine"] and lines["failure"]["level"] == lines["quarantine"]["level"] == "error"
    assert all("this one is bad: https://***@host.test/x?sig=***" in line["message"] for line in lines.values())
    assert SECRET not in (run / LOG).read_text() and SECRET not in out
    plan, former = (
        new_plan(str(run), str(mill.folder / "recipe.yaml"), [str(mill.folder / "in")]),
        json.loads((run / "run.json").read_text()),
    )
    states = [each.state for each in expect(Storage(str(run)), former, plan.sections, plan.inputs, ["ingest", "filter"])]
    assert states == ["reused", "goes on"]


def test_a_signal_ends_the_run_in_order_and_says_how_to_go_on(mill: Mill, tmp_path: Path) -> None:
    codes = {signal.SIGINT: 130, signal.SIGTERM: 143}
    runs = {number: mill.copy(tmp_path / f"run {number:d}", "filter", "dedup") for number in codes}
    with told_to(mill, "wait"), contextlib.ExitStack() as ended:
        processes = {}
        for number, run in runs.items():
            whole = [
                sys.executable,
                "-m",
                "corpusmill",
                "run",
                str(run),
                "--from",
                "filter",
                "--to",
                "filter",
                "--engine",
                "inline",
                "--json",
            ]
            process = subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=mill.folder)
            ended.callback(process.kill)
            processes[number] = process
        until = time.monotonic() + 90
        for number, process in processes.items():
            while not any(line["event"] == "phase_begin" for line in log_of(runs[number])) and time.monotonic() < until:
                time.sleep(0.1)
            process.send_signal(number)
        said = {number: process.communicate(timeout=60) for number, process in processes.items()}
    for number, (out, error) in said.items():
        told, code, run = summary(out), codes[number], runs[number]
        # an interrupt within an `exec`, as of a dataclass, makes `python -m` end by the signal; shells give both the same code
        assert processes[number].returncode in (code, -number) and (told["exit_code"], told["status"]) == (code, "interrupted"), error
        assert error == "" and told["message"] == "interrupted; run the same command again to go on where it stopped."
        assert not list(run.rglob(".tmp-*")) and not told["stages"]["filter"]["complete"] and told["stages"]["filter"]["rows_in"] is None
        before, last = log_of(run)[-2:]
        assert last["event"] == "interrupted" and before["event"] == "stage_broken_off" and not before["fields"]["complete"]
        assert json.loads((run / "lease.json").read_text())["holder"] == ""
        measured = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
        assert measured["stage"] == "filter" and measured["seconds"] > 0  # `status` counts the work that was broken off


def test_what_is_done_again_is_said_before_it_is(mill: Mill, tmp_path: Path) -> None:
    run = mill.copy(tmp_path / "run")
    assert mill.carry_out(run) == []  # nothing changed
    changed = ("filter.thresholds={gopher_short_doc: 30}", "dedup.minhash.seed=3")
    said, _ = mill.carry_out(run, *changed, last="filter", redo=True)
    assert said == (
        "This run already exists, and something has changed. ingest: reused (3 tasks); "
        "filter: redone, thresholds.gopher_short_doc nothing → 30."
    )
    said, _ = mill.carry_out(run, "ingest.task_mb=2", *changed, inputs="in/*.jsonl", redo=True)
    assert said.startswith("This run already exists, and something has changed. ingest: redone, task_mb 1 → 2, the inputs ")
    assert ", the inputs changed (1 added, 1 removed); filter: redone where the output of ingest " in said
    assert said.endswith("; dedup: redone where the output of filter changes.")  # the run before has left it unfinished
    states = [line["fields"]["state"] for line in log_of(run) if line["event"] == "expected"]
    assert states == ["reused"] * 4 + ["redone"] + ["redone", "depends", "depends"]


def test_a_log_holds_neither_secrets_nor_what_a_terminal_obeys(tmp_path: Path) -> None:
    log = RunLog(Storage(str(tmp_path)), now=lambda: "2026-01-01T00:00:00.000+00:00")
    message = f"a\x1b[2J\nb https://me:{SECRET}@h.test/p?key={SECRET}&b=2"
    log(Event("note", task="\x9b31mx", message=message, fields={"path": f"s3://b/x?sig={SECRET}", "n": 1}))
    (line,) = log_of(tmp_path)
    assert (
        line["message"] == "a b https://***@h.test/p?key=***&b=***"
        and line["task"] == "x"
        and line["fields"] == {"path": "s3://b/x?sig=***", "n": 1}
    )
    log(Event("note", message="x" * 10_000))
    assert len(log_of(tmp_path)[1]["message"]) == 600
    assert (tmp_path / LOG).stat().st_size < 2000


def test_a_run_on_a_store_has_its_log(mill: Mill, s3: Any) -> None:
    run = f"{s3.bucket('halves')}/run"
    plan = new_plan(run, str(mill.folder / "recipe.yaml"), [str(mill.folder / "in")], last="ingest")
    execute(plan, InlineEngine(), Progress(False))
    events = [line["event"] for line in log_of(run)]
    assert events[0] == "run_begin" and events[-1] == "run_end" and events.count("task") == FILES
    assert {key.partition("/")[0] for key in s3.keys(run)} == {"ingest", "lease.json", "log", "metrics", "progress.json", "run.json"}
    (phase,) = RunReader(run).json_lines("metrics.jsonl")
    assert (phase["stage"], phase["tasks"]) == ("ingest", FILES)
