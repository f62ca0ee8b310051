"""Fuzzes a model's folder with one arbitrary file: a model of the shape that its configuration gives, or one sentence."""

import contextlib
import json
from functools import cache
from pathlib import Path

import torch
from fuzzing import changed, choose, choosing, json_mutants, scratch

from corpusmill.pipeline.errors import InputError
from corpusmill.train.checkpoint import load_model, model_tensors, save_model
from corpusmill.train.model import Llama, initialise
from corpusmill.train.options import Architecture

FILES = ["config.json", "model.safetensors", "tokenizer.json", "model.safetensors.index.json"]
TOKENIZER = {
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 10}, "merges": []},
    "added_tokens": [{"id": 3, "content": "<e>", "special": True}],
}
INDEX = {"metadata": {}, "weight_map": {"model.norm.weight": "model.safetensors"}}


@cache
def sound() -> Path:
    folder = scratch() / "model"
    model = Llama(Architecture(vocab_size=11, layers=1, width=8, heads=2, kv_heads=1, head_dim=4, ffn=8, context=16))
    initialise(model, 0)
    save_model(model, folder, {"tokenizer.json": json.dumps(TOKENIZER).encode()})
    return folder


def seeds() -> list[bytes]:
    config = json.loads((sound() / "config.json").read_bytes())
    contents = [(sound() / name).read_bytes() for name in FILES[:3]] + [json.dumps(INDEX).encode()]
    changed = [(0, config), (2, TOKENIZER), (3, INDEX)]
    return [choosing(place, content) for place, content in enumerate(contents)] + [
        choosing(place, content) for place, value in changed for content in json_mutants(f"model {place}", value, 8)
    ]


def fuzz(data: bytes) -> None:
    name, content = choose(data, FILES)
    with changed(sound(), name, content) as folder, contextlib.suppress(InputError):
        model = load_model(folder)
        assert all(tensor.device.type == "cpu" for tensor in model_tensors(model).values())
        assert model.arch.vocab_size == model.lm_head.weight.shape[0] and isinstance(model.lm_head.weight, torch.Tensor)
