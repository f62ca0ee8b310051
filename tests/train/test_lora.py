"""LoRA on one process: what it leaves as it was, what it trains and saves, and what it refuses."""

import math
import shutil
from pathlib import Path

import torch
from objectives import Goal
from small_models import random_ids, random_model
from torch import nn

from corpusmill.train.checkpoint import model_of
from corpusmill.train.loop import FitResult, fit
from corpusmill.train.lora import adapt, adapters, merge, merged_weights, unmerge
from corpusmill.train.model import Llama, named_generator
from corpusmill.train.objective import StepLoss
from corpusmill.train.options import LoopConfig, LoraConfig
from corpusmill.train.state import read_weights
from corpusmill.train.token_loss import token_loss

LORA = LoraConfig(rank=4)
IDS = random_ids((2, 20))


def adapted(config: LoraConfig = LORA, seed: int = 3) -> Llama:
    model = random_model(layers=2)
    adapt(model, config, seed)
    return model


def trained(model: Llama, folder: Path) -> FitResult:
    def loss(model: Llama, step: int) -> StepLoss:
        ids = random_ids((2, 21), seed=step)
        return StepLoss(token_loss(model(ids[:, :-1]), ids[:, 1:]), 40)

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
    saved = read_weights(result.states.latest().path)
    assert saved.keys() == names and all(torch.equal(saved[name], model.get_parameter(name)) for name in names)
    plain = random_model(layers=2).state_dict()
    assert all(torch.equal(p, plain[name]) for name, p in model.named_parameters() if name not in names)
    shutil.rmtree(tmp_path / "whole" / "state" / "step-00000006")  # as if it had been killed before
    resumed = adapted(seed=8)  # what is loaded replaces what was drawn
    again = trained(resumed, tmp_path / "whole")
    assert again.resumed_from == 3 and again.losses == result.losses
    assert all(torch.equal(resumed.get_parameter(name), model.get_parameter(name)) for name in names)


@torch.no_grad()
def test_merged_it_computes_the_same_and_unmerged_it_has_its_old_bits(tmp_path: Path) -> None:
    model = adapted()
    for module in adapters(model).values():
        module.lora_B.normal_(generator=torch.Generator().manual_seed(2))
    model.double()
    before, logits = {name: p.clone() for name, p in model.state_dict().items()}, model(IDS)
    for _ in range(2):  # twice is once
        merge(model)
    torch.testing.assert_close(model(IDS), logits, rtol=1e-10, atol=1e-10)
    assert not torch.equal(model.model.layers["0"].mlp.up_proj.weight, before["model.layers.0.mlp.up_proj.weight"])
    for _ in range(2):
        unmerge(model)
    assert model.state_dict().keys() == before.keys() and all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    plain = model_of(model.arch, merged_weights(model))
    assert type(plain.model.layers["0"].mlp.up_proj) is nn.Linear
    torch.testing.assert_close(plain(IDS), logits, rtol=1e-10, atol=1e-10)
