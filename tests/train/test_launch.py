"""Tests trainings on several processes of this machine: restarts after a kill, errors in sentences, no process left."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import launched
import pytest
from launch_runs import command, environment, left

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train.launch import launch
from corpusmill.train.options import ParallelConfig

# ---- launch ------------------------------------------------------------------------------------------


def add(folder: Path, **arguments: Any) -> dict[str, Any]:
    return launch("launched:add", arguments, ParallelConfig(replicate=2), "cpu", None, folder=folder / "processes")


def test_one_process_is_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launched, "_sum", lambda value: value)
    done = launch("launched:add", {}, ParallelConfig(), "cpu", None, folder=tmp_path / "processes")
    assert done["pid"] == os.getpid() and not (tmp_path / "processes").exists()


@pytest.mark.long
def test_after_a_kill_all_start_again_and_wrong_input_is_a_sentence_at_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt is killed, the second one finds wrong input. The first process draws the bar."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # by which rich takes a file for a terminal
    arguments = {"bar": True, "marker": str(tmp_path / "died"), "deed": "die", "then": "bad input"}
    with pytest.raises(InputError, match=r"^tokens\.bin: broken at byte 7\.$"):
        launch("launched:add", arguments, ParallelConfig(replicate=2), "cpu", Progress(True), folder=tmp_path / "processes")
    said = capfd.readouterr()
    shown = " ".join(said.err.split())
    assert "3/7" in shown and "corpusmill: training: process 2 of 2 was killed (SIGKILL" in shown and "(restart 1 of 3)" in shown
    assert said.out == "" and "Traceback" not in shown
    assert not (tmp_path / "processes").exists()


@pytest.mark.long
def test_a_bug_is_told_with_its_trace_and_not_tried_again(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="^process 2: KeyError: 'no such thing'") as bug:
        add(tmp_path, deed="bug")
    assert 'raise KeyError("no such thing")' in bug.value.__notes__[0]
    assert {path.name for path in (tmp_path / "processes").glob("*.log")} == {"rank-0.log", "rank-1.log"}


def test_processes_have_a_share_of_the_cores_each_and_end_with_the_one_that_started_them(tmp_path: Path) -> None:
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
    number, threads = map(int, pid.read_text().split())
    assert threads == max(1, len(os.sched_getaffinity(0)) // 2)
    while alive(number):
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
@pytest.mark.parametrize("torchrun", [0, 2])
def test_ctrl_c_of_the_command(token_run: Storage, torchrun: int) -> None:
    settings = ("--set", "pretrain.loop.steps=100000", "--set", "pretrain.evaluate_every=0")
    arguments = command("pretrain", token_run.root, *settings, torchrun=torchrun)
    log = Path(token_run.path("pretrain/logs/train.jsonl"))
    with subprocess.Popen(arguments, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 120
        while not (log.exists() and log.stat().st_size):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert voice(err) == ["corpusmill: interrupted; run the same command again to go on where it stopped."]
    assert torchrun or process.returncode == 130


def test_torchrun_with_another_number_of_processes_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    message = r"^training\.parallel: replicate x shard x tensor x pipeline are 2 processes, and torchrun has started 4 \(WORLD_SIZE\)\.$"
    with pytest.raises(InputError, match=message):
        add(tmp_path)


# ---- torchrun ----------------------------------------------------------------------------------------

# The command under torchrun: the same bytes as on the processes that it starts itself, one output, one exit status.


def voice(stderr: str) -> list[str]:
    """Returns the output of the command itself; torchrun adds its own when a process fails."""
    return [line for line in stderr.splitlines() if line.startswith("corpusmill: ")]


@pytest.mark.long  # a test above kills one of processes that are started without torchrun
def test_the_same_bytes_and_one_voice_though_one_is_killed(token_run: Storage, trained_by_two: dict[str, bytes], tmp_path: Path) -> None:
    """torchrun itself restarts all processes."""
    done = run_script(tmp_path, DYING, "pretrain", token_run.root, restarts=1)
    assert done.returncode == 0 and (tmp_path / "died").exists(), done.stderr
    assert left(token_run) == trained_by_two
    said = done.stdout.splitlines()
    assert said.count("pretrain") == 1
    assert "bits per byte" in done.stdout
    assert voice(done.stderr) == ["corpusmill: interrupted; run the same command again to go on where it stopped."]  # the one that lived


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
