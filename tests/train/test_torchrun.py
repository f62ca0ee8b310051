"""The command under torchrun: the same bytes as on the processes that we start, one voice, one exit status."""

import signal
import subprocess
import time
from pathlib import Path

from launch_runs import call, command, environment, left

from corpusmill.pipeline.storage import Storage


def voice(stderr: str) -> list[str]:
    """What the command itself says; torchrun has words of its own when a process fails."""
    return [line for line in stderr.splitlines() if line.startswith("corpusmill: ")]


def test_the_same_bytes_and_one_voice(token_run: Storage, trained_by_two: dict[str, bytes]) -> None:
    done = call("pretrain", token_run.root, torchrun=2)
    assert done.returncode == 0, done.stderr
    assert left(token_run) == trained_by_two
    assert done.stdout.count("pretrain") == 1 and "bits per byte" in done.stdout and voice(done.stderr) == []


def test_another_number_of_processes_is_a_sentence(token_run: Storage) -> None:
    done = call("pretrain", token_run.root, "--set", "pretrain.parallel.shard=2", torchrun=2)
    assert done.returncode != 0 and voice(done.stderr) == [
        "corpusmill: pretrain.parallel: replicate x shard x tensor x pipeline are 4 processes, and torchrun has started 2 (WORLD_SIZE)."
    ]


def test_an_error_of_another_process_is_the_first_ones_sentence(tmp_path: Path) -> None:
    script = tmp_path / "trial.py"
    script.write_text(TRIAL)
    arguments = [*command(torchrun=2)[:-2], str(script), str(tmp_path / "processes")]
    done = subprocess.run(arguments, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0 and voice(done.stderr) == ["corpusmill: tokens.bin: broken at byte 7."]


TRIAL = """
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
