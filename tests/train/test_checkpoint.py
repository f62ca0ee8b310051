"""Tests saved states of one process: whole or not at all, latest and best kept, damaged ones skipped, written in the background."""

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import in_child
from launch_runs import PRETRAIN, left, train
from safetensors.torch import load_file
from torch import Tensor

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage
from corpusmill.train import checkpoint, pretrain_job
from corpusmill.train.checkpoint import States, checkpoints, export_state, load_model
from corpusmill.train.parallel import ParallelDims

# ---- state -------------------------------------------------------------------------------------------

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


@settings(max_examples=20, deadline=None)
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
    finite = {step: score for step, score in enumerate(scores) if score is not None and score == score}
    order = sorted(finite, key=lambda step: finite[step])
    held = {*range(len(scores))[-keep:], *order[:keep_best]}
    assert names(folder) == [f"step-{step:08d}" for step in sorted(held)]
    best = states(folder).best()
    among = [step for step in order if step in held]
    assert (best and best.step) == (among[0] if among else None)


@pytest.mark.parametrize(("name", "how"), [(SHARD, "cut"), (SHARD, "gone"), ("state.json", "changed")])
def test_a_damaged_state_gives_way_to_the_one_before(tmp_path: Path, name: str, how: str) -> None:
    save(tmp_path, 10)
    save(tmp_path, 20)
    path = tmp_path / "step-00000020" / name
    content = path.read_bytes()
    path.write_bytes({"cut": content[:-9], "changed": b"x" + content[1:], "gone": b""}[how])
    if how == "gone":
        path.unlink()
    assert latest(tmp_path) == 10
    left = tmp_path / "step-00000012" / SHARD  # of a save that was killed
    left.parent.mkdir()
    left.write_bytes(b"half")
    assert latest(tmp_path) == 10
    states(tmp_path, keep=1).save(15, tensors_of(15), {})
    assert latest(tmp_path) == 15  # the damaged later one neither counts nor disturbs
    states(tmp_path, keep=1).save(20, tensors_of(20), {})
    assert latest(tmp_path) == 20 and names(tmp_path) == ["step-00000020"]


def test_the_state_of_another_model_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 10)
    found = states(tmp_path).latest()
    assert found is not None
    for change, sentence in (
        ({"model/w": torch.zeros(4)}, r"step-00000010: model/w has the shape \[3\], and in this model \[4\]"),
        ({"model/w": torch.zeros(3).half()}, r"model/w is of torch\.float32, and in this model of torch\.float16"),
        ({"model/v": torch.zeros(3)}, r"step-00000010: model/v is missing \(1 in all\), so it is of another model"),
    ):
        with pytest.raises(InputError, match=sentence):
            states(tmp_path).load(found, {**tensors_of(0), **change})
    with pytest.raises(InputError, match=r"holds optimizer/w/step, which this model does not have \(1 such in all\)"):
        states(tmp_path).load(found, {name: t for name, t in tensors_of(0).items() if not name.endswith("step")})


