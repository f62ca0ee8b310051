"""Saved states of one process: whole or not at all, the latest and the best kept, damage passed over, written beside the training."""

import json
import os
import resource
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import in_child
from torch import Tensor

from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.train.parallel.layout import ParallelDims
from corpusmill.train.pieces import RankTensors
from corpusmill.train.state import States, read_weights

SHARD = "shard-00000-of-00001.safetensors"


def states(folder: Path, **options: Any) -> States:
    return States(folder, ParallelDims.single(torch.device("cpu")), **options)


def tensors_of(step: int) -> dict[str, Tensor]:
    return {"model/w": torch.full((3,), float(step)), "optimizer/w/m": torch.zeros(3), "optimizer/w/step": torch.tensor(float(step))}


def save(folder: Path, step: int) -> None:
    states(folder).save(step, tensors_of(step), {"loss": 0.1 + step})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def latest(folder: Path) -> int | None:
    saved = states(folder).latest()
    return saved and saved.step


def test_states_keep_the_latest_two_and_come_back_bit_by_bit(tmp_path: Path) -> None:
    assert states(tmp_path).latest() is None
    for step in (10, 20, 30):
        save(tmp_path, step)
    assert names(tmp_path) == ["step-00000020", "step-00000030"]
    found = states(tmp_path).latest()
    assert found is not None and found.step == 30 and found.record == {"loss": 30.1}
    tensors = {name: torch.ones_like(t) for name, t in tensors_of(0).items()}
    states(tmp_path).load(found, tensors)
    assert all(torch.equal(tensors[name], t) for name, t in tensors_of(30).items())
    assert read_weights(found.path).keys() == {"w"} and torch.equal(read_weights(found.path)["w"], torch.full((3,), 30.0))


@settings(max_examples=40, deadline=None)
@given(
    scores=st.lists(st.one_of(st.none(), st.floats(0, 9), st.just(float("nan"))), min_size=1, max_size=8),
    keep=st.integers(1, 3),
    keep_best=st.integers(0, 3),
    background=st.booleans(),
)
def test_the_latest_and_the_best_are_kept(
    tmp_path_factory: pytest.TempPathFactory, scores: list[float | None], keep: int, keep_best: int, background: bool
) -> None:
    folder = tmp_path_factory.mktemp("states")
    with states(folder, keep=keep, keep_best=keep_best, background=background) as saving:
        for step, score in enumerate(scores):
            saving.save(step, tensors_of(step), {}, score)
    order = sorted(
        (step for step, score in enumerate(scores) if score is not None), key=lambda step: (scores[step] != scores[step], scores[step])
    )
    held = {*range(len(scores))[-keep:], *order[:keep_best]}
    assert names(folder) == [f"step-{step:08d}" for step in sorted(held)]
    best = states(folder).best()
    among = [step for step in order if step in held]
    assert (best and best.step) == (among[0] if among else None)


@pytest.mark.parametrize("name", [SHARD, "state.json"])
@pytest.mark.parametrize("how", ["cut", "changed", "gone"])
def test_a_damaged_state_gives_way_to_the_one_before(tmp_path: Path, name: str, how: str) -> None:
    save(tmp_path, 10)
    save(tmp_path, 20)
    path = tmp_path / "step-00000020" / name
    content = path.read_bytes()
    path.write_bytes({"cut": content[:-9], "changed": b"x" + content[1:], "gone": b""}[how])
    if how == "gone":
        path.unlink()
    (tmp_path / ".tmp-step-00000030").mkdir()  # what a kill while saving leaves
    assert latest(tmp_path) == 10 and ".tmp-step-00000030" not in names(tmp_path)
    states(tmp_path, keep=1).save(15, tensors_of(15), {})
    assert latest(tmp_path) == 15  # the damaged later one neither counts nor is in the way
    states(tmp_path, keep=1).save(20, tensors_of(20), {})
    assert latest(tmp_path) == 20 and names(tmp_path) == ["step-00000020"]


