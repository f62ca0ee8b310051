"""A compact decoder-only Llama with the weight names of Hugging Face (`model.layers.0.self_attn.q_proj.weight`, ...).

`transformers` computes the same logits from the same weights, in float64 to 1e-10 (tests/train/test_model.py).
"""

import hashlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from corpusmill.pipeline.errors import InputError
from corpusmill.train.architecture import Architecture
from corpusmill.train.attention import Attention
from corpusmill.train.kv_cache import KVCache
from corpusmill.train.norm import RMSNorm
from corpusmill.train.rope import rotary_table
from corpusmill.train.token_loss import target_nats
from corpusmill.train.visibility import Mask, document_starts, visible


class SwiGLU(nn.Module):
    """The feed-forward layer of Llama (https://arxiv.org/abs/2002.05202): down(silu(gate(x)) * up(x))."""

    def __init__(self, arch: Architecture):
        super().__init__()
        self.gate_proj = nn.Linear(arch.width, arch.ffn, bias=False)
        self.up_proj = nn.Linear(arch.width, arch.ffn, bias=False)
        self.down_proj = nn.Linear(arch.ffn, arch.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention and feed-forward, each behind a norm and added to the residual stream.

    With `checkpointing` nothing between the layer's input and output is kept for the backward pass, which computes it again.
    """

    def __init__(self, arch: Architecture, layer: int):
        super().__init__()
        self.checkpointing = False
        self.input_layernorm = RMSNorm(arch.width, arch.norm_eps)
        self.self_attn = Attention(arch, layer)
        self.post_attention_layernorm = RMSNorm(arch.width, arch.norm_eps)
        self.mlp = SwiGLU(arch)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Mask, cache: KVCache | None = None) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():  # in here, so that what shards a layer is outside
            recomputed: Tensor = checkpoint(self._add, x, cos, sin, mask, cache, use_reentrant=False, preserve_rng_state=False)
            return recomputed
        return self._add(x, cos, sin, mask, cache)

    def _add(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Mask, cache: KVCache | None) -> Tensor:
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

    def switch(self, *, checkpointing: bool = False, compiled: bool = False) -> None:
        """Computes layers again in the backward pass instead of keeping what is in them; compiles them.

        One layer is compiled and its code serves all, whatever shards or cuts the model around them.
        """
        layer: Any
        for layer in self.layers.values():
            layer.checkpointing = checkpointing
            if compiled:
                layer.compile()

    def forward(self, ids: Tensor, segments: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Hidden states `[B, T, width]` for ids `[B, T]` (or the hidden states before this part); see `Llama.forward`."""
        past, length = cache.length if cache else 0, ids.size(1)
        end, longest = past + length, length + (cache.longest_row if cache else 0)
        if longest > self.arch.context:
            raise InputError(f"a sequence of {longest} tokens is longer than the model's context of {self.arch.context}.")
        starts = cache.row_starts(ids.device) if cache else document_starts(segments)
        hidden = None if cache and not cache.ragged else starts  # where all rows see all that is given them, a mask would cost for nothing
        mask = visible(hidden, past, length, self.arch.window, ids.device, cache.first if cache else 0)
        x = ids if self.embed_tokens is None else self.embed_tokens(ids)
        cos, sin = rotary_table(self.arch, x.device, x.dtype)
        if starts is None:
            cos, sin = cos[past:end], sin[past:end]
        else:  # positions begin at 0 in each document or row
            positions = torch.arange(past, end, device=ids.device) - starts
            cos, sin = cos[positions].unsqueeze(1), sin[positions].unsqueeze(1)
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
        self.tie()

    def tie(self) -> None:
        """Makes a tied head share the embedding's weights: anew after they were replaced, as `to_empty` does it."""
        if self.arch.tied and self.lm_head is not None and self.model.embed_tokens is not None:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(
        self, ids: Tensor, segments: Tensor | None = None, cache: KVCache | None = None, targets: Tensor | None = None
    ) -> Tensor:  # fmt: skip
        """Logits `[B, T, vocab]` for ids `[B, T]`; a part without a head (None) gives hidden states.

        With `targets` `[B, T]` it gives the nats of those that count (see `target_nats`), for which the head works at their places alone.

        `segments` `[B, T]` (integers that change where a document begins) keeps attention and positions inside each
        document; without it a row is one document. Rows may be padded on the right: nothing looks forward. With a
        `cache` the ids follow those it has seen, and it takes them up; there a row is one document. Raises InputError beyond the context.
        """
        hidden = self.model(ids, segments, cache)
        if self.lm_head is None:
            return hidden
        return self.lm_head(hidden) if targets is None else target_nats(self.lm_head, hidden, targets)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def new_cache(self, longest: int | None = None) -> KVCache:
        """An empty cache for sequences of at most `longest` tokens (the context where it is not given)."""
        return KVCache(longest or self.arch.context, self.arch.window)


def blank_model(arch: Architecture) -> Llama:
    """A model without storage, which can be cut, spread and sharded before it is filled."""
    with torch.device("meta"):
        return Llama(arch)


def fill(model: Llama, seed: int, device: torch.device | str) -> None:
    """Gives a blank model, or this rank's part of it, its storage and its first weights."""
    model.to_empty(device=device)
    model.tie()
    initialise(model, seed)


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
    return torch.empty(shape).normal_(0.0, deviation, generator=named_generator(name, seed))


def named_generator(name: str, seed: int) -> torch.Generator:
    """What draws the first values of the weight of this name, fp32 on the CPU."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
