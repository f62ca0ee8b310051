"""Presets with a family's name take its published weights; all are as large as they say."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from small_models import random_ids
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PretrainedConfig, Qwen3Config

from corpusmill.train.architecture import Architecture
from corpusmill.train.checkpoint import load_model, save_model
from corpusmill.train.hugging_face import from_hugging_face, to_hugging_face
from corpusmill.train.model import Llama
from corpusmill.train.presets import PRESETS, ModelConfig

LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"}
LLAMA_8B: dict[str, Any] = {
    "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    "tie_word_embeddings": False,
}  # fmt: skip

#: What the `config.json` of the published weights says, as far as it decides anything.
PUBLISHED: dict[str, tuple[type[PretrainedConfig], dict[str, Any]]] = {
    "llama3-8b": (LlamaConfig, LLAMA_8B),  # meta-llama/Meta-Llama-3-8B
    "llama3.1-8b": (LlamaConfig, LLAMA_8B | {"max_position_embeddings": 131072, "rope_scaling": LLAMA3 | {"factor": 8.0}}),
    "llama3.2-1b": (LlamaConfig, LLAMA_8B | {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "head_dim": 64,
                    "max_position_embeddings": 131072, "rope_scaling": LLAMA3 | {"factor": 32.0}, "tie_word_embeddings": True}),
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


@pytest.mark.parametrize("name", PUBLISHED)
def test_shrunk_published_models_give_our_logits(tmp_path: Path, name: str) -> None:
    """Few narrow layers, and a context and window that 40 tokens go beyond; all other settings as published."""
    kind, settings = PUBLISHED[name]
    shrunk = settings | {"vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16}
    shrunk |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    if settings.get("sliding_window"):
        shrunk["sliding_window"] = 12
    if "rope_scaling" in settings:
        shrunk["rope_scaling"] = settings["rope_scaling"] | {"original_max_position_embeddings": 16}
    torch.manual_seed(2)
    theirs = AutoModelForCausalLM.from_config(kind(**shrunk), dtype=torch.float64)
    for p in theirs.parameters():
        p.data += torch.randn(p.shape, dtype=torch.float64) * 0.2
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs", dtype=torch.float64)
    save_model(ours, tmp_path / "ours")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert type(again) is type(theirs)
    ids = random_ids((2, 40))
    with torch.no_grad():
        expected = theirs(ids).logits
        torch.testing.assert_close(ours(ids), expected, rtol=0, atol=1e-10)
        torch.testing.assert_close(again(ids).logits, expected, rtol=0, atol=1e-10)


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


def test_the_smallest_preset_is_no_larger_than_nanogpt_s_model_on_characters() -> None:
    """804,096 parameters has nanoGPT's CPU configuration with the 65 characters of Shakespeare."""
    for changes in ({}, {"qk_norm": True}):
        assert ModelConfig.model_validate({"preset": "0.8m", **changes}).architecture(65).parameters() <= 804_096


def test_a_recipe_changes_a_preset() -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
    config = ModelConfig.model_validate({"preset": "mistral-7b", "context": 8192, "window": 0, "rope_scaling": scaling, "layers": 2})
    arch = config.architecture(10)
    assert isinstance(arch, Architecture) and arch.rope_scaling is not None
    assert (arch.window, arch.layers, arch.context, arch.rope_scaling.factor, arch.ffn) == (0, 2, 8192, 4.0, 14336)
    with pytest.raises(ValidationError, match="32 heads can't share 5 key-value heads evenly"):
        ModelConfig.model_validate({"preset": "llama3-8b", "kv_heads": 5})
    with pytest.raises(ValidationError, match="rope_scaling.rope_type"):
        ModelConfig.model_validate({"rope_scaling": scaling | {"rope_type": "ntk"}})
