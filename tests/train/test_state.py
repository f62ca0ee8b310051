"""Saved states: whole or not at all, the latest ones kept, damage passed over."""

from pathlib import Path

import pytest
import torch

from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.train.parallel.layout import Layout
from corpusmill.train.state import States, read_weights


def states(folder: Path) -> States:
    return States(folder, Layout.single(torch.device("cpu")))


def save(folder: Path, step: int) -> None:
    states(folder).save(step, {"model/w": torch.full((3,), float(step)), "optimizer/w/m": torch.zeros(3)}, {"loss": 0.1 + step})


def test_states_keep_the_latest_two_and_come_back_bit_by_bit(tmp_path: Path) -> None:
    assert states(tmp_path).latest() is None
    for step in (10, 20, 30):
        save(tmp_path, step)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000020", "step-00000030"]
    found = states(tmp_path).latest()
    assert found is not None and found.step == 30 and found.record == {"loss": 30.1}
    tensors = {"model/w": torch.zeros(3), "optimizer/w/m": torch.ones(3)}
    states(tmp_path).load(found, tensors)
    assert torch.equal(tensors["model/w"], torch.full((3,), 30.0)) and not tensors["optimizer/w/m"].any()
    assert torch.equal(read_weights(found.path)["w"], torch.full((3,), 30.0))


def test_the_state_of_another_model_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 10)
    found = states(tmp_path).latest()
    assert found is not None
    with pytest.raises(InputError, match=r"step-00000010: model/w is \[3\] of torch\.float32, and in this training \[4\] of"):
        states(tmp_path).load(found, {"model/w": torch.zeros(4), "optimizer/w/m": torch.ones(3)})


@pytest.mark.parametrize("name", ["shard-00000-of-00001.safetensors", "state.json"])
def test_a_damaged_state_gives_way_to_the_one_before(tmp_path: Path, name: str) -> None:
    save(tmp_path, 10)
    save(tmp_path, 20)
    path = tmp_path / "step-00000020" / name
    path.write_bytes(path.read_bytes()[:-9])
    (tmp_path / ".tmp-step-00000030").mkdir()  # what a kill while saving leaves
    found = states(tmp_path).latest()
    assert found is not None and found.step == 10


def test_a_full_disk_leaves_the_state_before_intact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 10)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(CorpusmillError, match="No space left on device"):
        save(tmp_path, 20)
    found = states(tmp_path).latest()
    assert found is not None and found.step == 10
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000010"]
