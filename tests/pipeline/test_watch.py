"""Tests metrics: their places and names; files that are appended to on a store; and the bar over kernels that are compiled."""

import urllib.error
import urllib.request
from typing import Any

import pytest
from metric_values import values

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.events import Event
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.log import LARGEST, LOG, AppendedFile, objects, read_appended
from corpusmill.pipeline.watch.metrics import Prometheus
from corpusmill.pipeline.watch.progress import Progress


def test_counts_are_served_for_the_time_of_a_run() -> None:
    prometheus = Prometheus("demo")
    prometheus(Event("run_begin", fields={"version": "1"}))
    prometheus(Event("phase_begin", "filter", fields={"tasks": 4, "taken_over": 1, "workers": 2}))
    done = {"rows_in": 10, "kept": 7, "dropped": 3, "bytes_in": 1000, "seconds": 0.7, "peak_mb": 512}
    prometheus(Event("task", "filter", task="part-0", fields=done))
    prometheus(Event("death", "filter", task="part-1", message="died"))
    with prometheus.served("127.0.0.1", 0) as port:
        url = f"http://127.0.0.1:{port}/metrics"
        with urllib.request.urlopen(url) as answer:
            text = answer.read().decode()
        assert values(text, "corpusmill_tasks_in_flight", "stage") == {("filter",): 2.0} and values(
            text, "corpusmill_tasks_left", "stage"
        ) == {("filter",): 3.0}
        assert values(text, "corpusmill_tasks_taken_over_total", "stage") == {("filter",): 1.0}
        assert values(text, "corpusmill_rows_total", "fate") == {("in",): 10.0, ("kept",): 7.0, ("dropped",): 3.0}
        assert values(text, "corpusmill_task_peak_memory_bytes", "stage") == {("filter",): 512.0 * 2**20}
        with (
            pytest.raises(InputError, match=rf"--metrics-port {port}: 127.0.0.1 can't be listened to"),
            Prometheus("demo").served("127.0.0.1", port),
        ):
            pass
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url)


def test_files_that_grow_on_a_store(s3: Any) -> None:
    run = Storage(f"{s3.bucket('growing')}/run")
    first = AppendedFile(run, LOG)
    first.append("one\n")
    assert objects(run, LOG) == []  # it waits for more
    first.append("x" * LARGEST + "\n")
    first.append("two\n")
    first.flush()
    second = AppendedFile(run, LOG)
    with s3.faults(error_403=1.0, only="PUT .*/log/"):
        second.append("three\n")
        second.flush()  # the store refuses, and nothing breaks
    second.append("four\n")
    second.flush()
    assert [path for _, _, path in objects(run, LOG)] == ["log/00001-00000.jsonl", "log/00001-00001.jsonl", "log/00002-00000.jsonl"]
    assert read_appended(run, LOG).splitlines() == [b"one", b"x" * LARGEST, b"two", b"three", b"four"]
    assert read_appended(run, LOG, 10).splitlines()[-1] == b"four" and len(read_appended(run, LOG, 10)) == 10


def test_two_processes_never_write_the_same_object_of_a_log(s3: Any) -> None:
    """Both processes look before either writes: one may have lost its lease meanwhile."""
    run = Storage(f"{s3.bucket('growing')}/run")
    one, other = AppendedFile(run, LOG), AppendedFile(run, LOG)
    one._attempt = other._attempt = 1
    for number in "123":
        for file, name in ((one, "one"), (other, "other")):
            file.append(f"{name} {number}\n")
            file.flush()
    assert [(attempt, number) for attempt, number, _ in objects(run, LOG)] == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
    assert read_appended(run, LOG).split() == b"one 1 one 2 one 3 other 1 other 2 other 3".split()


def test_without_a_terminal_a_phase_prints_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("corpusmill.pipeline.watch.progress.LINES", 0.0)
    with Progress(enabled=False).phase("filter", 3) as bar:
        for _ in range(3):
            bar.advance(20, 1000)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["filter: 1 of 3 tasks", "filter: 2 of 3 tasks"] and "documents/s" in lines[0]
