"""Adapters as `peft` has them: a folder with `adapter_config.json` and `adapter_model.safetensors`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from corpusmill.train.files import new_folder, write_json, write_tensors
from corpusmill.train.options import LoraConfig

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."


def peft_config(config: LoraConfig, base: str) -> dict[str, Any]:
    """The `adapter_config.json` of an adapter for the model folder `base`."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": int(config.alpha) if config.alpha.is_integer() else config.alpha,
        "lora_dropout": 0.0,
        "target_modules": list(config.targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def save_adapter(weights: Mapping[str, Tensor], config: LoraConfig, base: str, folder: Path) -> None:
    """Writes `weights`, by the names of their parameters (`... .lora_A`), as a folder that `peft` opens; one that was there is replaced."""
    with new_folder(folder) as temporary:
        write_json(temporary / CONFIG, peft_config(config, base))
        write_tensors(temporary / WEIGHTS, {f"{PREFIX}{name}.weight": tensor for name, tensor in weights.items()})
