"""Tests LoRA on one process: unchanged weights, trained and saved ones, and refusals."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import put_adapter
from objectives import Goal
from peft import PeftModel
from safetensors.torch import load_file, save_file
from small_models import random_ids, random_model
from torch import nn
from transformers import AutoModelForCausalLM

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage
from corpusmill.train.checkpoint import export_state, load_model, model_tensors, save_model, tokenizer_files
from corpusmill.train.loop import FitResult, fit
from corpusmill.train.model import Llama, StepLoss, named_generator, token_nats
from corpusmill.train.optim import Optimizer
from corpusmill.train.options import LoopConfig, LoraConfig, OptimizerConfig
from corpusmill.train.parallel.model import ParallelModel
from corpusmill.train.sft import adapt, adapters, blank_start, merged_weights, round_frozen, save_adapter
from corpusmill.train.template import CHATML
from corpusmill.train.tuning import AlignConfig, AlignStage, SftConfig, SftStage

# ---- lora --------------------------------------------------------------------------------------------

LORA = LoraConfig(rank=4)
IDS = random_ids((2, 20))


def adapted(config: LoraConfig = LORA, seed: int = 3) -> Llama:
    model = random_model(layers=2)
    adapt(model, config, seed)
    return model


def trained(model: Llama, folder: Path) -> FitResult:
    def loss(model: Llama, step: int) -> StepLoss:
        ids = random_ids((2, 21), seed=step)
        return StepLoss(token_nats(model(ids[:, :-1]), ids[:, 1:]).sum(), 40)

    loop = {"steps": 6, "warmup": 0, "schedule": "constant", "save_every": 3, "optimizer": {"kind": "adamw", "lr": 1e-2}}
    return fit(model, Goal(loss), LoopConfig.model_validate(loop), state=folder / "state", log=folder / "log.jsonl")


@torch.no_grad()
def test_a_new_adapter_changes_no_bit_and_begins_as_kaiming_says() -> None:
    model = adapted()
    assert torch.equal(model(IDS), random_model(layers=2)(IDS))
    assert len(adapters(model)) == 2 * 7
    for name, module in adapters(model).items():
        expected = torch.empty(4, module.in_features)
        nn.init.kaiming_uniform_(expected, a=math.sqrt(5), generator=named_generator(f"{name}.lora_A", 3))
        torch.testing.assert_close(module.lora_A.data, expected)
        assert not module.lora_B.any()
    assert not torch.equal(adapted(seed=4).model.layers["0"].mlp.up_proj.lora_A, model.model.layers["0"].mlp.up_proj.lora_A)


def test_the_adapter_alone_is_trained_saved_and_resumed(tmp_path: Path) -> None:
    model = adapted()
    result = trained(model, tmp_path / "whole")
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert names == {f"{name}.{part}" for name in adapters(model) for part in ("lora_A", "lora_B")}
    saved = result.states.latest().weights()
    assert saved.keys() == names and all(torch.equal(saved[name], model.get_parameter(name)) for name in names)
    plain = random_model(layers=2).state_dict()
    assert all(torch.equal(p, plain[name]) for name, p in model.named_parameters() if name not in names)
    shutil.rmtree(tmp_path / "whole" / "state" / "step-00000006")  # as if it had been killed before
    resumed = adapted(seed=8)  # loaded values replace drawn ones
    again = trained(resumed, tmp_path / "whole")
    assert again.resumed_from == 3 and again.losses == result.losses
    assert all(torch.equal(resumed.get_parameter(name), model.get_parameter(name)) for name in names)


# ---- peft --------------------------------------------------------------------------------------------

# Adapters against `peft`'s on the same model: values, gradients, steps, merged weights, and `peft` reading corpusmill's files.

PEFT_LORA = LoraConfig(rank=3, alpha=6)
PEFT_IDS = random_ids((2, 21))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "model"
    save_model(random_model(layers=2), folder)
    return folder


def ours(base: Path, config: LoraConfig = PEFT_LORA, filled: bool = True) -> Llama:
    model = load_model(base, dtype=torch.float64)
    adapt(model, config, seed=5)
    generator = torch.Generator().manual_seed(1)
    for module in adapters(model).values() if filled else ():
        module.lora_B.data.normal_(generator=generator)
    return model


def theirs(base: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)


def adapter_of(model: Llama) -> dict[str, torch.Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def test_peft_opens_our_adapter_and_merges_it_as_we_do(base: Path, tmp_path: Path) -> None:
    config = LoraConfig(rank=2, alpha=5.5, targets=("q_proj", "down_proj"))
    model = ours(base, config)
    save_adapter(adapter_of(model), config, "pretrain/model", tmp_path / "adapter")
    peft = PeftModel.from_pretrained(theirs(base), tmp_path / "adapter", autocast_adapter_dtype=False)
    logits = model(PEFT_IDS)
    assert (logits - load_model(base, dtype=torch.float64)(PEFT_IDS)).abs().max() > 1
    torch.testing.assert_close(peft(PEFT_IDS).logits, logits, rtol=1e-10, atol=1e-10)
    merged = peft.merge_and_unload().state_dict()
    weights = merged_weights(model)
    assert merged.keys() == weights.keys()
    for name, expected in merged.items():
        torch.testing.assert_close(weights[name], expected, rtol=0, atol=1e-12)


def loss_of(logits: torch.Tensor) -> torch.Tensor:
    return token_nats(logits[:, :-1], PEFT_IDS[:, 1:]).sum() / PEFT_IDS[:, 1:].numel()


def test_gradients_and_five_steps_are_those_of_peft(base: Path, tmp_path: Path) -> None:
    model = ours(base, filled=False)
    save_adapter(adapter_of(model), PEFT_LORA, "base", tmp_path / "adapter")
    peft = PeftModel.from_pretrained(theirs(base), tmp_path / "adapter", is_trainable=True, autocast_adapter_dtype=False)
    named = {n.removeprefix("base_model.model.").removesuffix(".default.weight"): p for n, p in peft.named_parameters() if p.requires_grad}
    parameters = adapter_of(model)
    assert named.keys() == parameters.keys()
    config = OptimizerConfig(kind="adamw", lr=1e-2, weight_decay=0.1)
    optimizer = Optimizer(parameters, config)
    other = torch.optim.AdamW(named.values(), lr=1e-2, betas=config.betas, eps=config.eps, weight_decay=0.1)
    for _ in range(5):
        losses = loss_of(model(PEFT_IDS)), loss_of(peft(PEFT_IDS).logits)
        torch.testing.assert_close(*losses, rtol=1e-10, atol=0)
        for loss, side in zip(losses, (optimizer, other)):
            side.zero_grad()
            loss.backward()
        for name, p in parameters.items():
            torch.testing.assert_close(p.grad, named[name].grad, rtol=0, atol=1e-10)
        optimizer.step(1.0)
        other.step()
    for name, p in parameters.items():
        torch.testing.assert_close(p, named[name], rtol=0, atol=1e-9)
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


# ---- lora stages -------------------------------------------------------------------------------------

# Instruction tuning and alignment that train an adapter, as stages of a run.

LOOP = {"precision": "fp32", "threads": 1, "steps": 12, "save_every": 4, "optimizer": {"lr": 2e-2}}
SFT = {"batch": 4, "epochs": 4, "evaluate_every": 0, "per_document": 1, "loop": LOOP, "lora": {"rank": 4}}
ALIGN = {"batch": 4, "per_document": 1, "pairs": 40, "evaluate_every": 0, "loop": LOOP, "lora": {"rank": 2, "targets": ["v_proj"]}}

Weights = dict[str, torch.Tensor]


@pytest.fixture
def run(pretrained_run: Storage, finish: Callable[..., None]) -> Storage:
    """Makes a run whose pre-trained model has no zero weight: through a frozen head of zeros nothing could be learned."""
    model, folder = load_model(pretrained_run.path("pretrain/model")), Path(pretrained_run.path("random"))
    generator = torch.Generator().manual_seed(1)
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=generator) * 0.2 + (p.dim() == 1)
    save_model(model, folder, tokenizer_files(pretrained_run.child("pretrain/model")))
    finish(pretrained_run, "pretrain", {f"model/{path.name}": path for path in sorted(folder.iterdir())})
    return pretrained_run


def weights_of(run: Storage, path: str) -> Weights:
    return model_tensors(load_model(run.path(path)))


def check_adapter(run: Storage, stage: str, base: str) -> None:
    """Checks that the stage's adapter on its initial model gives the stage's model."""
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


@pytest.mark.long
@pytest.mark.parametrize("precision", ["bf16", "bf16-params"])
def test_a_frozen_base_takes_half_the_memory_and_is_exported_unrounded(
    run: Storage, execute: Callable[..., Any], tmp_path: Path, precision: str
) -> None:
    config = SftConfig.model_validate({**SFT, "loop": {**LOOP, "precision": precision}})
    model = blank_start(Path(run.path("pretrain/model")), config)
    matrices = [p for p in model.parameters() if p.dim() == 2 and not p.requires_grad]
    assert {p.dtype for p in matrices} == {torch.bfloat16} and {p.dtype for p in adapter_of(model).values()} == {torch.float32}
    execute(run, SftStage(config), AlignStage(AlignConfig.model_validate({**ALIGN, "loop": {**LOOP, "precision": precision}})))
    metrics = json.loads(run.child("sft").read_bytes("metrics.json"))
    assert metrics["held_out_loss_after"] < metrics["held_out_loss_before"] - 0.1
    check_adapter(run, "sft", "pretrain/model")
    check_adapter(run, "align", "sft/model")
    peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(run.path("pretrain/model")), run.path("sft/adapter"))
    left = weights_of(run, "sft/model")
    for name, expected in peft.merge_and_unload().state_dict().items():
        torch.testing.assert_close(left[name], expected, rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize("precision", ["bf16", "bf16-params"])
def test_a_base_in_bf16_computes_what_one_in_fp32_does(base: Path, precision: str) -> None:
    """Published weights are bf16, so rounding changes none of them, and each product would round them anyway: no bit differs."""
    found = []
    for rounds in (False, True):
        model = load_model(base)
        for p in model.parameters():
            p.data = p.data.bfloat16().float()
        adapt(model, PEFT_LORA, seed=5)
        for module in adapters(model).values():
            module.lora_B.data.normal_(generator=torch.Generator().manual_seed(1))
        if rounds:
            round_frozen(model, precision)
        found.append(ParallelModel(model, precision).nats(PEFT_IDS[:, :-1], PEFT_IDS[:, 1:], None))
    assert torch.equal(*found) and found[0].max() > 1


def test_a_template_whose_tokens_an_adapter_can_not_learn_is_refused(run: Storage, execute: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=r"sft.lora.rank: the template llama3 needs tokens that .*pretrain/model lacks"):
        execute(run, SftStage(SftConfig.model_validate({**SFT, "template": "llama3"})))


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
    assert run.read_bytes("sft/model/chat_template.jinja") == (tmp_path / "mine.jinja").read_bytes()
    export_state(run.root, 2, tmp_path / "at-2", "sft")
    exported = model_tensors(load_model(tmp_path / "at-2"))
    assert all(torch.equal(tensor, exported[name]) for name, tensor in weights_of(run, "sft/model").items())
    (tmp_path / "given" / "two.safetensors").write_bytes(b"another")
    with pytest.raises(InputError, match="given: is not the model any more"):
        export_state(run.root, 2, tmp_path / "again", "sft")