def test_the_state_of_another_model_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 10)
    found = states(tmp_path).latest()
    assert found is not None
    for change, sentence in (
        ({"model/w": torch.zeros(4)}, r"step-00000010: model/w is \[3\] of torch\.float32, and in this training \[4\] of torch\.float32"),
        ({"model/w": torch.zeros(3).half()}, r"model/w is \[3\] of torch\.float32, and in this training \[3\] of torch\.float16"),
        ({"model/v": torch.zeros(3)}, r"step-00000010: model/v is missing \(1 in all\): it holds the state of another model"),
    ):
        with pytest.raises(InputError, match=sentence):
            states(tmp_path).load(found, {**tensors_of(0), **change})
    with pytest.raises(InputError, match=r"holds optimizer/w/step, which this training does not have \(1 such in all\)"):
        states(tmp_path).load(found, {name: t for name, t in tensors_of(0).items() if not name.endswith("step")})


def test_what_is_saved_is_what_was_there_at_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training changes tensors and record while they are written; that is held up here until it has."""
    changed, write = threading.Event(), RankTensors.write
    monkeypatch.setattr(RankTensors, "write", lambda *arguments: changed.wait(30) and write(*arguments))
    tensors, record = tensors_of(5), {"losses": [1.5]}
    with states(tmp_path, background=True) as saving:
        saving.save(5, tensors, record)
        assert names(tmp_path) in ([], [".tmp-step-00000005"])
        tensors["model/w"] += 1
        record["losses"].append(2.5)
        changed.set()
    found = states(tmp_path).latest()
    assert found is not None and found.record == {"losses": [1.5]} and read_weights(found.path)["w"].tolist() == [5.0] * 3


def limited(folder: Path, background: bool) -> None:
    """Files can't grow beyond 200 bytes, as on a disk that is full."""
    saving = states(folder, background=background)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        saving.save(20, {"model/w": torch.zeros(1000)}, {})
        if not background:
            os._exit(9)
        saving.save(30, {"model/w": torch.zeros(1000)}, {})  # what has failed is told by the next save
    except CorpusmillError as error:
        assert "step-00000020" in str(error) and "can't be written" in str(error) and "File too large" in str(error), error
        os._exit(7)


@pytest.mark.parametrize("background", [True, False])
def test_a_full_disk_leaves_the_state_before_intact(tmp_path: Path, background: bool) -> None:
    save(tmp_path, 10)
    assert os.waitstatus_to_exitcode(in_child(limited, tmp_path, background)) == 7
    assert latest(tmp_path) == 10 and names(tmp_path) == ["step-00000010"]


def killed_while_writing(folder: Path, at: str) -> None:
    """SIGKILL of this process in the background thread, with the file half written, before the renaming or after it."""
    if at == "half":

        def half(pieces: RankTensors, path: Path, taken: Any) -> None:
            path.write_bytes(bytes(100))
            os.kill(os.getpid(), signal.SIGKILL)

        RankTensors.write = half  # type: ignore[method-assign]
    else:
        replace = os.replace

        def killing(source: Any, target: Any) -> None:
            if at == "after":
                replace(source, target)
            os.kill(os.getpid(), signal.SIGKILL)

        os.replace = killing
    saving = states(folder, background=True)
    saving.save(20, tensors_of(20), {})
    saving.finish()


@pytest.mark.parametrize(("at", "step"), [("half", 10), ("before", 10), ("after", 20)])
def test_killed_while_a_state_is_written_the_one_before_is_there(tmp_path: Path, at: str, step: int) -> None:
    save(tmp_path, 10)
    assert os.WTERMSIG(in_child(killed_while_writing, tmp_path, at)) == signal.SIGKILL
    assert latest(tmp_path) == step
    save(tmp_path, 20)
    assert names(tmp_path) == ["step-00000010", "step-00000020"]


def test_a_configuration_that_differs_is_named(tmp_path: Path) -> None:
    states(tmp_path).save(1, tensors_of(1), {"loop": {"clip": 1.0, "optimizer": {"lr": 0.1, "kind": "muon"}}})
    found = states(tmp_path).latest()
    assert found is not None
    found.require({"loop": {"clip": 1.0, "optimizer": {"lr": 0.1, "kind": "muon"}}})
    with pytest.raises(
        InputError, match=r"step-00000001: holds the state of another configuration \(loop\.optimizer\.lr was 0\.1 and is 0\.2\)"
    ):
        found.require({"loop": {"clip": 1.0, "optimizer": {"lr": 0.2, "kind": "muon"}}})
    assert json.loads((found.path / "state.json").read_text())["ranks"][0].keys() == {"bytes", "sha256", "random"}
