"""Tests the Ray engine: its decisions before Ray starts, and its work on a real Ray, which all of these tests share."""

import contextlib
import hashlib
import os
import platform
import signal
import socket
import tokenize
from pathlib import Path
from typing import Any

import pytest

from corpusmill.pipeline import failures
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.engine import Engine, InlineEngine, Job
from corpusmill.pipeline.errors import ClusterLost, CorpusmillError, InputError
from corpusmill.pipeline.events import Event
from corpusmill.pipeline.failures import Attempt, Failed
from corpusmill.pipeline.manifest import FileRef, Manifest
from corpusmill.pipeline.on_ray import dispatch as on_dispatch
from corpusmill.pipeline.on_ray import engine as on_ray
from corpusmill.pipeline.on_ray.dispatch import THREADS, Dispatch, Share, TaskActor
from corpusmill.pipeline.on_ray.engine import FEW_BYTES, Head, RayEngine, make_engine, share_out
from corpusmill.pipeline.run import check_folder
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Task
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    for i in range(5):
        (tmp_path / f"{i}.txt").write_text("".join(f"line {j} of {i}\n" for j in range(100)))
    return [str(tmp_path / f"{i}.txt") for i in range(5)]


def run(stages: Any, engine: Engine, folder: Path, inputs: list[str], gpus: float = 0.0, **deeds: dict[str, Any]) -> StageRun:
    """Runs the stage; `p3={...}` are the parameters of task 3."""
    stage = stages.LinesStage(stages.LinesConfig(), [deeds.get(f"p{i}", {}) for i in range(len(inputs))], gpus)
    stage_run = StageRun(stage, Storage(str(folder)), {}, inputs, engine, Progress(False))
    stage_run.execute()
    return stage_run


def contents(folder: Path) -> dict[str, Any]:
    """Returns the digest of every file; for the manifest its rows in any order."""
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted((folder / "lines").rglob("*")) if p.is_file()}
    manifest = sorted(files.pop("lines/manifest.jsonl").splitlines())
    return {"manifest": manifest, **{name: hashlib.sha256(content).hexdigest() for name, content in files.items()}}