def test_what_is_saved_is_what_was_there_at_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training changes tensors and record during the write, which is delayed here until then."""
    changed, write = threading.Event(), checkpoint.write_tensors
    monkeypatch.setattr(checkpoint, "write_tensors", lambda *given, **named: changed.wait(120) and write(*given, **named))
    tensors, record = tensors_of(5), {"losses": [1.5]}
    with states(tmp_path, background=True) as saving:
        saving.save(5, tensors, record)
        assert names(tmp_path) in ([], ["step-00000005"]) and latest(tmp_path) is None
        tensors["model/w"] += 1
        record["losses"].append(2.5)
        changed.set()
    found = states(tmp_path).latest()
    assert found is not None and found.record == {"losses": [1.5]} and found.weights()["w"].tolist() == [5.0] * 3


def killed_while_writing(folder: Path, at: str) -> None:
    """Sends SIGKILL to this process in the background thread, with the file half written, or after the renaming."""
    if at == "half":

        def half(path: Path, **_: Any) -> None:
            path.parent.mkdir(parents=True)
            path.write_bytes(bytes(100))
            os.kill(os.getpid(), signal.SIGKILL)

        checkpoint.write_tensors = half  # type: ignore[assignment]
    else:
        replace = os.replace

        def killing(source: Any, target: Any) -> None:
            replace(source, target)
            os.kill(os.getpid(), signal.SIGKILL)

        os.replace = killing
    saving = states(folder, background=True)
    saving.save(20, tensors_of(20), {})
    saving.finish()


@pytest.mark.parametrize(("at", "step"), [("half", 10), ("after", 20)])
def test_killed_while_a_state_is_written_the_one_before_is_there(tmp_path: Path, at: str, step: int) -> None:
    save(tmp_path, 10)
    assert os.WTERMSIG(in_child(killed_while_writing, tmp_path, at)) == signal.SIGKILL
    assert latest(tmp_path) == step
    save(tmp_path, 20)
    assert names(tmp_path) == ["step-00000010", "step-00000020"]


# ---- saved -------------------------------------------------------------------------------------------

# Saved states of a run: listed, made model folders, exported when best, and resumed with other settings and layouts.

ONE = {"parallel": {}, "evaluate_every": 2, "loop": {**PRETRAIN["loop"], "keep": 2, "keep_best": 2, "save_every": 2}}


@pytest.fixture
def run(token_run: Storage) -> Storage:
    return token_run


def saved_states(run: Storage) -> Path:
    (folder,) = Path(run.path("pretrain/checkpoints")).glob("*/state")
    return folder


def lines(run: Storage) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.read_bytes("pretrain/logs/train.jsonl").splitlines()]


def test_saved_states_are_listed_and_open_in_transformers(run: Storage, tmp_path: Path, corpusmill: Any) -> None:
    train(run, **ONE)
    scores = {line["step"] + 1: line["validation_bits_per_byte"] for line in lines(run) if "validation_bits_per_byte" in line}
    kept = sorted({*sorted(scores, key=scores.get)[:2], 10, 12})  # type: ignore[arg-type]
    listed = json.loads(corpusmill("status", run.root, "--json")[1])["saved_steps"]
    assert listed == {"pretrain": [5, *kept]}
    assert sorted(int(path.name[-8:]) for path in saved_states(run).iterdir()) == [5, *kept]  # at 5 the rate begins to fall
    output = tmp_path / "at-10"
    code, _, err = corpusmill("export", run.root, output, "--step", 10, "--dtype", "bf16")
    assert code == 2 and "takes no --dtype" in err and not output.exists()
    code, out, err = corpusmill("export", run.root, output, "--step", 10)
    assert code == 0 and out.decode() == f"{output}: the model of pretrain after 10 steps.\n", err
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(output), AutoTokenizer.from_pretrained(output)
    ids = torch.tensor([tokenizer("the old mill")["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, load_model(output)(ids), rtol=1e-4, atol=1e-5)
    saved = load_file(saved_states(run) / "step-00000010" / "shard-00000-of-00001.safetensors")
    assert torch.equal(model.lm_head.weight, saved["model/lm_head.weight"])
    export_state(run.root, 12, tmp_path / "at-12")
    assert (tmp_path / "at-12" / "model.safetensors").read_bytes() == run.read_bytes("pretrain/model/model.safetensors")


def test_what_can_not_be_exported_is_a_sentence(run: Storage, tmp_path: Path) -> None:
    assert checkpoints(run.root) == []
    with pytest.raises(InputError, match="run: no state was saved after 12 steps, nor any other"):
        export_state(run.root, 12, tmp_path / "x")
    train(run, **ONE)
    with pytest.raises(InputError, match="run: no state was saved after 7 steps; there are "):
        export_state(run.root, 7, tmp_path / "x")
    with pytest.raises(InputError, match="already exists"):
        export_state(run.root, 12, tmp_path)
    with pytest.raises(InputError, match=r"dedup is no stage that trains \(expected one of pretrain, sft, align\)"):
        checkpoints(run.root, "dedup")
    with pytest.raises(InputError, match="nowhere: no such run"):
        checkpoints(str(tmp_path / "nowhere"))
    shard = saved_states(run) / "step-00000012" / "shard-00000-of-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"shard-00000-of-00001\.safetensors: \d+ bytes, and \d+ were written"):
        export_state(run.root, 12, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_the_best_state_becomes_the_model(run: Storage, tmp_path: Path) -> None:
    """With a learning rate that ruins the model after its first steps, the best state is not the last one."""
    ruinous = {**ONE["loop"], "schedule": "constant", "warmup": 9, "optimizer": {"kind": "adamw", "lr": 0.5}, "clip": 0, "keep_best": 0}
    train(run, parallel={}, evaluate_every=2, evaluate_windows=0, export="best", loop=ruinous)
    scores = {line["step"] + 1: line["validation_bits_per_byte"] for line in lines(run) if "validation_bits_per_byte" in line}
    best = min(scores, key=scores.get)  # type: ignore[arg-type]
    assert best < 12 and scores[best] < 0.97 * scores[12]
    assert json.loads(run.read_bytes("pretrain/metrics.json"))["validation"]["bits_per_byte"] == pytest.approx(scores[best], rel=1e-6)
    export_state(run.root, best, tmp_path / "best")
    assert (tmp_path / "best" / "model.safetensors").read_bytes() == run.read_bytes("pretrain/model/model.safetensors")


def test_a_training_in_a_later_epoch_goes_on_twice_with_other_settings_and_gives_the_same_files(
    run: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other training loops had bugs here: a second resume, and one in a later epoch; settings of saves may change in between."""
    long = {**ONE["loop"], "steps": 100, "save_every": 10}
    whole = {**ONE, "evaluate_every": 50}
    train(run, **{**whole, "loop": long})
    assert json.loads(run.read_bytes("pretrain/metrics.json"))["epochs"] > 2
    wanted = left(run)
    run.remove_folder("pretrain")
    batches = pretrain_job._Job.batches
    for kill, changes in ((41, {"keep": 1}), (87, {"save_every": 7, "async_save": False}), (None, {"keep_best": 0})):

        def dying(self: Any, step: int, share: Any, kill: int | None = kill) -> Any:
            if step == kill:
                raise KeyboardInterrupt
            yield from batches(self, step, share)

        monkeypatch.setattr(pretrain_job._Job, "batches", dying)
        if kill:
            with pytest.raises(KeyboardInterrupt):
                train(run, **{**whole, "loop": {**long, **changes}})
        else:
            train(run, **{**whole, "loop": {**long, **changes}})
    assert left(run) == wanted
