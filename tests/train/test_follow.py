"""The bar of a training elsewhere, drawn from its logs."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train import follow
from corpusmill.train.follow import following


def write(folder: Path, steps: range, mode: str = "a") -> None:
    with open(folder / "train.jsonl", mode) as lines, open(folder / "speed.jsonl", mode) as speeds:
        for step in steps:
            lines.write(json.dumps({"step": step, "loss": 2.0, "lr": 1e-3}) + "\n")
            speed = {"step": step, "tokens_per_second": 5.0, "flops_per_second": 1e9, "memory_bytes": 10**9, "seconds_left": 3.0}
            speeds.write(json.dumps(speed) + "\n")


@pytest.fixture
def steps_seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps that reach the bar."""
    seen: list[int] = []
    real = follow.loop_bar

    def watched(*arguments: Any) -> Any:
        manager = real(*arguments)
        bar = manager.__enter__()
        if bar:
            step = bar.step
            monkeypatch.setattr(bar, "step", lambda line, *rest: (seen.append(line["step"]), step(line, *rest)))
        manager.__exit__(None, None, None)
        return _Given(bar)

    monkeypatch.setattr(follow, "loop_bar", watched)
    return seen


class _Given:
    def __init__(self, value: Any):
        self.value = value

    def __enter__(self) -> Any:
        return self.value

    def __exit__(self, *_: object) -> None:
        pass


def test_each_new_step_once_also_those_done_again(tmp_path: Path, steps_seen: list[int]) -> None:
    progress = Progress(True)
    progress.console = Console(file=io.StringIO(), force_terminal=True)
    write(tmp_path, range(3))  # of an earlier part of the training
    with following(progress, "pretrain", tmp_path / "train.jsonl", 9) as look:
        look()
        assert steps_seen == []
        write(tmp_path, range(3, 6))
        with open(tmp_path / "train.jsonl", "a") as lines:
            lines.write('{"step": 6, "lo')  # a line that is still being written
        look()
        assert steps_seen == [3, 4, 5]
        write(tmp_path, range(4), mode="w")  # begun again at step 4: later lines are gone
        look()
        write(tmp_path, range(4, 8))
        look()
        assert steps_seen == [3, 4, 5, 4, 5, 6, 7]


def test_nothing_without_a_terminal_or_a_log(tmp_path: Path) -> None:
    for progress, log in ((Progress(False), tmp_path / "train.jsonl"), (None, None), (Progress(True), None)):
        with following(progress, "pretrain", log, 9) as look:
            look()
