"""Tests work that hangs, workers that do not start, and lost nodes: other tasks are done, and none is charged for another's fault."""

import contextlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from raylets import Raylets

from corpusmill.pipeline import failures
from corpusmill.pipeline.engine import TIMEOUT_BYTES, InlineEngine, Job, TaskDone
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.events import Event
from corpusmill.pipeline.failures import Cause, Failed
from corpusmill.pipeline.manifest import FileRef, Manifest
from corpusmill.pipeline.on_ray import dispatch as on_dispatch
from corpusmill.pipeline.on_ray.dispatch import Dispatch, Share
from corpusmill.pipeline.on_ray.engine import RayEngine
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Task
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{number}.txt" for number in range(5)]
    for path in paths:
        path.write_text(f"a line of {path.name}\n")
    return [str(path) for path in paths]


def run(stages: Any, engine: Any, folder: Path, inputs: list[str], deeds: dict[int, str]) -> str:
    """Runs the stage, some of whose tasks can't be done; returns the final sentence."""
    params = [{"deed": deeds[number]} if number in deeds else {} for number in range(len(inputs))]
    stage = stages.LinesStage(stages.LinesConfig(), params)
    with pytest.raises(CorpusmillError) as caught:
        StageRun(stage, Storage(str(folder)), {}, inputs, engine, Progress(False)).execute()
    return str(caught.value)


def finished(folder: Path) -> list[str]:
    return sorted(Manifest(Storage(str(folder / "lines"))).tasks)


def test_what_hangs_in_this_process_is_ended_named_and_given_up(stages: Any, tmp_path: Path, inputs: list[str]) -> None:
    said = run(stages, InlineEngine(task_timeout=0.5), tmp_path / "run", inputs, {0: "sleep", 2: "spin", 3: "regex"})
    assert said.startswith("lines: 3 tasks failed, all others are done, and the stage needs them: ")
    for number in (0, 2, 3):
        sentence = (
            rf"lines, task part-0000{number} \(\S*/{number}\.txt\): it was not done after 0\.5 seconds \(--task-timeout\), in process"
        )
        assert re.search(sentence, said)
    assert said.count("ray_lines.py, line ") == 3  # where it hung
    assert finished(tmp_path / "run") == ["part-00001", "part-00004"]


def pieces_of(inputs: list[str], deeds: dict[int, dict[str, Any]]) -> list[Task]:
    return [Task(f"part-{number:05d}", (FileRef(path, "fixed"),), deeds.get(number, {})) for number, path in enumerate(inputs)]


class Heard:
    """Records a phase: finished tasks, tasks that are given up, and events."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.failed: list[Failed] = []
        self.events: list[Event] = []

    def __call__(self, result: TaskDone | Failed | Event) -> None:
        if isinstance(result, TaskDone):
            self.done.append(result.key)
        elif isinstance(result, Failed):
            self.failed.append(result)
        else:
            self.events.append(result)


@pytest.mark.long
def test_what_hangs_in_a_worker_is_ended_even_in_native_code_and_the_rest_is_done(
    stages: Any, engine: RayEngine, tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tasks have three seconds, and three are so large that they have minutes."""
    monkeypatch.setattr(engine, "task_timeout", 3.0)
    monkeypatch.setitem(failures.AGAIN, Cause.HANG, 0)
    tasks = pieces_of(inputs, {0: {"deed": "regex"}, 2: {"deed": "deaf"}})
    large = [replace(task, inputs=(replace(task.inputs[0], bytes=100 * TIMEOUT_BYTES),)) for task in tasks]
    heard = Heard()
    job = Job("lines", "ray_lines:LinesWorker", stages.LinesConfig(), str(tmp_path / "run"))
    engine.perform(job, [tasks[0], large[1], tasks[2], large[3], large[4]], heard)
    assert sorted(heard.done) == ["part-00001", "part-00003", "part-00004"]
    assert {(failed.key, failed.tries, failed.cause) for failed in heard.failed} == {(f"part-0000{n}", 1, Cause.HANG) for n in (0, 2)}
    said = " ".join([*(failed.message for failed in heard.failed), *(event.message for event in heard.events)])
    assert f"lines, task part-00000 ({inputs[0]}): it was not done after 3 seconds (--task-timeout), in process (" in said
    assert f"lines, task part-00002 ({inputs[2]}): it was not done after 3 seconds (--task-timeout)." in said


@pytest.mark.long
def test_workers_that_die_before_they_are_ready_do_not_end_what_others_do(
    stages: Any, engine: RayEngine, tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker works while two others die."""
    monkeypatch.setattr(on_dispatch, "MOST_FAILED_STARTS", 1)
    folder = tmp_path / "arrivals"
    folder.mkdir()
    tasks = pieces_of(inputs, {number: {"deed": "wait for deaths", "marker": str(folder), "deaths": 2} for number in range(len(inputs))})
    job = Job("lines", "ray_lines:LinesWorker", stages.LinesConfig(), str(tmp_path / "run"), {"first": stages.FirstAlone(str(folder))})
    heard = Heard()
    dispatch = Dispatch(engine.connect(), job, tasks, lambda: Share(2), heard)
    with contextlib.closing(dispatch):
        dispatch.run()
    assert sorted(heard.done) == [task.key for task in tasks] and heard.failed == []
    (told,) = [event.message for event in heard.events if "can't start more" in event.message]
    assert told.startswith("lines: Ray can't start more worker processes (") and told.endswith("; it goes on with the 1 that work.")


@pytest.mark.long
def test_a_node_that_goes_away_is_not_the_fault_of_what_it_did(
    stages: Any, engine: RayEngine, tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task is given up after any death, except the death of its node."""
    losses = 2
    monkeypatch.setitem(failures.AGAIN, Cause.DEATH, 0)
    markers = tmp_path / "markers"
    markers.mkdir()
    engine.close()
    heard = Heard()
    with Raylets([{"CPU": 1}] * (losses + 1)) as cluster:
        for name, value in cluster.environment.items():
            monkeypatch.setenv(name, value)
        job = Job("lines", "ray_lines:LinesWorker", stages.LinesConfig(), str(tmp_path / "run"))
        on_cluster = RayEngine()
        deeds = {1: {"deed": "lose node", "marker": str(markers), "losses": losses}}
        with contextlib.closing(on_cluster):
            on_cluster.perform(job, pieces_of(inputs, deeds), heard)
    assert len(list(markers.iterdir())) == losses
    assert sorted(heard.done) == [f"part-0000{number}" for number in range(5)] and heard.failed == []
    told = [event.message for event in heard.events if event.task == "part-00001"]
    said = f"lines, task part-00001 ({inputs[1]}): the node on which it was done is gone; it is done again."
    assert told == [said] * losses


# ---- decisions without Ray -----------------------------------------------------------------------------
