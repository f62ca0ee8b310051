"""The command under torchrun: the same bytes as on the processes that we start, one voice, one exit status."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from launch_runs import call, command, environment, left

from corpusmill.pipeline.storage import Storage


def voice(stderr: str) -> list[str]:
    """What the command itself says; torchrun has words of its own when a process fails."""
    return [line for line in stderr.splitlines() if line.startswith("corpusmill: ")]


@pytest.mark.long  # test_launch.py kills one of processes that are started without torchrun
def test_the_same_bytes_and_one_voice_though_one_is_killed(token_run: Storage, trained_by_two: dict[str, bytes], tmp_path: Path) -> None:
    """torchrun starts all of them again, by itself."""
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
from corpusmill.train import pretrain_job

real, marker = pretrain_job.launch, str(Path(__file__).with_name("died"))
pretrain_job.launch = lambda job, arguments, *rest, **options: real(
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
        until = time.monotonic() + 90
        while not (log.exists() and log.stat().st_size):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert voice(err) == ["corpusmill: interrupted; run the same command again to go on where it stopped."]
