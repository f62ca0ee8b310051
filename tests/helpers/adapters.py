"""Adapters of a folder, ours or `peft`'s, on one of our models."""

import json
from pathlib import Path

from safetensors.torch import load_file

from corpusmill.train.finetune import adapt
from corpusmill.train.model import Llama
from corpusmill.train.options import LoraConfig


def put_adapter(model: Llama, folder: Path) -> None:
    """Puts the adapter of a folder beside the model's weights in place; it has one for each projection that it targets."""
    told = json.loads((folder / "adapter_config.json").read_bytes())
    adapt(model, LoraConfig(rank=told["r"], alpha=told["lora_alpha"], targets=tuple(told["target_modules"])), 0)
    tensors = load_file(folder / "adapter_model.safetensors")
    parameters = {f"base_model.model.{name}.weight": p for name, p in model.named_parameters() if p.requires_grad}
    assert parameters.keys() == tensors.keys()
    for name, tensor in tensors.items():
        parameters[name].data.copy_(tensor)
