"""Tests trainings on several processes of this machine: the same bytes after any kill, errors in sentences, no process left."""

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import launched
import pytest
from launch_runs import call, command, environment, left, train
from rich.console import Console

from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train import launch as launching
from corpusmill.train.launch import RESULT, Killed, RankError, launch, leave_error, with_restarts
from corpusmill.train.options import ParallelConfig

# ---- launch ------------------------------------------------------------------------------------------


def add(folder: Path, restarts: int = 2, **arguments: Any) -> dict[str, Any]:
    parallel = ParallelConfig(replicate=2, max_restarts=restarts)
    return launch("launched:add", arguments, parallel, "cpu", None, folder=folder / "processes")


def test_one_process_is_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launched, "_sum", lambda value: value)
    done = launch("launched:add", {}, ParallelConfig(), "cpu", None, folder=tmp_path / "processes")
    assert done["pid"] == os.getpid() and not (tmp_path / "processes").exists()


def test_a_killed_process_is_started_again_with_all_others_and_nothing_is_left(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    done = add(folder, deed="die", marker=str(tmp_path / "died"))
    cores = len(os.sched_getaffinity(0))
    assert (done["sum"], done["again"], done["threads"]) == (3, 6, max(1, cores // 2)) and done["pid"] != os.getpid()
    assert capfd.readouterr() == ("", restarted("training", 2)) and list(folder.iterdir()) == []


def restarted(title: str, restarts: int) -> str:
    return (
        f"corpusmill: {title}: process 2 of 2 was killed (SIGKILL, perhaps for want of memory); "
        f"all begin again from the last state (restart 1 of {restarts}).\n"
    )


@pytest.mark.long  # the ranks of test_checkpoint_ranks.py are killed, too
def test_a_training_that_is_started_again_leaves_the_same_bytes(
    token_run: Storage, trained_by_two: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    dying_once(monkeypatch, tmp_path / "died")
    train(token_run)
    assert left(token_run) == trained_by_two
    assert capfd.readouterr() == ("", restarted("pretrain", 3))


def dying_once(monkeypatch: pytest.MonkeyPatch, marker: Path) -> None:
    """Makes each pre-training, from now on, lose a process in step 6, once."""
    real = launching.launch

    def with_death(job: str, arguments: dict[str, Any], *rest: Any, **options: Any) -> dict[str, Any]:
        return real("launched:train_and_die", {**arguments, "marker": str(marker)}, *rest, **options)

    monkeypatch.setattr(launching, "launch", with_death)


def test_the_bar_follows_the_log_and_wrong_input_is_a_sentence_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The process that starts the others draws the bar from their logs."""
    progress, log = Progress(True), tmp_path / "train.jsonl"
    with open(tmp_path / "terminal", "w") as terminal:
        progress.console = Console(file=terminal, force_terminal=True)
        job, parallel = ("launched:add", {"log": str(log), "deed": "bad input"}), ParallelConfig(replicate=2)
        with pytest.raises(InputError, match=r"^tokens\.bin: broken at byte 7\.$"):
            launch(*job, parallel, "cpu", progress, folder=tmp_path / "processes", log=log, steps=7)
    assert "3/7" in (tmp_path / "terminal").read_text() and capfd.readouterr() == ("", "")


def test_a_bug_is_told_with_its_trace_and_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")

    class Failing:
        """A launcher one of whose processes has a bug."""

        left = Storage(str(tmp_path / "processes"))
        attempts = 0

        def run(self, left: Storage) -> None:
            self.attempts += 1
            try:
                launched.do("bug")
            except KeyError as error:
                leave_error(left, error)
            raise RankError("a process ended with 1")

    group = Failing()
    with pytest.raises(RankError, match="^process 2: KeyError: 'no such thing'") as bug:
        with_restarts(group, 2, "training")
    assert 'raise KeyError("no such thing")' in bug.value.__notes__[0] and group.attempts == 1


def test_the_late_error_of_a_lost_process_is_not_the_next_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")

    class Losing:
        """A launcher that loses a node in its first attempt, whose process keeps writing."""

        left = Storage(str(tmp_path / "processes"))
        attempts: list[Storage] = []

        def run(self, left: Storage) -> None:
            self.attempts.append(left)
            if len(self.attempts) < 3:
                raise Killed("process 2 of 2 died")
            for lost in self.attempts[:2]:
                leave_error(lost, InputError("from another time"))
            left.write_bytes(RESULT, b'{"sum": 3}')

    assert with_restarts(Losing(), 2, "training") == {"sum": 3}
    assert len({left.root for left in Losing.attempts}) == 3 and list(tmp_path.iterdir()) == []


def test_restarts_end(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    message = r"^training: process 1 of 2 was killed \(SIGKILL, .*\), and 0 restarts are used up; .*processes\.$"
    with pytest.raises(CorpusmillError, match=message):
        add(tmp_path, restarts=0, deed="die", rank=0)
    assert capfd.readouterr() == ("", "")


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    pid, said = tmp_path / "pid", tmp_path / "said"
    parent = os.fork()
    if not parent:
        with open(said, "wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        with contextlib.suppress(BaseException):
            add(tmp_path, deed=f"wait {pid}")
        os._exit(1)
    try:
        until = time.monotonic() + 120
        while not (pid.exists() and pid.read_text()):
            assert os.waitpid(parent, os.WNOHANG) == (0, 0) and time.monotonic() < until
            time.sleep(0.05)
    finally:
        os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    while alive(int(pid.read_text())):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert said.read_bytes() == b""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return b"Z" not in Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[:1]


@pytest.mark.long
def test_ctrl_c_of_the_command(token_run: Storage) -> None:
    arguments = command("pretrain", token_run.root, "--set", "pretrain.loop.steps=100000", "--set", "pretrain.evaluate_every=0")
    log = Path(token_run.path("pretrain/logs/train.jsonl"))
    with subprocess.Popen(arguments, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 120
        while not (log.exists() and log.stat().st_size):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert err == "corpusmill: interrupted; run the same command again to go on where it stopped.\n" and process.returncode == 130


# ---- torchrun ----------------------------------------------------------------------------------------

# The command under torchrun: the same bytes as on the processes that it starts itself, one output, one exit status.


def voice(stderr: str) -> list[str]:
    """Returns the output of the command itself; torchrun adds its own when a process fails."""
    return [line for line in stderr.splitlines() if line.startswith("corpusmill: ")]


@pytest.mark.long  # test_launch.py kills one of processes that are started without torchrun
def test_the_same_bytes_and_one_voice_though_one_is_killed(token_run: Storage, trained_by_two: dict[str, bytes], tmp_path: Path) -> None:
    """torchrun itself restarts all processes."""
    done = run_script(tmp_path, DYING, "pretrain", token_run.root, restarts=1)
    assert done.returncode == 0 and (tmp_path / "died").exists(), done.stderr
    assert left(token_run) == trained_by_two
    said = done.stdout.splitlines()
    ends = [json.loads(line.removeprefix("summary: "))["status"] for line in said if line.startswith("summary: ")]
    assert said.count("pretrain") == 1 and ends == ["interrupted", "finished"]  # one of each time
    assert "bits per byte" in done.stdout
    assert voice(done.stderr) == ["corpusmill: terminated; run the same command again to go on where it stopped."]  # the one that lived


DYING = """
import sys
from pathlib import Path
from corpusmill import cli
from corpusmill.train import launch as launching

real, marker = launching.launch, str(Path(__file__).with_name("died"))
launching.launch = lambda job, arguments, *rest, **options: real(
    "launched:train_and_die", {**arguments, "marker": marker}, *rest, **options
)
cli.main()
"""


def run_script(folder: Path, content: str, *arguments: str, restarts: int = 0) -> "subprocess.CompletedProcess[str]":
    script = folder / "trial.py"
    script.write_text(content)
    launcher = [*command(torchrun=2)[:-2], f"--max-restarts={restarts}"]
    return subprocess.run([*launcher, str(script), *arguments], env=environment(), capture_output=True, text=True, timeout=180, check=False)


@pytest.mark.long
def test_another_number_of_processes_is_a_sentence(token_run: Storage) -> None:
    done = call("pretrain", token_run.root, "--set", "pretrain.parallel.shard=2", torchrun=2)
    assert done.returncode != 0 and voice(done.stderr) == [
        "corpusmill: pretrain.parallel: replicate x shard x tensor x pipeline are 4 processes, and torchrun has started 2 (WORLD_SIZE)."
    ]


def test_an_error_of_another_process_is_the_first_ones_sentence(tmp_path: Path) -> None:
    done = run_script(tmp_path, FAILING, str(tmp_path / "processes"))
    assert done.returncode != 0 and voice(done.stderr) == ["corpusmill: tokens.bin: broken at byte 7."]


FAILING = """
import sys
from pathlib import Path
from corpusmill import cli
from corpusmill.train.launch import launch
from corpusmill.train.options import ParallelConfig

cli.app = lambda prog_name: launch(
    "launched:add", {"deed": "bad input"}, ParallelConfig(shard=2), "cpu", None, folder=Path(sys.argv[1])
)
cli.main()
"""


@pytest.mark.long
def test_ctrl_c(token_run: Storage) -> None:
    arguments = command("pretrain", token_run.root, "--set", "pretrain.loop.steps=100000", "--set", "pretrain.evaluate_every=0", torchrun=2)
    log = Path(token_run.path("pretrain/logs/train.jsonl"))
    with subprocess.Popen(arguments, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 120
        while not (log.exists() and log.stat().st_size):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert voice(err) == ["corpusmill: interrupted; run the same command again to go on where it stopped."]
