"""Adapters beside `peft`'s on the same model: values, gradients, steps, merged weights, and `peft` reading what we wrote."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from small_models import random_ids, random_model
from transformers import AutoModelForCausalLM

from corpusmill.train.adapter import save_adapter
from corpusmill.train.checkpoint import load_model, save_model
from corpusmill.train.lora import adapt, adapters, merged_weights
from corpusmill.train.model import Llama
from corpusmill.train.optimizer import Optimizer
from corpusmill.train.options import LoraConfig, OptimizerConfig
from corpusmill.train.token_loss import token_loss

LORA = LoraConfig(rank=3, alpha=6)
FEW = LoraConfig(rank=2, alpha=5.5, targets=("q_proj", "down_proj"))
IDS = random_ids((2, 21))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "model"
    save_model(random_model(layers=2), folder)
    return folder


def ours(base: Path, config: LoraConfig = LORA, filled: bool = True) -> Llama:
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


@pytest.mark.parametrize("config", [LORA, FEW], ids=["all", "some"])
@torch.no_grad()
def test_peft_opens_our_adapter_and_merges_it_as_we_do(base: Path, tmp_path: Path, config: LoraConfig) -> None:
    model = ours(base, config)
    save_adapter(adapter_of(model), config, "pretrain/model", tmp_path / "adapter")
    peft = PeftModel.from_pretrained(theirs(base), tmp_path / "adapter", autocast_adapter_dtype=False)
    logits = model(IDS)
    assert (logits - load_model(base, dtype=torch.float64)(IDS)).abs().max() > 1
    torch.testing.assert_close(peft(IDS).logits, logits, rtol=1e-10, atol=1e-10)
    merged = peft.merge_and_unload().state_dict()
    weights = merged_weights(model)
    assert merged.keys() == weights.keys()
    for name, expected in merged.items():
        torch.testing.assert_close(weights[name], expected, rtol=0, atol=1e-12)


def loss_of(logits: torch.Tensor) -> torch.Tensor:
    return token_loss(logits[:, :-1], IDS[:, 1:]) / IDS[:, 1:].numel()


def test_gradients_and_five_steps_are_those_of_peft(base: Path, tmp_path: Path) -> None:
    model = ours(base, filled=False)
    save_adapter(adapter_of(model), LORA, "base", tmp_path / "adapter")
    peft = PeftModel.from_pretrained(theirs(base), tmp_path / "adapter", is_trainable=True, autocast_adapter_dtype=False)
    named = {n.removeprefix("base_model.model.").removesuffix(".default.weight"): p for n, p in peft.named_parameters() if p.requires_grad}
    parameters = adapter_of(model)
    assert named.keys() == parameters.keys()
    config = OptimizerConfig(kind="adamw", lr=1e-2, weight_decay=0.1)
    optimizer = Optimizer(parameters, config)
    other = torch.optim.AdamW(named.values(), lr=1e-2, betas=config.betas, eps=config.eps, weight_decay=0.1)
    for _ in range(5):
        losses = loss_of(model(IDS)), loss_of(peft(IDS).logits)
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
