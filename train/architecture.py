"""The shape of a Llama: everything that fixes the names and shapes of its weights, and the arithmetic between them.

No library is imported here. `hugging_face.py` exchanges it with a `config.json`.
"""

from typing import Literal

from pydantic import Field, model_validator

from corpusmill.pipeline.config import Config


class RopeScaling(Config):
    """Slower rotation for a context longer than the one that a model was pre-trained with; keys as `transformers` has them."""

    rope_type: Literal["llama3", "yarn"] = Field(description="Llama 3.1's smooth step, or YaRN (https://arxiv.org/abs/2309.00071).")
    factor: float = Field(ge=1, description="How many times longer the context becomes.")
    original_max_position_embeddings: int = Field(ge=1, description="The context of the pre-training.")
    low_freq_factor: float = Field(1.0, gt=0, description="llama3: what turns fewer times than this in the old context turns slower.")
    high_freq_factor: float = Field(4.0, gt=0, description="llama3: what turns more often than this stays as it is.")
    beta_fast: float = Field(32.0, gt=0, description="yarn: what turns more often than this in the old context stays as it is.")
    beta_slow: float = Field(1.0, gt=0, description="yarn: what turns fewer times than this turns slower.")
    attention_factor: float | None = Field(None, gt=0, description="yarn: cosines and sines times this; else 0.1 ln(factor) + 1.")
    mscale: float | None = Field(None, gt=0, description="yarn: weighs ln(factor) in the attention factor (DeepSeek).")
    mscale_all_dim: float | None = Field(None, gt=0, description="yarn: the same in the attention factor's denominator.")
    truncate: bool = Field(True, description="yarn: the ramp begins and ends at whole dimensions.")

    @model_validator(mode="after")
    def _ordered(self) -> "RopeScaling":
        if self.low_freq_factor >= self.high_freq_factor:
            raise ValueError(f"low_freq_factor {self.low_freq_factor} is not below high_freq_factor {self.high_freq_factor}")
        return self


class Architecture(Config):
    """What `Llama` is built from."""

    vocab_size: int = Field(ge=1, description="Rows of the embedding.")
    layers: int = Field(ge=1, description="Decoder layers.")
    width: int = Field(ge=1, description="Width of the residual stream.")
    heads: int = Field(ge=1, description="Query heads.")
    kv_heads: int = Field(ge=1, description="Key and value heads; each serves heads / kv_heads query heads.")
    head_dim: int = Field(ge=2, description="Width of one head.")
    ffn: int = Field(ge=1, description="Width inside the SwiGLU.")
    context: int = Field(ge=1, description="Longest sequence.")
    rope_theta: float = Field(10000.0, gt=1, description="Base of the rotary angles.")
    rope_scaling: RopeScaling | None = Field(None, description="How the angles of a longer context are scaled.")
    window: int = Field(0, ge=0, description="A token sees so many latest tokens, itself included (Mistral); 0 means all.")
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

    def shared_sizes(self) -> dict[str, int]:
        """What tensor parallelism shares out, by name."""
        return {"heads": self.heads, "kv_heads": self.kv_heads, "ffn": self.ffn, "context": self.context}

    def parameters(self) -> int:
        """Number of weights (tied ones counted once)."""
        attention = 2 * self.width * self.head_dim * (self.heads + self.kv_heads)
        norms = 2 * self.width + (2 * self.head_dim if self.qk_norm else 0)
        layer = attention + 3 * self.width * self.ffn + norms
        return self.layers * layer + self.width + self.vocab_size * self.width * (1 if self.tied else 2)
