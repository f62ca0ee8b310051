"""Tests a training on one process, killed by SIGKILL at several of its steps: resumed, it gives the same bytes."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from killing import in_child
from resuming import Dropout, files, train

ONE: dict[str, Any] = {}


@pytest.mark.parametrize(("kind", "background", "kills"), [("adamw", False, (0, 3, 4, 9)), ("muon", True, (2, 7, 8, 11))])
def test_killed_at_some_step_and_resumed_gives_the_same_bytes(tmp_path: Path, kind: str, background: bool, kills: tuple[int, ...]) -> None:
    options = {"optimizer": {"kind": kind}, "async_save": background}
    assert in_child(train, tmp_path / "whole", ONE, options) == 0
    wanted = files(tmp_path / "whole")
    for kill in kills:
        folder = tmp_path / f"killed-{kill}"
        assert os.WTERMSIG(in_child(train, folder, ONE, options, kill)) == signal.SIGKILL
        assert in_child(train, folder, ONE, options) == 0
        assert files(folder) == wanted, kill


@pytest.mark.parametrize("precision", ["bf16", "bf16-params"])
def test_every_precision_goes_on_bit_by_bit(tmp_path: Path, precision: str) -> None:
    options = {"precision": precision, "optimizer": {"kind": "muon"}, "checkpointing": True}
    assert in_child(train, tmp_path / "whole", ONE, options) == 0
    assert os.WIFSIGNALED(in_child(train, tmp_path / "killed", ONE, options, 6))
    assert in_child(train, tmp_path / "killed", ONE, {**options, "checkpointing": False}) == 0  # the same bits with more memory
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_killed_again_and_again_a_training_gets_to_its_end(tmp_path: Path) -> None:
    options = {"save_every": 3, "optimizer": {"kind": "muon"}}
    assert in_child(train, tmp_path / "whole", ONE, options) == 0
    for kill in (2, 5, 4, 8, 11):
        assert os.WIFSIGNALED(in_child(train, tmp_path / "killed", ONE, {**options, "async_save": False}, kill))
    assert in_child(train, tmp_path / "killed", ONE, options) == 0
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_a_model_that_draws_random_numbers_goes_on_with_the_same_ones(tmp_path: Path) -> None:
    options: dict[str, Any] = {}
    assert in_child(train, tmp_path / "whole", ONE, options, None, 0, Dropout) == 0
    assert os.WIFSIGNALED(in_child(train, tmp_path / "killed", ONE, options, 9, 0, Dropout))
    assert in_child(train, tmp_path / "killed", ONE, options, None, 0, Dropout) == 0
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert in_child(train, tmp_path / "plain", ONE, options) == 0
    assert files(tmp_path / "plain")["train.jsonl"] != files(tmp_path / "whole")["train.jsonl"]


def test_states_that_a_kill_left_are_removed_though_no_other_is_saved(tmp_path: Path) -> None:
    """The kill came after the last state was written and before the older ones were removed."""
    assert in_child(train, tmp_path / "whole", ONE, {"save_every": 3}) == 0
    assert in_child(train, tmp_path / "killed", ONE, {"save_every": 3, "keep": 5}) == 0
    assert files(tmp_path / "killed") != files(tmp_path / "whole")
    assert in_child(train, tmp_path / "killed", ONE, {"save_every": 3}) == 0
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
