"""Adapters as `peft` has them: a folder with `adapter_config.json` and `adapter_model.safetensors`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from corpusmill.pipeline.errors import InputError
from corpusmill.train.files import first_line, new_folder, read_tensors, write_json, write_tensors
from corpusmill.train.lora import attach
from corpusmill.train.model import Llama
from corpusmill.train.options import LoraConfig

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
#: Options of `peft` with which an adapter computes something else than scale B A x.
OTHERWISE = ("use_dora", "use_rslora", "use_qalora", "fan_in_fan_out", "lora_bias", "rank_pattern", "alpha_pattern", "modules_to_save",
             "layer_replication", "target_parameters", "alora_invocation_tokens", "trainable_token_indices")  # fmt: skip


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


def load_adapter(model: Llama, folder: Path) -> None:
    """Puts the adapter of a folder, ours or peft's, beside the model's weights in place. InputError names the file and what is wrong."""
    path = folder / CONFIG
    try:
        given = json.loads(path.read_bytes())
        rank, scale = given["r"], given["lora_alpha"] / given["r"]
        kind = given["peft_type"]
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file, so {folder} is not the folder of an adapter.") from error
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise InputError(f"{path}: not the configuration of a LoRA adapter ({first_line(error)}).") from error
    if kind != "LORA":
        raise InputError(f"{path}: a {kind} adapter, and LORA is the kind that this program knows.")
    if used := [name for name in OTHERWISE if given.get(name)] + [f"bias {given['bias']}"] * (given.get("bias", "none") != "none"):
        raise InputError(f"{path}: {used[0]} is set, which this program can't compute.")
    tensors = read_tensors(folder / WEIGHTS)
    fill(model, {name.removeprefix(PREFIX).removesuffix(".weight"): t for name, t in tensors.items()}, rank, scale, folder / WEIGHTS)


@torch.no_grad()
def fill(model: Llama, weights: Mapping[str, Tensor], rank: int, scale: float, source: Path) -> None:
    """Puts adapters of these values, by the names of their parameters, beside the model's weights in place."""
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear) and ".layers." in name}
    names = list(dict.fromkeys(name.rpartition(".")[0] for name in weights))
    shapes = {f"{name}.lora_A": (rank, linear[name].in_features) for name in names if name in linear}
    shapes |= {f"{name}.lora_B": (linear[name].out_features, rank) for name in names if name in linear}
    if surplus := sorted(weights.keys() - shapes.keys()):
        raise InputError(f"{source}: holds {surplus[0]}, for which the model has no place.")
    for name, shape in shapes.items():
        if name not in weights:
            raise InputError(f"{source}: {name} is missing.")
        if weights[name].shape != shape:
            raise InputError(f"{source}: {name} has the shape {list(weights[name].shape)}, expected {list(shape)}.")
    for name, module in attach(model, names, rank, scale):
        module.lora_A.copy_(weights[f"{name}.lora_A"])
        module.lora_B.copy_(weights[f"{name}.lora_B"])
