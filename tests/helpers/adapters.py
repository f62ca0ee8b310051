"""Puts the adapter of a folder, written by corpusmill or `peft`, on a corpusmill model; trains one on two ranks."""

import json
from pathlib import Path

from safetensors.torch import load_file

from corpusmill.train.model import Llama
from corpusmill.train.options import LoraConfig
from corpusmill.train.sft import adapt


def put_adapter(model: Llama, folder: Path) -> None:
    """Adds the weights of an adapter folder to the model in place, for each targeted projection."""
    told = json.loads((folder / "adapter_config.json").read_bytes())
    adapt(model, LoraConfig(rank=told["r"], alpha=told["lora_alpha"], targets=tuple(told["target_modules"])), 0)
    tensors = load_file(folder / "adapter_model.safetensors")
    parameters = {f"base_model.model.{name}.weight": p for name, p in model.named_parameters() if p.requires_grad}
    assert parameters.keys() == tensors.keys()
    for name, tensor in tensors.items():
        parameters[name].data.copy_(tensor)
