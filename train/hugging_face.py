"""A model's shape as the `config.json` of Hugging Face, in which `transformers` builds the same model.

With QK-norm that is `Qwen3ForCausalLM`; else with a sliding window `MistralForCausalLM`; else `LlamaForCausalLM`.
"""

from typing import Any

from corpusmill.train.architecture import Architecture, RopeScaling

#: Class in `transformers`, and what its configuration holds where a file leaves a key out (transformers 5.23).
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {}),
    "mistral": ("MistralForCausalLM", {"num_key_value_heads": 8, "sliding_window": 4096}),
    "qwen3": ("Qwen3ForCausalLM", {"num_key_value_heads": 32, "head_dim": 128, "sliding_window": 4096, "max_window_layers": 28}),
}
#: Keys with which another model than ours would be computed, and our values.
FIXED = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "partial_rotary_factor": 1.0}
SCALING = {
    "llama3": ("low_freq_factor", "high_freq_factor"),
    "yarn": ("beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate"),
}


def to_hugging_face(
    arch: Architecture, *, eos_token_id: int | None, bos_token_id: int | None, pad_token_id: int | None, dtype: str
) -> dict[str, Any]:
    """The `config.json` with which `transformers` builds the same model."""
    kind = "qwen3" if arch.qk_norm else "mistral" if arch.window or arch.width % arch.heads else "llama"
    scaling = _scaling_to_hugging_face(arch)
    config = {
        "architectures": [KINDS[kind][0]],
        "model_type": kind,
        "vocab_size": arch.vocab_size,
        "hidden_size": arch.width,
        "intermediate_size": arch.ffn,
        "num_hidden_layers": arch.layers,
        "num_attention_heads": arch.heads,
        "num_key_value_heads": arch.kv_heads,
        "head_dim": arch.head_dim,
        "max_position_embeddings": arch.context,
        "rms_norm_eps": arch.norm_eps,
        "rope_theta": arch.rope_theta,  # read by transformers 4, as is the next line; the one after it by 5
        "rope_scaling": scaling,
        "rope_parameters": {**(scaling or {"rope_type": "default"}), "rope_theta": arch.rope_theta},
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": arch.tied,
        "bos_token_id": bos_token_id,
        "eos_token_id": eos_token_id,
        "pad_token_id": pad_token_id,
        "initializer_range": 0.02,
        "torch_dtype": dtype,
        "use_cache": True,
    }
    if kind == "mistral":
        config["sliding_window"] = arch.window or None
    if kind == "qwen3":  # the first `max_window_layers` see everything
        windowed = {"sliding_window": arch.window, "layer_types": ["sliding_attention"] * arch.layers}
        config |= {"use_sliding_window": bool(arch.window), "max_window_layers": 0, **(windowed if arch.window else {})}
    return config


def _scaling_to_hugging_face(arch: Architecture) -> dict[str, Any] | None:
    scaling = arch.rope_scaling
    if scaling is None:
        return None
    given = scaling.model_dump(exclude_none=True)
    return {
        key: given[key] for key in ("rope_type", "factor", "original_max_position_embeddings", *SCALING[scaling.rope_type]) if key in given
    }


def from_hugging_face(config: dict[str, Any]) -> Architecture:
    """The shape that a `config.json` describes. Raises ValueError with what this model can't do (or KeyError)."""
    kind = config.get("model_type")
    if kind not in KINDS:
        raise ValueError(f"model_type is {kind!r}, expected one of {', '.join(KINDS)}")
    config = KINDS[kind][1] | config
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    for key, expected in FIXED.items():
        if (found := rope.get(key, config.get(key, expected))) != expected:
            raise ValueError(f"{key} is {found!r}, expected {expected!r}")
    heads, width, context = config["num_attention_heads"], config["hidden_size"], config["max_position_embeddings"]
    return Architecture(
        vocab_size=config["vocab_size"],
        layers=config["num_hidden_layers"],
        width=width,
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or width // heads,
        ffn=config["intermediate_size"],
        context=context,
        rope_theta=rope.get("rope_theta") or config.get("rope_theta") or 10000.0,
        rope_scaling=_scaling_from_hugging_face(rope, config.get("original_max_position_embeddings"), context),
        window=_window_from_hugging_face(kind, config),
        norm_eps=config.get("rms_norm_eps", 1e-6),
        tied=config.get("tie_word_embeddings", False),
        qk_norm=kind == "qwen3",
    )


def _scaling_from_hugging_face(rope: dict[str, Any], original: int | None, context: int) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind not in SCALING:
        raise ValueError(f"rope_type {kind!r} is not supported")
    original = original or rope.get("original_max_position_embeddings") or context
    given = {key: rope[key] for key in SCALING[kind] if rope.get(key) is not None}
    if kind == "llama3":
        given = {key: rope[key] for key in SCALING[kind]}  # without them transformers refuses it too
    factor = rope["factor"] if rope["factor"] is not None else context / original
    return RopeScaling(rope_type=kind, factor=factor, original_max_position_embeddings=original, **given)


def _window_from_hugging_face(kind: str, config: dict[str, Any]) -> int:
    if kind == "llama" or (kind == "qwen3" and not config.get("use_sliding_window")):
        return 0
    types = config.get("layer_types")
    if kind == "qwen3" and types is None:
        full = min(config["max_window_layers"], config["num_hidden_layers"])
        types = ["full_attention"] * full + ["sliding_attention"] * (config["num_hidden_layers"] - full)
    if types and len(set(types)) > 1:
        raise ValueError("some layers have a sliding window and others have not, which is not supported")
    return 0 if types and types[0] == "full_attention" else config["sliding_window"] or 0
