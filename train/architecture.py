"""The shape of a Llama, and its exchange with the `config.json` of Hugging Face.

Without QK-norm that is `LlamaForCausalLM`; with it `Qwen3ForCausalLM`, which is the same model with a norm on each
head of queries and keys before the rotation. No library is imported here.
"""

import math
from typing import Any

from pydantic import Field, model_validator

from corpusmill.pipeline.config import Config


class Architecture(Config):
    """Everything that fixes the names and shapes of the weights, and the arithmetic between them."""

    vocab_size: int = Field(ge=1, description="Rows of the embedding.")
    layers: int = Field(ge=1, description="Decoder layers.")
    width: int = Field(ge=1, description="Width of the residual stream.")
    heads: int = Field(ge=1, description="Query heads.")
    kv_heads: int = Field(ge=1, description="Key and value heads; each serves heads / kv_heads query heads.")
    head_dim: int = Field(ge=2, description="Width of one head.")
    ffn: int = Field(ge=1, description="Width inside the SwiGLU.")
    context: int = Field(ge=1, description="Longest sequence.")
    rope_theta: float = Field(10000.0, gt=0, description="Base of the rotary angles.")
    norm_eps: float = Field(1e-5, gt=0, description="Epsilon inside RMSNorm.")
    tied: bool = Field(False, description="The output head shares the embedding's weights.")
    qk_norm: bool = Field(False, description="RMSNorm on each head of queries and keys (Qwen3).")

    @model_validator(mode="after")
    def _divisible(self) -> "Architecture":
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads can't share {self.kv_heads} key-value heads evenly")
        if self.head_dim % 2:
            raise ValueError(f"a head of odd width {self.head_dim} can't be rotated")
        return self

    def parameters(self) -> int:
        """Number of weights (tied ones counted once)."""
        attention = 2 * self.width * self.head_dim * (self.heads + self.kv_heads)
        norms = 2 * self.width + (2 * self.head_dim if self.qk_norm else 0)
        layer = attention + 3 * self.width * self.ffn + norms
        return self.layers * layer + self.width + self.vocab_size * self.width * (1 if self.tied else 2)


def to_hugging_face(arch: Architecture, *, eos_token_id: int, bos_token_id: int, pad_token_id: int, dtype: str) -> dict[str, Any]:
    """The `config.json` with which `transformers` builds the same model."""
    kind = "qwen3" if arch.qk_norm else "llama"
    return {
        "architectures": ["Qwen3ForCausalLM" if arch.qk_norm else "LlamaForCausalLM"],
        "model_type": kind,
        "vocab_size": arch.vocab_size,
        "hidden_size": arch.width,
        "intermediate_size": arch.ffn,
        "num_hidden_layers": arch.layers,
        "num_attention_heads": arch.heads,
        "num_key_value_heads": arch.kv_heads,
        "head_dim": arch.head_dim,
        "max_position_embeddings": arch.context,
        "hidden_act": "silu",
        "rms_norm_eps": arch.norm_eps,
        "rope_theta": arch.rope_theta,  # read by transformers 4, the next line by 5
        "rope_parameters": {"rope_type": "default", "rope_theta": arch.rope_theta},
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


def from_hugging_face(config: dict[str, Any]) -> Architecture:
    """The shape that a `config.json` describes. Raises ValueError with what this model can't do (or KeyError)."""
    kind = config.get("model_type")
    if kind not in ("llama", "qwen3"):
        raise ValueError(f"model_type is {kind!r}, expected 'llama' or 'qwen3'")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type != "default":
        raise ValueError(f"rope_type {rope_type!r} is not supported")
    for key, expected in (("hidden_act", "silu"), ("attention_bias", False), ("mlp_bias", False), ("use_sliding_window", False)):
        if config.get(key, expected) != expected:
            raise ValueError(f"{key} is {config[key]!r}, expected {expected!r}")
    heads, width = config["num_attention_heads"], config["hidden_size"]
    return Architecture(
        vocab_size=config["vocab_size"],
        layers=config["num_hidden_layers"],
        width=width,
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or width // heads,
        ffn=config["intermediate_size"],
        context=config["max_position_embeddings"],
        rope_theta=rope.get("rope_theta", config.get("rope_theta", 10000.0)),
        norm_eps=config.get("rms_norm_eps", 1e-6),
        tied=config.get("tie_word_embeddings", False),
        qk_norm=kind == "qwen3",
    )


def swiglu_width(width: int, multiple: int = 32) -> int:
    """Two thirds of four times the width, rounded up: a SwiGLU with the parameters of a plain 4x layer."""
    return math.ceil(8 * width / 3 / multiple) * multiple
