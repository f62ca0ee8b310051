"""Models as `transformers` has them: our folders give its logits, its folders give ours, for every kind of model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import VOCABULARY, random_ids, random_model
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PretrainedConfig, Qwen3Config

from corpusmill.train.checkpoint import load_model, save_model
from corpusmill.train.hugging_face import from_hugging_face

pytestmark = pytest.mark.rounding

SHAPE = {"vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = SHAPE | {"num_key_value_heads": 2, "max_position_embeddings": 64}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
DEEPSEEK = {"beta_fast": 16.0, "beta_slow": 2.0, "mscale": 1.0, "mscale_all_dim": 0.7, "truncate": False}

OURS: dict[str, tuple[dict[str, Any], str]] = {
    "plain": ({}, "Llama"),
    "tied": ({"tied": True}, "Llama"),
    "one key-value head": ({"kv_heads": 1}, "Llama"),
    "llama3": ({"rope_scaling": LLAMA3, "rope_theta": 500.0}, "Llama"),
    "yarn": ({"rope_scaling": YARN}, "Llama"),
    "yarn, all options": ({"rope_scaling": YARN | DEEPSEEK}, "Llama"),
    "yarn, own factor": ({"rope_scaling": YARN | {"attention_factor": 0.9}}, "Llama"),
    "window": ({"window": 11}, "Mistral"),
    "window of one": ({"window": 1}, "Mistral"),
    "window beyond the text": ({"window": 60}, "Mistral"),
    "heads that do not divide the width": ({"heads": 6, "head_dim": 10}, "Mistral"),
    "qk-norm": ({"qk_norm": True}, "Qwen3"),
    "qk-norm, tied": ({"qk_norm": True, "tied": True}, "Qwen3"),
    "qk-norm, window, yarn": ({"qk_norm": True, "window": 7, "rope_scaling": YARN}, "Qwen3"),
}


@pytest.mark.parametrize("changes,kind", OURS.values(), ids=OURS.keys())
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
    "yarn": LlamaConfig(**GROUPED, rope_parameters=YARN | {"rope_theta": 1e6}),
    "yarn, older keys": LlamaConfig(**GROUPED, rope_theta=777.0, rope_scaling={**YARN, "type": "yarn", "mscale": 0.5}),
    "mistral": MistralConfig(**GROUPED, sliding_window=9, head_dim=8),
    "mistral without a window": MistralConfig(**GROUPED, sliding_window=None),
    "qwen3": Qwen3Config(**GROUPED, head_dim=32),
    "qwen3, tied, yarn": Qwen3Config(**GROUPED, head_dim=16, tie_word_embeddings=True, rope_parameters=YARN | {"rope_theta": 1e6}),
    "qwen3, window": Qwen3Config(**GROUPED, head_dim=16, use_sliding_window=True, sliding_window=5, max_window_layers=0),
}


@pytest.mark.parametrize("config", THEIRS.values(), ids=THEIRS.keys())
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


def test_rope_scaling_in_the_keys_of_transformers_4_is_that_of_5() -> None:
    shape = GROUPED | {"model_type": "llama"}
    old = from_hugging_face({**shape, "rope_theta": 5e5, "rope_scaling": LLAMA3})
    assert old == from_hugging_face({**shape, "rope_parameters": LLAMA3 | {"rope_theta": 5e5}})
    assert old.rope_scaling is not None and old.rope_scaling.factor == 8.0 and old.rope_theta == 5e5
    yarn = {"type": "yarn", "factor": None, "original_max_position_embeddings": 16}
    found = from_hugging_face({**shape, "rope_scaling": yarn}).rope_scaling
    assert found is not None and found.factor == 4.0  # the context over the old one
    assert from_hugging_face({**shape, "rope_scaling": YARN, "original_max_position_embeddings": 32}).rope_scaling != found


def test_a_configuration_that_leaves_keys_out_has_the_defaults_of_transformers() -> None:
    for kind, theirs in (("llama", LlamaConfig), ("mistral", MistralConfig), ("qwen3", Qwen3Config)):
        shape = {key: value for key, value in SHAPE.items() if key != "num_attention_heads"} | {"num_attention_heads": 32}
        ours = from_hugging_face({**shape, "model_type": kind, "max_position_embeddings": 64})
        config = theirs(**shape)
        assert (ours.kv_heads, ours.head_dim, ours.norm_eps) == (config.num_key_value_heads, config.head_dim, config.rms_norm_eps)
        assert ours.window == (getattr(config, "sliding_window", None) or 0)


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2'"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type 'dynamic' is not supported"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5, expected 1.0"),
        ({"mlp_bias": True}, "mlp_bias is True, expected False"),
        ({"model_type": "qwen3", "use_sliding_window": True, "max_window_layers": 1}, "some layers have a sliding window"),
        ({"rope_scaling": LLAMA3 | {"low_freq_factor": 4.0}}, "low_freq_factor 4.0 is not below high_freq_factor 4.0"),
    ],
)
def test_what_this_model_can_not_do_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_hugging_face({**GROUPED, "model_type": "llama", **changes})


def test_the_file_says_the_scaling_to_both_generations_of_transformers(tmp_path: Path) -> None:
    save_model(random_model(rope_scaling=LLAMA3), tmp_path)
    config = json.loads((tmp_path / "config.json").read_bytes())
    assert config["rope_scaling"] == LLAMA3 and config["rope_theta"] == 10000.0
    assert config["rope_parameters"] == LLAMA3 | {"rope_theta": 10000.0}
