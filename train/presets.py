"""Named sizes of the model, and the section of a recipe that chooses and changes one."""

from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from corpusmill.pipeline.config import Config
from corpusmill.train.architecture import Architecture, RopeScaling

LLAMA_8B: dict[str, Any] = {
    "layers": 32, "width": 4096, "heads": 32, "kv_heads": 8, "head_dim": 128, "ffn": 14336, "rope_theta": 5e5,
}  # fmt: skip
LLAMA_31: dict[str, Any] = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
}  # fmt: skip

#: Weights without the embeddings, roughly, and the shape. Those with a family's name have the shapes of its published weights.
PRESETS: dict[str, dict[str, Any]] = {
    "0.8m": {"layers": 4, "width": 128, "heads": 4, "kv_heads": 4, "head_dim": 32, "ffn": 336},
    "2m": {"layers": 4, "width": 192, "heads": 6, "kv_heads": 3, "head_dim": 32, "ffn": 512},
    "5m": {"layers": 6, "width": 256, "heads": 8, "kv_heads": 4, "head_dim": 32, "ffn": 704},
    "10m": {"layers": 6, "width": 384, "heads": 6, "kv_heads": 3, "head_dim": 64, "ffn": 1024},
    "30m": {"layers": 10, "width": 512, "heads": 8, "kv_heads": 4, "head_dim": 64, "ffn": 1376},
    "85m": {"layers": 12, "width": 768, "heads": 12, "kv_heads": 12, "head_dim": 64, "ffn": 2048},
    "300m": {"layers": 24, "width": 1024, "heads": 16, "kv_heads": 8, "head_dim": 64, "ffn": 2816},
    "qwen3-0.6b": {"layers": 28, "width": 1024, "heads": 16, "kv_heads": 8, "head_dim": 128, "ffn": 3072, "rope_theta": 1e6,
                   "norm_eps": 1e-6, "tied": True, "qk_norm": True},
    "llama3.2-1b": {"layers": 16, "width": 2048, "heads": 32, "kv_heads": 8, "head_dim": 64, "ffn": 8192, "rope_theta": 5e5,
                    "rope_scaling": LLAMA_31 | {"factor": 32.0}, "tied": True},
    "mistral-7b": {"layers": 32, "width": 4096, "heads": 32, "kv_heads": 8, "head_dim": 128, "ffn": 14336, "window": 4096},  # v0.1
    "llama3-8b": LLAMA_8B,
    "llama3.1-8b": LLAMA_8B | {"rope_scaling": LLAMA_31},
}  # fmt: skip


class ModelConfig(Config):
    """The model: a named size, and what to change about it."""

    preset: Literal[
        "0.8m", "2m", "5m", "10m", "30m", "85m", "300m", "qwen3-0.6b", "llama3.2-1b", "mistral-7b", "llama3-8b", "llama3.1-8b"
    ] = Field(default="2m", description="Named size (weights without the embeddings).")  # fmt: skip
    context: int = Field(default=256, ge=2, description="Longest sequence, in tokens; also the length of training windows.")
    layers: int | None = Field(default=None, ge=1, description="Decoder layers, instead of the preset's.")
    width: int | None = Field(default=None, ge=2, description="Width of the residual stream, instead of the preset's.")
    heads: int | None = Field(default=None, ge=1, description="Query heads, instead of the preset's.")
    kv_heads: int | None = Field(default=None, ge=1, description="Key and value heads, instead of the preset's.")
    head_dim: int | None = Field(default=None, ge=2, description="Width of a head, instead of the preset's.")
    ffn: int | None = Field(default=None, ge=1, description="Width inside the SwiGLU, instead of the preset's.")
    rope_theta: float | None = Field(default=None, gt=1, description="Base of the rotary angles, instead of the preset's (10,000).")
    rope_scaling: RopeScaling | None = Field(default=None, description="Slower rotation for a longer context, instead of the preset's.")
    window: int | None = Field(default=None, ge=0, description="Latest tokens that one sees, instead of the preset's; 0 means all.")
    tied: bool | None = Field(default=None, description="Share the output head with the embedding, instead of the preset's choice.")
    qk_norm: bool | None = Field(default=None, description="Norm on queries and keys; the model is then saved as Qwen3, not Llama.")

    @model_validator(mode="after")
    def _fits(self) -> "ModelConfig":
        try:
            self.architecture(1)
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error
        return self

    def architecture(self, vocab_size: int) -> Architecture:
        """The shape for this vocabulary."""
        changes = self.model_dump(exclude={"preset", "context"}, exclude_none=True)
        return Architecture(vocab_size=vocab_size, context=self.context, **{**PRESETS[self.preset], **changes})
