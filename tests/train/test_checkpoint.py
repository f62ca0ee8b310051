"""Broken model folders are sentences; the training state is whole or not there."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from corpusmill.pipeline.errors import InputError
from corpusmill.train.architecture import Architecture
from corpusmill.train.checkpoint import load_model, save_model
from corpusmill.train.model import Llama, initialise


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = Llama(Architecture(vocab_size=11, layers=1, width=8, heads=2, kv_heads=1, head_dim=4, ffn=8, context=16))
    initialise(model, 0)
    tokenizer = {"model": {"vocab": {"a": 0, "b": 10}}, "added_tokens": []}
    save_model(model, tmp_path / "model", {"tokenizer.json": json.dumps(tokenizer).encode()})
    return tmp_path / "model"


def test_a_folder_holds_what_transformers_needs(folder: Path) -> None:
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]
    assert load_model(folder).arch.vocab_size == 11
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_missing_folder_and_files_are_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such model folder"):
        load_model(folder / "nowhere")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model\.safetensors: no such file"):
        load_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json: no such file"):
        load_model(folder)


@pytest.mark.parametrize("left", [0, 4, 100, -1])
def test_weights_cut_short(folder: Path, left: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(InputError, match=r"model\.safetensors: not a whole safetensors file"):
        load_model(folder)


def test_weights_of_another_shape(folder: Path) -> None:
    edit(folder / "config.json", intermediate_size=16)
    with pytest.raises(InputError, match=r"mlp\.\w+_proj\.weight has the shape \[8, 8\], config\.json says"):
        load_model(folder)
    edit(folder / "config.json", intermediate_size=8, num_hidden_layers=2)
    with pytest.raises(InputError, match=r"model\.layers\.1\.\S+ is missing \(9 in all\)"):
        load_model(folder)


def test_weights_that_the_model_does_not_have(folder: Path) -> None:
    path = folder / "model.safetensors"
    save_file({**load_file(path), "model.layers.0.self_attn.q_proj.bias": torch.zeros(8)}, path)
    with pytest.raises(InputError, match=r"holds model\.layers\.0\.self_attn\.q_proj\.bias"):
        load_model(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "gpt2"},
        {"rope_parameters": {"rope_type": "yarn"}},
        {"attention_bias": True},
        {"num_key_value_heads": 3},
        {"hidden_size": "x"},
    ],
)
def test_configurations_that_this_model_is_not(folder: Path, changes: dict[str, object]) -> None:
    edit(folder / "config.json", **changes)
    with pytest.raises(InputError, match=r"config\.json: "):
        load_model(folder)


def test_configuration_that_is_no_json(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "lla')
    with pytest.raises(InputError, match=r"config\.json: not the configuration"):
        load_model(folder)


def test_the_tokenizer_of_another_model(folder: Path) -> None:
    edit(folder / "tokenizer.json", added_tokens=[{"id": 11, "content": "<|x|>"}])
    with pytest.raises(InputError, match=r"tokenizer\.json: has ids up to 11, but the model's vocabulary is 11"):
        load_model(folder)
