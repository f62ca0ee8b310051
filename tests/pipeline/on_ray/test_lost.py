"""Tests work that hangs, workers that do not start, and lost nodes: other tasks are done, and none is charged for another's fault."""

import contextlib
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from raylets import Raylets

from corpusmill.pipeline import failures
from corpusmill.pipeline.engine import TIMEOUT_BYTES, InlineEngine, Job, TaskDone
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.events import Event
from corpusmill.pipeline.failures import Attempt, Cause, Failed, Report
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


class FakeRay:
    """Stands for Ray: each new actor says at once that it is ready on the next of `starts` (a node, or the error of its death), and answers
    a task with the next of `answers` (None: never).
    """

    exceptions = SimpleNamespace(RayError=OSError)

    def __init__(self, starts: Iterable[Any], answers: Iterable[Callable[[Attempt], Any] | None], alive: str = "here"):
        self.starts, self.performed, self.alive = iter(starts), iter(answers), alive
        self.answers: list[Any] = []
        self.killed: list[Any] = []

    def put(self, job: Job) -> Job:
        return job

    def remote(self, **options: Any) -> Any:
        return lambda kind: SimpleNamespace(remote=lambda *given: FakeActor(self))

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": self.alive, "Alive": True}]

    def wait(self, refs: list[int], num_returns: int, timeout: float) -> tuple[list[int], list[int]]:
        if not (there := [ref for ref in refs if self.answers[ref] is not None]):
            assert timeout > 0, "nothing more will happen"
            time.sleep(timeout)
        return there[:num_returns], []

    def get(self, ref: int) -> Any:
        if isinstance(self.answers[ref], OSError):
            raise self.answers[ref]
        return self.answers[ref]

    def kill(self, actor: Any) -> None:
        self.killed.append(actor)

    def answered(self, answer: Any) -> int:
        self.answers.append(answer)
        return len(self.answers) - 1


class FakeActor:
    def __init__(self, ray: FakeRay):
        self.ready = SimpleNamespace(remote=lambda: ray.answered(next(ray.starts)))
        self.perform = SimpleNamespace(options=lambda name: SimpleNamespace(remote=self.answer))
        self.ray = ray

    def answer(self, attempt: Attempt) -> int:
        answer = next(self.ray.performed)
        return self.ray.answered(answer and answer(attempt))


def works(attempt: Attempt) -> TaskDone:
    return TaskDone(attempt.task.key, [], 1, 1, 0, 1, {}, [], 0.1, 1)


def dies(attempt: Attempt) -> OSError:
    return OSError("the actor died")


def fails(attempt: Attempt) -> Failed:
    return Failed(attempt.task.key, "broken at byte 7.", 2, "", Cause.USER_ERROR)


def performed(stages: Any, ray: FakeRay, tasks: int, actors: int, report: Report, **options: Any) -> None:
    todo = [Task(f"part-{number}", (FileRef(f"in-{number}", "fixed"),)) for number in range(tasks)]
    job = Job("lines", "ray_lines:LinesWorker", stages.LinesConfig(), "run")
    with contextlib.closing(Dispatch(ray, job, todo, lambda: Share(actors), report, **options)) as dispatch:
        dispatch.run()


def test_a_task_is_not_charged_for_the_loss_of_its_node(stages: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(failures.AGAIN, Cause.DEATH, 0)
    heard = Heard()
    performed(stages, FakeRay(["gone", "here"], [dies, works]), 1, 1, heard)
    assert heard.done == ["part-0"] and heard.failed == []
    said = "lines, task part-0 (in-0): the node on which it was done is gone; it is done again."
    assert [(event.message, event.node) for event in heard.events] == [(said, "gone")]
    heard = Heard()
    performed(stages, FakeRay(["here"], [dies]), 1, 1, heard)  # its node is there
    assert [failed.cause for failed in heard.failed] == [Cause.DEATH] and heard.done == []


def test_an_actor_that_does_not_answer_in_time_is_killed(stages: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(failures.AGAIN, Cause.HANG, 0)
    heard, ray = Heard(), FakeRay(["here", "here"], [None, works])
    performed(stages, ray, 2, 1, heard, task_timeout=0.01)
    assert [(failed.key, failed.cause) for failed in heard.failed] == [("part-0", Cause.HANG)] and heard.done == ["part-1"]
    assert len(set(ray.killed)) == 2 and heard.events == []


def test_actors_that_die_before_they_are_ready_are_one_event_where_others_work_and_else_an_error(stages: Any) -> None:
    deaths, heard = [OSError("ModuleNotFoundError: no module")] * 4, Heard()
    performed(stages, FakeRay(["here", *deaths], [works] * 6), 6, 2, heard)  # nobody starts a sixth
    assert len(heard.done) == 6 and heard.failed == []
    why = r"\(ModuleNotFoundError: no module\)"
    (event,) = heard.events
    assert re.fullmatch(rf"lines: Ray can't start more worker processes {why}; it goes on with the 1 that work\.", event.message)
    with pytest.raises(CorpusmillError, match=rf"^lines: Ray can't start a worker process {why}\.$"):
        performed(stages, FakeRay(deaths, []), 1, 1, heard)


def test_what_is_done_is_recorded_before_a_failure_of_the_same_time_ends_the_phase(stages: Any) -> None:
    heard = Heard()

    def report(result: TaskDone | Failed | Event) -> None:
        if isinstance(result, Failed):
            raise result.error
        heard(result)

    with pytest.raises(CorpusmillError, match="broken at byte 7"):
        performed(stages, FakeRay(["here"] * 2, [fails, works]), 2, 2, report)
    assert heard.done == ["part-1"]
