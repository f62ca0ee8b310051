"""Tests model folders: broken ones give a sentence; the training state is whole or not there."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import VOCABULARY, random_ids, random_model
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PretrainedConfig, Qwen3Config

from corpusmill.pipeline.errors import InputError
from corpusmill.train.checkpoint import from_hugging_face, load_model, save_model, to_hugging_face
from corpusmill.train.model import Llama, initialise
from corpusmill.train.options import PRESETS, Architecture, ModelConfig

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}

# ---- checkpoint --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = Llama(Architecture(vocab_size=11, layers=1, width=8, heads=2, kv_heads=1, head_dim=4, ffn=8, context=16))
    initialise(model, 0)
    tokenizer = {"model": {"vocab": {"a": 0, "b": 10}}, "added_tokens": []}
    save_model(model, tmp_path / "model", {"tokenizer.json": json.dumps(tokenizer).encode()})
    return tmp_path / "model"


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


#: What is done to a model's folder, and words of the sentence.
BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (lambda f: shutil.rmtree(f), "model: no such model folder"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors: no such file"),
    "no configuration": (lambda f: (f / "config.json").unlink(), r"config\.json: no such file"),
    "half a configuration": (lambda f: (f / "config.json").write_text('{"model_type": "lla'), r"config\.json: not the configuration"),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), r"model\.safetensors: not a whole safetensors file"),
    "cut short": (lambda f: cut(f / "model.safetensors"), r"model\.safetensors: not a whole safetensors file"),
    "another shape": (lambda f: edit(f / "config.json", intermediate_size=16), r"mlp\.\w+_proj\.weight has the shape \[8, 8\]"),
    "a layer less": (lambda f: edit(f / "config.json", num_hidden_layers=2), r"model\.layers\.1\.\S+ is missing \(9 in all\)"),
    "more": (lambda f: add(f / "model.safetensors", "model.norm.bias"), r"holds model\.norm\.bias"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").write_text("{"), r"tokenizer\.json: not a tok"),
    "another tokenizer": (
        lambda f: edit(f / "tokenizer.json", added_tokens=[{"id": 11, "content": "<|x|>"}]),
        r"tokenizer\.json: has ids up to 11, but the model's vocabulary is 11",
    ),
}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def add(path: Path, name: str) -> None:
    save_file({**load_file(path), name: torch.zeros(8)}, path)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_is_one_sentence(folder: Path, name: str) -> None:
    do, words = BROKEN[name]
    do(folder)
    with pytest.raises(InputError, match=words):
        load_model(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2'"),
        ({"num_hidden_layers": 10**30}, "not the configuration"),
        ({"num_attention_heads": 0, "head_dim": None}, "num_attention_heads or max_position_embeddings is 0"),
        ({"rope_parameters": YARN | {"beta_fast": 16.0}}, "rope scaling with beta_fast 16.0 is not supported"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5, expected 1.0"),
        (
            {"model_type": "qwen3", "num_hidden_layers": 2, "use_sliding_window": True, "max_window_layers": 1},
            "some layers have a sliding window",
        ),
    ],
)
def test_configurations_that_this_model_is_not(folder: Path, changes: dict[str, object], message: str) -> None:
    edit(folder / "config.json", **changes)
    with pytest.raises(InputError, match=rf"config\.json: .*{message}"):
        load_model(folder)


# ---- hugging face ------------------------------------------------------------------------------------

# Exchange with `transformers`: corpusmill's folders give its logits, its folders give corpusmill's, for every kind of model.

SHAPE = {"vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = SHAPE | {"num_key_value_heads": 2, "max_position_embeddings": 64}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
OLD = {key: LLAMA3[key] for key in ("rope_type", "factor", "original_max_position_embeddings")}

OURS: dict[str, tuple[dict[str, Any], str]] = {
    "plain": ({}, "Llama"),
    "one key-value head": ({"kv_heads": 1}, "Llama"),
    "llama3": ({"rope_scaling": OLD, "rope_theta": 500.0}, "Llama"),
    "yarn": ({"rope_scaling": YARN}, "Llama"),
    "window": ({"window": 11}, "Mistral"),
    "heads that do not divide the width": ({"heads": 6, "head_dim": 10}, "Mistral"),
    "qk-norm, tied": ({"qk_norm": True, "tied": True}, "Qwen3"),
    "qk-norm, window, yarn": ({"qk_norm": True, "window": 7, "rope_scaling": YARN}, "Qwen3"),
}


@pytest.mark.parametrize("changes,kind", OURS.values(), ids=OURS.keys())
@pytest.mark.rounding
def test_our_folder_gives_their_logits(tmp_path: Path, changes: dict[str, Any], kind: str) -> None:
    save_model(random_model(norm_eps=1e-6, **changes), tmp_path)
    ids = random_ids((2, 50))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    assert type(theirs).__name__ == f"{kind}ForCausalLM"
    ours = load_model(tmp_path, dtype=torch.float64)
    assert ours.arch == random_model(norm_eps=1e-6, **changes).arch
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=0, atol=1e-10)


THEIRS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SHAPE, rope_parameters={"rope_type": "default", "rope_theta": 500.0}),
    "llama, tied, grouped": LlamaConfig(**GROUPED, tie_word_embeddings=True, head_dim=24, rms_norm_eps=1e-5),
    "llama3": LlamaConfig(**GROUPED, rope_parameters=LLAMA3 | {"rope_theta": 5e5}),
    "yarn, older keys": LlamaConfig(**GROUPED, rope_theta=777.0, rope_scaling={**YARN, "type": "yarn"}),
    "mistral": MistralConfig(**GROUPED, sliding_window=9, head_dim=8),
    "qwen3, tied, yarn": Qwen3Config(**GROUPED, head_dim=16, tie_word_embeddings=True, rope_parameters=YARN | {"rope_theta": 1e6}),
    "qwen3, window": Qwen3Config(**GROUPED, head_dim=16, use_sliding_window=True, sliding_window=5, max_window_layers=0),
}


@pytest.mark.parametrize("config", THEIRS.values(), ids=THEIRS.keys())
@pytest.mark.rounding
def test_their_folder_gives_our_logits(tmp_path: Path, config: PretrainedConfig) -> None:
    torch.manual_seed(3)
    theirs = AutoModelForCausalLM.from_config(config, dtype=torch.float64)
    generator = torch.Generator().manual_seed(4)
    for p in theirs.parameters():
        p.data += torch.randn(p.shape, generator=generator, dtype=torch.float64) * 0.2
    theirs.save_pretrained(tmp_path / "theirs")
    ids = random_ids((2, 40))
    ours = load_model(tmp_path / "theirs", dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(ids).logits
        torch.testing.assert_close(ours(ids), expected, rtol=0, atol=1e-10)
        save_model(ours, tmp_path / "ours")
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
        torch.testing.assert_close(again(ids).logits, expected, rtol=0, atol=1e-10)


@pytest.mark.rounding
def test_a_configuration_that_leaves_keys_out_has_the_defaults_of_transformers() -> None:
    for kind, theirs in (("llama", LlamaConfig), ("mistral", MistralConfig), ("qwen3", Qwen3Config)):
        shape = {key: value for key, value in SHAPE.items() if key != "num_attention_heads"} | {"num_attention_heads": 32}
        ours = from_hugging_face({**shape, "model_type": kind, "max_position_embeddings": 64})
        config = theirs(**shape)
        assert (ours.kv_heads, ours.head_dim, ours.norm_eps) == (config.num_key_value_heads, config.head_dim, config.rms_norm_eps)
        assert ours.window == (getattr(config, "sliding_window", None) or 0)


@pytest.mark.rounding
def test_the_file_says_the_scaling_to_both_generations_of_transformers(tmp_path: Path) -> None:
    save_model(random_model(rope_scaling=OLD), tmp_path)
    config = json.loads((tmp_path / "config.json").read_bytes())
    assert config["rope_scaling"] == LLAMA3 and config["rope_theta"] == 10000.0
    assert config["rope_parameters"] == LLAMA3 | {"rope_theta": 10000.0}


# ---- presets -----------------------------------------------------------------------------------------

# Presets with a family's name accept its published weights; all have the size in their name.

LLAMA3_SHAPE = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"}
LLAMA_8B: dict[str, Any] = {
    "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    "tie_word_embeddings": False,
}  # fmt: skip

#: The `config.json` of the published weights, as far as it decides anything.
PUBLISHED: dict[str, tuple[type[PretrainedConfig], dict[str, Any]]] = {
    "llama3-8b": (LlamaConfig, LLAMA_8B),  # meta-llama/Meta-Llama-3-8B
    "llama3.1-8b": (LlamaConfig, LLAMA_8B | {"max_position_embeddings": 131072, "rope_scaling": LLAMA3_SHAPE | {"factor": 8.0}}),
    "llama3.2-1b": (LlamaConfig, LLAMA_8B | {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "head_dim": 64,
                    "max_position_embeddings": 131072, "rope_scaling": LLAMA3_SHAPE | {"factor": 32.0}, "tie_word_embeddings": True}),
    "mistral-7b": (MistralConfig, LLAMA_8B | {"vocab_size": 32000, "max_position_embeddings": 32768, "rope_theta": 10000.0,
                   "sliding_window": 4096}),  # mistralai/Mistral-7B-v0.1
    "qwen3-0.6b": (Qwen3Config, {"vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
                   "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40960,
                   "rms_norm_eps": 1e-6, "rope_theta": 1000000, "tie_word_embeddings": True, "sliding_window": None}),
}  # fmt: skip
PARAMETERS = {
    "llama3-8b": 8_030_261_248, "llama3.1-8b": 8_030_261_248, "llama3.2-1b": 1_235_814_400, "mistral-7b": 7_241_732_096,
    "qwen3-0.6b": 596_049_920,
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_have_our_names_and_shapes(name: str) -> None:
    kind, settings = PUBLISHED[name]
    config = kind(**settings)
    arch = ModelConfig.model_validate({"preset": name, "context": config.max_position_embeddings}).architecture(config.vocab_size)
    assert from_hugging_face(config.to_dict()) == arch
    with torch.device("meta"):
        ours, theirs = Llama(arch), AutoModelForCausalLM.from_config(config)
    shapes = {key: tensor.shape for key, tensor in theirs.state_dict().items()}
    assert {key: tensor.shape for key, tensor in ours.state_dict().items()} == shapes
    assert arch.parameters() == theirs.num_parameters() == sum(p.numel() for p in ours.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_built_by_transformers_with_as_many_parameters(name: str) -> None:
    arch = ModelConfig.model_validate({"preset": name}).architecture(1000)
    config = to_hugging_face(arch, eos_token_id=0, bos_token_id=0, pad_token_id=1, dtype="float32")
    kind = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen3": Qwen3Config}[config["model_type"]]
    with torch.device("meta"):
        theirs = AutoModelForCausalLM.from_config(kind(**config))
    assert theirs.num_parameters() == arch.parameters()
    body = arch.parameters() - 1000 * arch.width * (1 if arch.tied else 2)
    if name[0].isdigit():
        assert body == pytest.approx(float(name[:-1]) * 1e6, rel=0.25)