def test_same_bytes_inline_and_with_two_workers_and_a_quiet_terminal(
    stages: Any, engine: RayEngine, tmp_path: Path, inputs: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_dispatch, "PATIENCE", 300.0)  # otherwise a busy machine prints that it waits for a process
    for name, chosen in (("inline", InlineEngine()), ("two", engine)):
        run(stages, chosen, tmp_path / name, inputs, p1={"deed": "parts"})
    expected = contents(tmp_path / "inline")
    assert len(expected) == 13  # six data tables, of which two are of one task, six reports, the manifest
    assert contents(tmp_path / "two") == expected
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_a_killed_worker_is_replaced_and_the_bytes_stay(
    stages: Any, engine: RayEngine, tmp_path: Path, inputs: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    dying = {"deed": "die once", "marker": str(tmp_path / "died")}
    run(stages, engine, tmp_path / "killed", inputs, p2=dying)
    out, err = capfd.readouterr()
    assert out == ""
    assert err == (
        f"corpusmill: lines, task part-00002 ({inputs[2]}): its process died (killed from outside, or a crash in native code); "
        "it is done again.\n"
    )
    log = (tmp_path / "killed" / "errors.log").read_text()
    assert log.startswith("lines part-00002\nlines, task part-00002 (") and log.endswith("it is done again.\n\n")
    run(stages, InlineEngine(), tmp_path / "inline", inputs, p2=dying)  # the marker is there now, so this process lives
    assert contents(tmp_path / "killed") == contents(tmp_path / "inline")


@pytest.mark.long
def test_the_next_phase_has_the_same_process_and_one_that_has_died_meanwhile_is_replaced(
    stages: Any, engine: RayEngine, tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.connect()
    monkeypatch.setattr(engine, "workers", 1)

    def processes(name: str) -> set[int]:
        done = run(stages, engine, tmp_path / name, inputs, **{f"p{i}": {"deed": "tell process"} for i in range(5)})
        return {int(row.warnings[0]) for row in done.manifest.rows()}

    workers = processes("first") | processes("second")
    assert len(workers) == 1
    for process in workers:
        os.kill(process, signal.SIGKILL)
    others = processes("third")
    assert not others & workers and not (tmp_path / "third" / "errors.log").exists()


def test_a_piece_that_always_kills_its_process_ends_the_run_when_the_rest_is_done(
    stages: Any, engine: RayEngine, tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(failures.AGAIN, failures.Cause.DEATH, 0)
    said = r"^lines, task part-00001 \(.*/1\.txt\): its process died \(killed from outside, or a crash in native code\)"
    with pytest.raises(CorpusmillError, match=said):
        run(stages, engine, tmp_path / "run", inputs, p1={"deed": "die"})
    manifest = Manifest(Storage(str(tmp_path / "run/lines")))
    assert sorted(manifest.tasks) == [f"part-0000{i}" for i in (0, 2, 3, 4)] and manifest.quarantined["part-00001"].tries == 1
    run(stages, engine, tmp_path / "run", inputs)  # finished tasks are reused, the others are done
    run(stages, InlineEngine(), tmp_path / "inline", inputs)
    finished, expected = contents(tmp_path / "run"), contents(tmp_path / "inline")
    assert finished.keys() == expected.keys() and all(finished[name] == expected[name] for name in finished if name != "manifest")


def test_errors_come_back_as_one_sentence(stages: Any, engine: RayEngine, tmp_path: Path, inputs: list[str]) -> None:
    with pytest.raises(InputError) as wrong:
        run(stages, engine, tmp_path / "wrong", inputs, p0={"deed": "bad input"})
    assert str(wrong.value) == f"{inputs[0]}: broken at byte 7."
    with pytest.raises(CorpusmillError) as bug:
        run(stages, engine, tmp_path / "bug", inputs, p0={"deed": "bug"})
    assert str(bug.value) == f"lines, task part-00000 ({inputs[0]}): KeyError: 'no such column'"
    assert not isinstance(bug.value, InputError)
    assert "Traceback" in (tmp_path / "bug" / "errors.log").read_text()


def test_a_worker_has_the_standard_tokenize_ours_beside_it_and_one_thread(
    stages: Any, engine: RayEngine, tmp_path: Path, inputs: list[str]
) -> None:
    done = run(stages, engine, tmp_path / "run", inputs[:1], p0={"deed": "tell"})
    standard, ours, threads, gpus = done.manifest.rows()[0].warnings
    assert standard == tokenize.__file__
    assert "corpusmill" in ours
    assert threads == "1" and gpus == os.environ.get("CUDA_VISIBLE_DEVICES", "all")


def test_relative_paths_are_those_of_the_folder_where_the_run_was_started(
    stages: Any, engine: RayEngine, tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's processes were started in another folder."""
    monkeypatch.chdir(tmp_path)
    names = [Path(path).name for path in inputs]
    run(stages, engine, Path("ray"), names)
    run(stages, InlineEngine(), Path("inline"), names)
    assert contents(tmp_path / "ray") == contents(tmp_path / "inline")


def test_a_node_without_that_folder_is_named(stages: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THREADS:
        monkeypatch.setenv(name, "1")  # the actor sets them in its process, which is this one here
    job = Job("lines", "ray_lines:LinesWorker", stages.LinesConfig(), "run")
    answer = TaskActor(job, str(tmp_path / "missing"), Share(1)).perform(Attempt(Task("part-00000", ())))
    assert isinstance(answer, Failed)
    assert answer.message == f"run: the node {platform.node()} has no {tmp_path}/missing, so give it paths that all nodes have."


@pytest.mark.long
def test_a_cluster_that_grows_within_a_phase_is_used(
    stages: Any, engine: RayEngine, tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_dispatch, "GROWTH", 0.0)
    shares, actors = iter([Share(1), Share(2)]), []
    job = Job("lines", "ray_lines:LinesWorker", stages.LinesConfig(), str(tmp_path / "run"))
    tasks = [Task(f"part-{number:05}", (FileRef(inputs[0], "fixed"),)) for number in range(16)]

    def report(_: Any) -> None:
        actors.append(len(dispatch.actors))

    dispatch = Dispatch(engine.connect(), job, tasks, lambda: next(shares, Share(2)), report, idle=engine._idle)
    assert dispatch.share.actors == 1
    with contextlib.closing(dispatch):
        dispatch.run()
    assert max(actors) == 2


@pytest.mark.long
def test_a_gpu_is_shared_out(stages: Any, engine: RayEngine, tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU a worker that would like one sees none. Of a Ray that claims to have a GPU one worker has it, with all CPUs; then two
    have half of it each.
    """
    import ray

    tell = {f"p{i}": {"deed": "tell"} for i in range(5)}
    if not ray.cluster_resources().get("GPU"):
        done = run(stages, engine, tmp_path / "none", inputs, gpus=1.0, **tell)
        assert [row.warnings[3] for row in done.manifest.rows()] == [""] * 5
        plain = run(stages, engine, tmp_path / "plain", inputs, **tell)  # GPUs are no part of a task's identity
        assert [row.identity for row in done.manifest.rows()] == [row.identity for row in plain.manifest.rows()]
    engine.close()
    start = ray.init
    monkeypatch.setattr(ray, "init", lambda **options: start(**options, num_gpus=1))
    try:
        for gpus, threads in ((1.0, "2"), (0.5, "1")):
            done = run(stages, engine, tmp_path / f"run {gpus}", inputs, gpus=gpus, **tell)
            assert [row.warnings[2:] for row in done.manifest.rows()] == [[threads, "0"]] * 5
    finally:
        engine.close()
        monkeypatch.undo()
        engine.connect()


# ---- decisions without Ray -----------------------------------------------------------------------------


class AskedForRay(Exception):
    """A phase has asked for Ray."""


@pytest.fixture
def no_ray(stages: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(engine: RayEngine) -> Any:
        raise AskedForRay

    monkeypatch.setattr(RayEngine, "_connected", asked)


@pytest.mark.parametrize(
    ("here_first", "size", "gpus", "address"),
    [(True, FEW_BYTES + 1, 0.0, ""), (True, 1, 0.5, ""), (True, 1, 0.0, "127.0.0.1:6379"), (False, 1, 0.0, "")],
)
def test_what_goes_to_ray_at_once(
    here_first: bool, size: int, gpus: float, address: str, stages: Any, no_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    job = Job("lines", "ray_lines:LinesWorker", stages.LinesConfig(), "run", gpus=gpus)
    with pytest.raises(AskedForRay):
        RayEngine(1, here_first=here_first).perform(job, [Task("a", (FileRef("a", "b", size),))], print)


def test_a_small_phase_is_done_without_ray(stages: Any, tmp_path: Path, inputs: list[str], no_ray: None) -> None:
    run(stages, RayEngine(2, here_first=True), tmp_path / "small", inputs)
    run(stages, InlineEngine(), tmp_path / "inline", inputs)
    assert contents(tmp_path / "small") == contents(tmp_path / "inline")


def test_what_a_slow_phase_has_not_begun_goes_to_ray(
    stages: Any, tmp_path: Path, inputs: list[str], no_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "QUICK", 0.5)
    with pytest.raises(AskedForRay):
        run(stages, RayEngine(2, here_first=True), tmp_path / "slow", inputs, p0={"deed": "sleep", "seconds": 1.0})
    assert [path.stem for path in (tmp_path / "slow" / "lines" / "data").iterdir()] == ["part-00000"]
    run(stages, RayEngine(2, here_first=True), tmp_path / "one", inputs[:1], p0={"deed": "sleep", "seconds": 1.0})  # no other could wait


def test_an_address_for_jobs_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(InputError, match=r"^RAY_ADDRESS=http://127\.0\.0\.1:8265: .*ray job submit -- corpusmill run"):
        make_engine("auto")


def test_an_address_where_nothing_answers_is_said_before_ray_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(InputError, match=rf"^RAY_ADDRESS={address}: this Ray cluster can't be reached \(.*Connection refused\)\.$"):
            make_engine("auto")


def test_a_head_that_stays_away_ends_the_run_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that answers again in time changes nothing."""
    monkeypatch.setattr(on_ray, "ASKED", 0.01)
    monkeypatch.setattr(on_ray, "MISSED", 0.2)
    told: list[Event] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        head = Head(address, Job("filter", "module:Worker", Config(), "run"), told.append)
        head.check()
    assert not told
    head.asked -= 1
    with pytest.raises(ClusterLost, match=f"^the Ray cluster at {address} is gone; start it, and the same command goes on\\.$"):
        head.check()
    assert [(event.kind, event.stage) for event in told] == [("waiting", "filter")]


def test_in_a_job_a_run_needs_a_full_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(InputError, match="^runs/first: give a full path"):
        check_folder("runs/first")
    check_folder(str(tmp_path / "first"))


def test_gpus_are_no_part_of_a_tasks_identity(stages: Any, tmp_path: Path, inputs: list[str]) -> None:
    run(stages, InlineEngine(), tmp_path / "one", inputs, gpus=1.0)
    run(stages, InlineEngine(), tmp_path / "none", inputs)
    assert contents(tmp_path / "one") == contents(tmp_path / "none")


def node(cpus: float, gpus: float = 0) -> dict:
    return {"Alive": True, "Resources": {"CPU": cpus, "memory": 1e9, **({"GPU": gpus} if gpus else {})}}


@pytest.mark.parametrize(
    ("nodes", "gpus", "actors", "expected"),
    [
        ([node(16, 2)], 0, 16, Share(16)),  # nobody asks for a GPU
        ([node(16), node(8)], 1, 24, Share(24)),  # there is none
        ([node(16, 2)], 1, 16, Share(2, 8, 1)),
        ([node(16, 2)], 0.5, 16, Share(4, 4, 0.5)),
        ([node(64), node(16, 4), node(32, 4)], 1, 112, Share(8, 4, 1)),  # either node has room for this many
        ([node(2, 8)], 1, 8, Share(8, 1, 1)),  # fewer CPUs than GPUs
    ],
)
def test_gpus_and_cpus_are_shared_out(nodes: list[dict], gpus: float, actors: int, expected: Share) -> None:
    assert share_out(nodes, gpus, actors) == expected
