"""Saved states of a run: listed, made model folders, exported when best, and gone on from with other settings and layouts."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from launch_runs import PRETRAIN, call, left, run_with_tokens, train
from safetensors.torch import load_file

from corpusmill.cli.checkpoints import checkpoints as command
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage
from corpusmill.train import pretrain_job
from corpusmill.train.checkpoint import load_model
from corpusmill.train.saved import checkpoints, export_state

ONE = {"parallel": {}, "evaluate_every": 2, "loop": {**PRETRAIN["loop"], "keep": 2, "keep_best": 2, "save_every": 2}}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, tokenizer_json: bytes, finish: Any, documents_of: Any) -> Storage:
    return run_with_tokens(tmp_path_factory.mktemp("prepared") / "run", tokenizer_json, finish, documents_of)


@pytest.fixture
def run(prepared: Storage, tmp_path: Path) -> Storage:
    shutil.copytree(prepared.root, tmp_path / "run")
    return Storage(str(tmp_path / "run"))


def states(run: Storage) -> Path:
    (folder,) = Path(run.path("pretrain/checkpoints")).glob("*/state")
    return folder


def lines(run: Storage) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.read_bytes("pretrain/logs/train.jsonl").splitlines()]


def test_saved_states_are_listed_and_open_in_transformers(run: Storage, tmp_path: Path) -> None:
    train(run, **ONE)
    done = call("checkpoints", run.root)
    assert done.returncode == 0, done.stderr
    listed = re.sub(r"\s+", " ", done.stdout)
    scores = {line["step"] + 1: line["validation_bits_per_byte"] for line in lines(run) if "validation_bits_per_byte" in line}
    kept = sorted({*sorted(scores, key=scores.get)[:2], 10, 12})  # type: ignore[arg-type]
    for step in kept:
        assert re.search(rf"pretrain \w{{8}} {step} \d{{4}}-\d\d-\d\d \d\d:\d\d [\d.]+ {scores[step]:.4f} one ", listed), listed
    assert sorted(int(path.name[-8:]) for path in states(run).iterdir()) == kept
    output = tmp_path / "at-10"
    assert export_state(run.root, 10, output).stage == "pretrain"
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(output), AutoTokenizer.from_pretrained(output)
    ids = torch.tensor([tokenizer("the old mill")["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, load_model(output)(ids), rtol=1e-4, atol=1e-5)
    saved = load_file(states(run) / "step-00000010" / "shard-00000-of-00001.safetensors")
    assert torch.equal(model.lm_head.weight, saved["model/lm_head.weight"])
    export_state(run.root, 12, tmp_path / "at-12")
    assert (tmp_path / "at-12" / "model.safetensors").read_bytes() == run.read_bytes("pretrain/model/model.safetensors")


def test_what_can_not_be_exported_is_a_sentence(run: Storage, tmp_path: Path) -> None:
    assert checkpoints(run.root) == []
    with pytest.raises(InputError, match="run: no state was saved after 12 steps, nor any other"):
        export_state(run.root, 12, tmp_path / "x")
    train(run, **ONE)
    with pytest.raises(InputError, match="run: no state was saved after 5 steps; there are "):
        export_state(run.root, 5, tmp_path / "x")
    with pytest.raises(InputError, match="is there already"):
        export_state(run.root, 12, tmp_path)
    with pytest.raises(InputError, match="dedup is no stage that trains; those are pretrain, sft, align"):
        checkpoints(run.root, "dedup")
    with pytest.raises(InputError, match="nowhere: no such run"):
        checkpoints(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="--step and --output belong together"):
        command(run.root, None, 12, None)
    shard = states(run) / "step-00000012" / "shard-00000-of-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"shard-00000-of-00001\.safetensors: \d+ bytes, and \d+ were written"):
        export_state(run.root, 12, tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("parallel", [{}, {"shard": 2}], ids=str)
def test_the_best_state_becomes_the_model(run: Storage, tmp_path: Path, parallel: dict[str, int]) -> None:
    """With a learning rate that ruins the model after its first steps, the best state is not the last one."""
    ruinous = {**ONE["loop"], "schedule": "constant", "warmup": 9, "optimizer": {"kind": "adamw", "lr": 0.5}, "clip": 0, "keep_best": 0}
    train(run, parallel=parallel, evaluate_every=2, evaluate_windows=0, export="best", loop=ruinous)
    scores = {line["step"] + 1: line["validation_bits_per_byte"] for line in lines(run) if "validation_bits_per_byte" in line}
    best = min(scores, key=scores.get)  # type: ignore[arg-type]
    assert best < 12 and scores[best] < 0.97 * scores[12]
    assert json.loads(run.read_bytes("pretrain/metrics.json"))["validation"]["bits_per_byte"] == pytest.approx(scores[best], rel=1e-6)
    export_state(run.root, best, tmp_path / "best")
    assert (tmp_path / "best" / "model.safetensors").read_bytes() == run.read_bytes("pretrain/model/model.safetensors")


def test_a_training_in_a_later_epoch_goes_on_twice_with_other_settings_and_gives_the_same_files(
    run: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the reports on other loops: the second resume, and one in a later epoch; what is saved and how may change in between."""
    long = {**ONE["loop"], "steps": 150, "save_every": 10}
    whole = {**ONE, "evaluate_every": 50}
    train(run, **{**whole, "loop": long})
    assert json.loads(run.read_bytes("pretrain/metrics.json"))["epochs"] > 2
    wanted = left(run)
    run.remove_folder("pretrain")
    batches = pretrain_job._Job.batches
    for kill, changes in ((61, {"keep": 1}), (117, {"save_every": 7, "async_save": False}), (None, {"keep_best": 0})):

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


def test_two_processes_give_the_model_of_one_and_one_goes_on_from_their_states(run: Storage) -> None:
    options = {**ONE, "loop": {**ONE["loop"], "optimizer": {"kind": "adamw"}}}  # Muon orthogonalises rounding errors, too
    train(run, **options)
    one, log = weights(run), lines(run)
    run.remove_folder("pretrain")
    train(run, **{**options, "parallel": {"shard": 2}})
    two = weights(run)
    assert {state.processes for state in checkpoints(run.root)} == {"shard 2"}
    shutil.rmtree(states(run) / "step-00000012")
    Path(run.path("pretrain/manifest.jsonl")).unlink()  # as if they had been killed after step 10
    train(run, **options)
    assert [state.processes for state in checkpoints(run.root) if state.saved.step == 12] == ["one"]
    for found in (two, weights(run)):
        assert one.keys() == found.keys() and all(torch.allclose(one[name], found[name], rtol=0, atol=2e-6) for name in one)
    for line, wanted in zip(lines(run), log, strict=True):
        assert line["step"] == wanted["step"] and line["loss"] == pytest.approx(wanted["loss"], abs=1e-6)


def weights(run: Storage) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in load_file(run.path("pretrain/model/model.safetensors")).items()}
