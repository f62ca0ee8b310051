"""A compact decoder-only Llama with the weight names of Hugging Face (`model.layers.0.self_attn.q_proj.weight`, ...).

`transformers` computes the same logits from the same weights, in float64 to 1e-10 (tests/train/test_model.py).
"""

import hashlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corpusmill.pipeline.errors import InputError
from corpusmill.train.architecture import Architecture
from corpusmill.train.rope import document_mask, document_positions, rotary_angles, rotate


class KVCache:
    """Keys and values of the positions so far, `[B, kv_heads, longest, head_dim]` each, by layer."""

    def __init__(self, longest: int):
        self.longest, self.length = longest, 0
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores `[B, kv_heads, T, head_dim]` after the first `length` positions and returns all up to there."""
        if layer not in self.layers:  # shape, type and device are those of what comes: half the heads, say, or bf16
            shape = (*keys.shape[:2], self.longest, keys.size(3))
            self.layers[layer] = keys.new_empty(shape), values.new_empty(shape)
        end = self.length + keys.size(2)
        for kept, new in zip(self.layers[layer], (keys, values)):
            kept[:, :, self.length : end] = new
        old_keys, old_values = self.layers[layer]
        return old_keys[:, :, :end], old_values[:, :, :end]


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension; the division in fp32, as Llama has it."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * normed.to(x.dtype)


class Attention(nn.Module):
    """Causal self-attention; each key-value head serves `heads / kv_heads` consecutive query heads.

    How many heads there are is read off the projections' outputs, so a tensor-parallel rank may hold some of them.
    """

    def __init__(self, arch: Architecture, layer: int):
        super().__init__()
        self.layer, self.head_dim = layer, arch.head_dim
        self.q_proj = nn.Linear(arch.width, arch.heads * arch.head_dim, bias=False)
        self.k_proj = nn.Linear(arch.width, arch.kv_heads * arch.head_dim, bias=False)
        self.v_proj = nn.Linear(arch.width, arch.kv_heads * arch.head_dim, bias=False)
        self.o_proj = nn.Linear(arch.heads * arch.head_dim, arch.width, bias=False)
        self.q_norm = RMSNorm(arch.head_dim, arch.norm_eps) if arch.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(arch.head_dim, arch.norm_eps) if arch.qk_norm else nn.Identity()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: KVCache | None) -> Tensor:
        batch, length, _ = x.shape
        shape = (batch, length, -1, self.head_dim)
        queries = rotate(self.q_norm(self.q_proj(x).view(shape)).transpose(1, 2), cos, sin)
        keys = rotate(self.k_norm(self.k_proj(x).view(shape)).transpose(1, 2), cos, sin)
        values = self.v_proj(x).view(shape).transpose(1, 2)
        if cache is not None:
            keys, values = cache.extend(self.layer, keys, values)
        causal = mask is None and length > 1
        grouped = queries.size(1) != keys.size(1)
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=causal, enable_gqa=grouped)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))


class SwiGLU(nn.Module):
    def __init__(self, arch: Architecture):
        super().__init__()
        self.gate_proj = nn.Linear(arch.width, arch.ffn, bias=False)
        self.up_proj = nn.Linear(arch.width, arch.ffn, bias=False)
        self.down_proj = nn.Linear(arch.ffn, arch.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, arch: Architecture, layer: int):
        super().__init__()
        self.input_layernorm = RMSNorm(arch.width, arch.norm_eps)
        self.self_attn = Attention(arch, layer)
        self.post_attention_layernorm = RMSNorm(arch.width, arch.norm_eps)
        self.mlp = SwiGLU(arch)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: KVCache | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Ids to the hidden states before the output head.

    A pipeline stage is a decoder with some consecutive `layers`, and with None for the `embed_tokens` (then hidden
    states come in) or the `norm` (then they go out as they are) that it does not have.
    """

    def __init__(self, arch: Architecture):
        super().__init__()
        self.arch = arch
        self.embed_tokens = nn.Embedding(arch.vocab_size, arch.width)
        self.layers = nn.ModuleDict({str(layer): Layer(arch, layer) for layer in range(arch.layers)})
        self.norm = RMSNorm(arch.width, arch.norm_eps)

    def forward(self, ids: Tensor, segments: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Hidden states `[B, T, width]` for ids `[B, T]` (or the hidden states before this part); see `Llama.forward`."""
        past = cache.length if cache else 0
        end = past + ids.size(1)
        if end > self.arch.context:
            raise InputError(f"a sequence of {end} tokens is longer than the model's context of {self.arch.context}.")
        if segments is not None:
            positions, mask = document_positions(segments), document_mask(segments)
        else:
            positions, mask = torch.arange(past, end, device=ids.device), None
            if past and ids.size(1) > 1:  # new positions see all old ones and the new ones before them
                mask = torch.ones(ids.size(1), end, dtype=torch.bool, device=ids.device).tril(past)
        x = ids if self.embed_tokens is None else self.embed_tokens(ids)
        cos, sin = rotary_angles(positions, self.arch.head_dim, self.arch.rope_theta, x.dtype)
        for layer in self.layers.values():
            x = layer(x, cos, sin, mask, cache)
        if cache is not None:
            cache.length = end
        return x if self.norm is None else self.norm(x)


class Llama(nn.Module):
    """The language model. `model(ids)` gives hidden states (before the head), `lm_head` turns them into logits."""

    def __init__(self, arch: Architecture):
        super().__init__()
        self.arch = arch
        self.model = Decoder(arch)
        self.lm_head = nn.Linear(arch.width, arch.vocab_size, bias=False)
        if arch.tied:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, ids: Tensor, segments: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Logits `[B, T, vocab]` for ids `[B, T]`; a part without a head (None) gives hidden states.

        `segments` `[B, T]` (integers that change where a document begins) keeps attention and positions inside each
        document; without it a row is one document. Rows may be padded on the right: nothing looks forward. With a
        `cache` the ids follow those it has seen, and it takes them up. Raises InputError beyond the context.
        """
        hidden = self.model(ids, segments, cache)
        return hidden if self.lm_head is None else self.lm_head(hidden)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def new_cache(self, longest: int | None = None) -> KVCache:
        """An empty cache for sequences of at most `longest` tokens (the context where it is not given)."""
        return KVCache(longest or self.arch.context)


def initialise(model: Llama, seed: int) -> None:
    """Weights for training from nothing, in place.

    The values of a weight depend on the seed and its name alone: they are the same on every machine, whatever its
    type, and in a part of the model as in the whole.
    """
    weight: Any
    for name, weight in model.named_parameters():
        values = initial_values(name, weight.shape, model.arch, seed)
        if hasattr(weight, "placements"):  # a DTensor, whose module takes half a second to import
            from torch.distributed.tensor import distribute_tensor

            # every rank draws the whole and keeps its shard
            values = distribute_tensor(values.to(weight.device), weight.device_mesh, weight.placements, src_data_rank=None)
        weight.data.copy_(values)


def initial_values(name: str, shape: torch.Size, arch: Architecture, seed: int) -> Tensor:
    """The values, fp32 on the CPU, with which the weight of this name begins.

    Projections into the residual stream and the head begin at zero, so the first loss is ln(vocabulary) and every
    layer begins as the identity (as in modded-nanogpt); a tied head can't, and begins like GPT-2's embedding.
    """
    if len(shape) < 2:
        return torch.ones(shape)
    if name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight")):
        return torch.zeros(shape)
    if name.endswith("embed_tokens.weight"):
        deviation = 0.02 if arch.tied else 0.5
    else:
        deviation = (3 * shape[1]) ** -0.5
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.empty(shape).normal_(0.0, deviation, generator=generator)
