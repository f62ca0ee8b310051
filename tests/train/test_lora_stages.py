"""Instruction tuning and alignment that train an adapter, as stages of a run."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import put_adapter
from pydantic import ValidationError
from ranks import run_ranks
from safetensors.torch import load_file, save_file

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage
from corpusmill.train import instruction
from corpusmill.train.align import AlignConfig, AlignStage
from corpusmill.train.chat_templates import CHATML
from corpusmill.train.checkpoint import load_model, model_tensors, save_model
from corpusmill.train.lora import merged_weights
from corpusmill.train.options import ParallelConfig
from corpusmill.train.parallel.layout import ParallelDims
from corpusmill.train.saved import export_state
from corpusmill.train.sft import SftConfig, SftStage

LOOP = {"threads": 1, "steps": 12, "save_every": 4, "optimizer": {"lr": 2e-2}}
SFT = {"batch": 4, "epochs": 4, "evaluate_every": 0, "per_document": 1, "loop": LOOP, "lora": {"rank": 4}}
ALIGN = {"batch": 4, "per_document": 1, "pairs": 40, "evaluate_every": 0, "loop": LOOP, "lora": {"rank": 2, "targets": ["v_proj"]}}

Weights = dict[str, torch.Tensor]


@pytest.fixture
def run(pretrained_run: Storage, finish: Callable[..., None]) -> Storage:
    """A run whose pre-trained model has no weight of zero: nothing could be learned through a head that is frozen there."""
    model, folder = load_model(pretrained_run.path("pretrain/model")), Path(pretrained_run.path("random"))
    generator = torch.Generator().manual_seed(1)
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=generator) * 0.2 + (p.dim() == 1)
    save_model(model, folder, Path(pretrained_run.path("pretrain/model")))
    finish(pretrained_run, "pretrain", {f"model/{path.name}": path for path in sorted(folder.iterdir())})
    return pretrained_run


def weights_of(run: Storage, path: str) -> Weights:
    return model_tensors(load_model(run.path(path)))


def check_adapter(run: Storage, stage: str, base: str) -> None:
    """Whether the stage's adapter on the model it started from is the stage's model."""
    model = load_model(run.path(base))
    put_adapter(model, Path(run.path(f"{stage}/adapter")))
    merged, left = merged_weights(model), weights_of(run, f"{stage}/model")
    assert json.loads(run.read_bytes(f"{stage}/adapter/adapter_config.json"))["base_model_name_or_path"] == base
    assert merged.keys() == left.keys() and all(torch.equal(merged[name], left[name]) for name in merged)
    changed = {name for name, tensor in weights_of(run, base).items() if not torch.equal(tensor, left[name])}
    assert changed and all(name.endswith("_proj.weight") for name in changed)


def test_both_stages_leave_adapter_and_merged_model(run: Storage, execute: Callable[..., Any], tmp_path: Path) -> None:
    execute(run, SftStage(SftConfig.model_validate(SFT)), AlignStage(AlignConfig.model_validate(ALIGN)))
    check_adapter(run, "sft", "pretrain/model")
    check_adapter(run, "align", "sft/model")
    sft, align = (json.loads(run.child(stage).read_bytes("metrics.json")) for stage in ("sft", "align"))
    assert sft["held_out_loss_after"] < sft["held_out_loss_before"] - 0.1
    assert align["held_out_before"]["loss"] == pytest.approx(math.log(2), abs=1e-6)  # the reference is the model without the adapter
    assert align["held_out_after"]["loss"] < align["held_out_before"]["loss"]
    export_state(run.root, 12, tmp_path / "at-12", "sft")
    exported = model_tensors(load_model(tmp_path / "at-12"))
    assert all(torch.equal(tensor, exported[name]) for name, tensor in weights_of(run, "sft/model").items())
    Path(run.path("pretrain/model/model.safetensors")).write_bytes(b"another")
    with pytest.raises(InputError, match="pretrain/model: is not the model any more that the adapter of .*step-00000008 was trained for"):
        export_state(run.root, 8, tmp_path / "at-8", "sft")


def trained_by_two(run: str, work: str) -> None:
    """What each of two ranks that share out every matrix does; the first leaves model and adapter in `work`."""
    config = {**SFT, "loop": {**LOOP, "steps": 3}, "parallel": {"tensor": 2}}
    dims = ParallelDims.distributed(ParallelConfig(tensor=2), torch.device("cpu"))
    instruction.train(dims, None, config, run, f"{run}/pretrain/model", "pretrain/model", work)


def test_two_processes_leave_the_model_of_one(run: Storage, execute: Callable[..., Any], tmp_path: Path) -> None:
    execute(run, SftStage(SftConfig.model_validate({**SFT, "loop": {**LOOP, "steps": 3}})))
    run_ranks(trained_by_two, 2, run.root, str(tmp_path / "two"))
    one, two = load_model(run.path("sft/model")), load_model(tmp_path / "two" / "model")
    for name, tensor in model_tensors(one).items():
        torch.testing.assert_close(model_tensors(two)[name], tensor, rtol=0, atol=1e-4)
    opened = load_model(run.path("pretrain/model"))
    put_adapter(opened, tmp_path / "two" / "adapter")
    assert all(torch.equal(tensor, model_tensors(two)[name]) for name, tensor in merged_weights(opened).items())


def test_a_template_whose_tokens_an_adapter_can_not_learn_is_refused(run: Storage, execute: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=r"sft.lora.rank: the template llama3 needs tokens that .*pretrain/model lacks"):
        execute(run, SftStage(SftConfig.model_validate({**SFT, "template": "llama3"})))


def test_adapters_are_trained_by_adamw_and_bad_targets_are_a_sentence() -> None:
    config = SftConfig.model_validate(SFT)
    assert config.loop.optimizer.kind == "adamw" and SftConfig().loop.optimizer.kind == "muon"
    assert SftConfig.model_validate(config.model_dump(mode="json")) == config
    with pytest.raises(ValidationError, match=r"adapters are trained by AdamW, and loop.optimizer.kind is muon"):
        SftConfig.model_validate({"lora": {"rank": 4}, "loop": {"optimizer": {"kind": "muon"}}})
    with pytest.raises(ValidationError, match=r"lora.targets.0\n *Input should be 'q_proj', 'k_proj'"):
        AlignConfig.model_validate({"lora": {"rank": 4, "targets": ["lm_head"]}})
    with pytest.raises(ValidationError, match="at least 1 item"):
        AlignConfig.model_validate({"lora": {"rank": 4, "targets": []}})


def test_another_template_over_the_same_tokens(run: Storage, execute: Callable[..., Any], tmp_path: Path) -> None:
    template = CHATML.replace("assistant\\n", "assistant:\\n")
    assert template != CHATML
    (tmp_path / "mine.jinja").write_text(template)
    execute(run, SftStage(SftConfig.model_validate({**SFT, "template": str(tmp_path / "mine.jinja"), "loop": {**LOOP, "steps": 2}})))
    check_adapter(run, "sft", "pretrain/model")
    assert run.read_bytes("sft/model/chat_template.jinja").decode() == template
    export_state(run.root, 2, tmp_path / "at-2", "sft")


def test_an_adapter_of_a_given_model_in_shards_is_merged_from_anywhere(
    run: Storage, execute: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run.path("pretrain/model"), tmp_path / "given")
    (tmp_path / "elsewhere").mkdir()
    weights, first = load_file(tmp_path / "given" / "model.safetensors"), "model.embed_tokens.weight"
    shards = {"one": {first: weights.pop(first)}, "two": weights}
    index = {name: f"{shard}.safetensors" for shard, tensors in shards.items() for name in tensors}
    (tmp_path / "given" / "model.safetensors").unlink()
    (tmp_path / "given" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    for shard, tensors in shards.items():
        save_file(tensors, tmp_path / "given" / f"{shard}.safetensors", {"format": "pt"})
    (tmp_path / "mine.jinja").write_text(CHATML.replace("assistant\\n", "assistant:\\n"))  # so the training starts from a copy
    monkeypatch.chdir(tmp_path)
    execute(run, SftStage(SftConfig.model_validate({**SFT, "model": "given", "template": "mine.jinja", "loop": {**LOOP, "steps": 2}})))
    monkeypatch.chdir(tmp_path / "elsewhere")
    adapter = json.loads(run.read_bytes("sft/adapter/adapter_config.json"))
    assert adapter["base_model_name_or_path"] == str(tmp_path / "given")
    export_state(run.root, 2, tmp_path / "at-2", "sft")
    exported = model_tensors(load_model(tmp_path / "at-2"))
    assert all(torch.equal(tensor, exported[name]) for name, tensor in weights_of(run, "sft/model").items())
    (tmp_path / "given" / "two.safetensors").write_bytes(b"another")
    with pytest.raises(InputError, match="given: is not the model any more"):
        export_state(run.root, 2, tmp_path / "again", "sft")
