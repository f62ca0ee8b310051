"""What operators see of runs: the log, metrics, the last line, and why something is done again; checked against manifests."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from corpusmill.pipeline.engine import Done, InlineEngine
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.events import Event
from corpusmill.pipeline.growing import LARGEST, LOG, Growing, objects, read_grown
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.meters import FAMILIES, Counting
from corpusmill.pipeline.outcome import Outcome
from corpusmill.pipeline.progress import Progress
from corpusmill.pipeline.prometheus import Prometheus, check_writable
from corpusmill.pipeline.report.read import RunReader
from corpusmill.pipeline.run import Watching, execute, new_plan
from corpusmill.pipeline.runlog import RunLog
from corpusmill.pipeline.storage import Storage

SECRET = "hunter2-and-more"
FILES, ROWS = 3, 40
#: A step that fails at the documents of file 1 where `bad` is there, and waits where `wait` is.
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
RECIPE = "ingest: {piece_mb: 1}\nfilter: {steps: [{python: 'step.py:gate'}, {gopher_quality: {}}]}\ndedup: {minhash: {enabled: false}}\n"


@pytest.fixture
def mill(tmp_path: Path) -> Any:
    """A folder with a recipe of three stages and three files of input; `mill(...)` runs the command in a process of its own."""
    (tmp_path / "in").mkdir()
    for file in range(FILES):
        rows = [f"file {file} row {row} and the words of a text that is of some length" for row in range(ROWS + file)]
        (tmp_path / f"in/{file}.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    (tmp_path / "step.py").write_text(STEP)
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    def start(*arguments: str, command: str = "run") -> subprocess.Popen[str]:
        given = (
            [str(tmp_path / "recipe.yaml"), str(tmp_path / "in"), "--output", str(tmp_path / "run")]
            if command == "run"
            else [str(tmp_path / "run")]
        )
        whole = [sys.executable, "-m", "corpusmill", command, *given, "--engine", "inline", *arguments]
        return subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)

    return start


def in_process(folder: Path, watching: Watching | None = None, *sets: str, run: str = "run", **stages: Any) -> list[str]:
    """The same run in this process; returns the sentences that were said."""
    said: list[str] = []
    plan = new_plan(run if "://" in run else str(folder / run), str(folder / "recipe.yaml"), [str(folder / "in")], sets, **stages)
    execute(plan, InlineEngine(), Progress(False), said.append, lambda _: None, watching)
    return said


def summary(out: str) -> dict[str, Any]:
    last = out.splitlines()[-1]
    assert last.startswith("summary: ")
    found: dict[str, Any] = json.loads(last.removeprefix("summary: "))
    assert set(found) == {"run", "status", "exit_code", "message", "seconds", "stages", "quarantined", "report"}
    return found


def log_of(run: object) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in read_grown(Storage(str(run)), LOG).splitlines()]
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


def values(text: str, name: str, *labels: str) -> dict[Any, float]:
    """Samples of one metric, by the values of some of its labels (summed over the others)."""
    found: Counter[Any] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name:
                found[tuple(sample.labels[label] for label in labels)] += sample.value
    return dict(found)


def test_a_run_that_goes_well_is_logged_counted_and_summed_up(mill: Any, tmp_path: Path) -> None:
    metrics = tmp_path / "mill.prom"
    process = mill("--metrics-file", str(metrics))
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    told, run = summary(out), tmp_path / "run"
    assert (told["status"], told["exit_code"], told["message"], told["quarantined"]) == ("finished", 0, None, [])
    assert told["report"] == f"{run}/report.html" and list(told["stages"]) == ["ingest", "filter", "dedup"]
    text = metrics.read_text()
    documents = values(text, "corpusmill_documents", "stage", "fate")
    reader = RunReader(str(run))
    for stage, numbers in told["stages"].items():
        manifest = sums(run, stage)
        assert numbers["complete"] and numbers["performed"] == numbers["tasks"] == manifest["tasks"]
        assert numbers["bytes_in"] == manifest["bytes_in"] == values(text, "corpusmill_read_bytes_total", "stage")[stage,]
        assert values(text, "corpusmill_tasks_total", "stage")[stage,] == manifest["tasks"]
        assert values(text, "corpusmill_task_duration_seconds_count", "stage")[stage,] == manifest["tasks"]
        assert values(text, "corpusmill_rows_total", "stage", "fate")[stage, "in"] == manifest["rows_in"]
        report = sum(map(reader.report_rows, [stage])) if hasattr(reader, "report_rows") else numbers["rows_in"]
        assert (numbers["rows_in"], numbers["kept"], numbers["dropped"]) == tuple(
            documents[stage, fate] for fate in ("in", "kept", "dropped")
        )
        assert numbers["rows_in"] == report == numbers["kept"] + numbers["dropped"]
    assert told["stages"]["ingest"]["rows_in"] == sum(ROWS + file for file in range(FILES))
    assert set(values(text, "corpusmill_tasks_left", "stage").values()) == {0.0}

    lines = log_of(run)
    assert [line["event"] for line in lines][:3] == ["run_begin", "configuration", "stage_begin"] and lines[-1]["event"] == "run_end"
    tasks = Counter(line["stage"] for line in lines if line["event"] == "task")
    assert tasks == {stage: numbers["tasks"] for stage, numbers in told["stages"].items()}
    for line in (line for line in lines if line["event"] == "task"):
        row = Manifest(Storage(f"{run}/{line['stage']}"), read_only=True).tasks[line["task"]]
        assert [line["fields"][name] for name in ("rows_in", "kept", "dropped", "bytes_in")] == [
            row.rows_in,
            row.kept,
            row.dropped,
            row.bytes_in,
        ]
        assert line["node"] and line["fields"]["peak_mb"] > 0 and len(json.dumps(line)) < 400
    assert "words of a text" not in (run / LOG).read_text()


def test_a_task_that_always_fails(mill: Any, tmp_path: Path) -> None:
    (tmp_path / "bad").touch()
    process = mill("--metrics-file", str(tmp_path / "mill.prom"))
    out, error = process.communicate(timeout=120)
    told, text = summary(out), (tmp_path / "mill.prom").read_text()
    assert process.returncode == told["exit_code"] == 3 and told["status"] == "quarantined", error
    (given_up,) = told["quarantined"]
    assert (given_up["stage"], given_up["task"]) == ("filter", "part-00001") and told["stages"]["filter"]["quarantined"] == 1
    assert values(text, "corpusmill_failures_total", "stage")["filter",] == 2 and values(text, "corpusmill_retries_total", "cause") == {
        ("retry",): 1
    }
    assert values(text, "corpusmill_tasks_quarantined_total", "stage")["filter",] == 1
    lines = {line["event"]: line for line in log_of(tmp_path / "run") if line["task"] == "part-00001" and line["stage"] == "filter"}
    assert list(lines) == ["retry", "failure", "quarantine"] and lines["failure"]["level"] == lines["quarantine"]["level"] == "error"
    assert all("this one is bad" in line["message"] and "https://***@host.test/x?sig=***" in line["message"] for line in lines.values())
    assert SECRET not in (tmp_path / "run" / LOG).read_text() and SECRET not in out.splitlines()[-1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_it_works(mill: Any, tmp_path: Path, number: int, code: int) -> None:
    (tmp_path / "wait").touch()
    process = mill()
    until = time.monotonic() + 90
    while (
        not any(line["event"] == "phase_begin" and line["stage"] == "filter" for line in log_of(tmp_path / "run"))
        and time.monotonic() < until
    ):
        time.sleep(0.1)
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    told = summary(out)
    assert (process.returncode, told["exit_code"], told["status"]) == (code, code, "interrupted") and error.count("\n") == 1, error
    assert told["stages"]["ingest"]["complete"] and not told["stages"]["filter"]["complete"] and told["stages"]["filter"]["rows_in"] is None
    last = log_of(tmp_path / "run")[-1]
    assert last["event"] == "interrupted" and log_of(tmp_path / "run")[-2]["fields"]["ended"] == "broken_off"
    assert json.loads((tmp_path / "run/lease.json").read_text())["holder"] == ""


def test_what_fails_before_it_begins_is_summed_up_too(mill: Any, tmp_path: Path) -> None:
    process = mill("--set", "filter.nothing=1")
    out, error = process.communicate(timeout=60)
    assert (
        process.returncode == summary(out)["exit_code"] == 2 and summary(out)["status"] == "failed" and "nothing" in summary(out)["message"]
    )
    assert error.count("\n") == 1


def test_what_is_done_again_is_said_before_it_is(mill: Any, tmp_path: Path) -> None:
    outcome = Outcome("run")
    assert in_process(tmp_path, Watching(outcome)) == []
    assert in_process(tmp_path) == []  # nothing changed
    changed = "filter.steps=[{python: 'step.py:gate'}, {gopher_quality: {min_words: 20}}]"
    (said,) = in_process(tmp_path, None, changed, last="filter")
    assert said.startswith(
        "This run is there already, and something has changed. ingest: taken over (3 tasks); filter: redone, steps[1].gopher_quality"
    )
    assert "50 → 20" in said or "nothing → 20" in said or "→" in said
    expected = {line["stage"]: line["fields"]["state"] for line in log_of(tmp_path / "run") if line["event"] == "expected"}
    assert expected == {"ingest": "taken over", "filter": "redone", "dedup": "taken over"}  # the last of each
    configurations = [line["fields"] for line in log_of(tmp_path / "run") if line["event"] == "configuration"]
    first, second, third = configurations
    assert first["before"] is None and first["now"] == second["before"] == second["now"] == third["before"] != third["now"]
    assert [change[0] for change in third["changes"]] and third["changes"][0][0].startswith("recipe.filter.steps[1]")
    (tmp_path / "in/3.jsonl").write_text(json.dumps({"text": "one more"}) + "\n")
    said = in_process(tmp_path, None, "ingest.piece_mb=2")
    assert (
        len(said) == 1
        and "ingest: redone, piece_mb 1 → 2; filter: redone, " in said[0]
        and said[0].endswith("dedup: redone where what filter writes changes.")
    )


def test_counts_are_served_on_loopback_alone() -> None:
    prometheus = Prometheus()
    counting = Counting([prometheus])
    counting.run("demo", "1")
    counting.phase_begins("filter", "", 5, 4, 2)
    counting.done("filter", "", Done("part-0", [], 10, 7, 3, 1000, {}, [], 0.7, 512))
    counting.event(Event("death", "filter", "", "part-1", "died"))
    with prometheus.served("127.0.0.1", 0) as port:
        url = f"http://127.0.0.1:{port}/metrics"
        with urllib.request.urlopen(url) as answer:
            text = answer.read().decode()
            assert not answer.headers.get("Access-Control-Allow-Origin")
        assert values(text, "corpusmill_tasks_in_flight", "stage") == {("filter",): 2.0} and values(
            text, "corpusmill_tasks_left", "stage"
        ) == {("filter",): 3.0}
        assert values(text, "corpusmill_tasks_taken_over_total", "stage") == {("filter",): 1.0}
        assert values(text, "corpusmill_rows_total", "fate") == {("in",): 10.0, ("kept",): 7.0, ("dropped",): 3.0}
        assert values(text, "corpusmill_task_peak_memory_bytes", "stage") == {("filter",): 512.0 * 2**20}
        for headers, path, code in (
            ({"Host": f"evil.test:{port}"}, "/metrics", 421),
            ({"Sec-Fetch-Site": "cross-site"}, "/metrics", 403),
            ({}, "/other", 404),
        ):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers))
            assert refused.value.code == code
        with (
            pytest.raises(InputError, match=rf"--metrics-port {port}: 127.0.0.1 can't be listened to"),
            Prometheus().served("127.0.0.1", port),
        ):
            pass
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url)


def test_a_file_for_metrics_that_can_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--metrics-file .*none/x.prom: the folder"):
        check_writable(str(tmp_path / "none/x.prom"))
    check_writable("x.prom")


def test_names_of_metrics_are_those_of_opentelemetry() -> None:
    for family in FAMILIES.values():
        assert family.name.startswith("corpusmill_") and family.name.endswith("_total") == (family.kind == "counter")
        assert not {"name", "le", "job", "instance"} & set(family.labels)


def test_files_that_grow_on_a_store(s3: Any) -> None:
    run = Storage(f"{s3.bucket('growing')}/run")
    first = Growing(run, LOG)
    first.append("one\n")
    assert objects(run, LOG) == []  # it waits for more
    first.append("x" * LARGEST + "\n")
    first.append("two\n")
    first.flush()
    second = Growing(run, LOG)
    with s3.faults(error_403=1.0, only="PUT .*/log/"):
        second.append("three\n")
        second.flush()  # the store says no, and nothing breaks
    second.append("four\n")
    second.flush()
    assert [path for _, _, path in objects(run, LOG)] == ["log/00001-00000.jsonl", "log/00001-00001.jsonl", "log/00002-00000.jsonl"]
    assert read_grown(run, LOG).splitlines() == [b"one", b"x" * LARGEST, b"two", b"three", b"four"]
    assert read_grown(run, LOG, 10).splitlines()[-1] == b"four" and len(read_grown(run, LOG, 10)) == 10


def test_a_run_on_a_store_has_its_log_and_its_times(mill: Any, tmp_path: Path, s3: Any) -> None:
    run = f"{s3.bucket('logged')}/run"
    in_process(tmp_path, run=run, last="ingest")
    events = [line["event"] for line in log_of(run)]
    assert events[0] == "run_begin" and events[-1] == "run_end" and events.count("task") == FILES
    (phase,) = RunReader(run).json_lines("metrics.jsonl")
    assert (phase["stage"], phase["tasks"]) == ("ingest", FILES)
    assert {key.partition("/")[0] for key in s3.keys(run)} == {"ingest", "lease.json", "log", "metrics", "progress.json", "run.json"}


def test_a_log_holds_neither_secrets_nor_what_a_terminal_obeys(tmp_path: Path) -> None:
    log = RunLog(Storage(str(tmp_path)), now=lambda: "2026-01-01T00:00:00.000+00:00")
    log.write(
        "note",
        f"a\x1b[2J\nb https://me:{SECRET}@h.test/p?key={SECRET}&b=2",
        "warning",
        task="\x9b31mx",
        fields={"path": f"s3://b/x?sig={SECRET}", "n": 1},
    )
    (line,) = log_of(tmp_path)
    assert (
        line["message"] == "a b https://***@h.test/p?key=***&b=***"
        and line["task"] == "x"
        and line["fields"] == {"path": "s3://b/x?sig=***", "n": 1}
    )
    log.write("note", "x" * 10_000)
    assert len(log_of(tmp_path)[1]["message"]) == 600
    assert os.path.getsize(tmp_path / LOG) < 2000
