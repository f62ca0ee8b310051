"""A compact decoder-only Llama with the weight names of Hugging Face (`model.layers.0.self_attn.q_proj.weight`, ...).

Read it from top to bottom: norm, rotary embedding, mask, key-value cache, attention, layers, the model, its first weights. `transformers`
computes the same logits from the same weights, in float64 to 1e-10 (tests/train/test_model.py).
"""

import hashlib
import math
from functools import cache, lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.utils.checkpoint import checkpoint

from corpusmill.pipeline.errors import InputError
from corpusmill.train.losses import target_nats
from corpusmill.train.options import Architecture, RopeScaling

# ---- RMSNorm -----------------------------------------------------------------------------------------
#
# https://arxiv.org/abs/1910.07467, as Llama computes it.


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension: the division in fp32, its result rounded to the type of `x`, then the weight.

    `F.rms_norm` with a weight would multiply before it rounds, and would divide float64 in float64; `transformers` does neither.
    """

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and x.dtype != torch.float64 and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            normed: Tensor = _OnCPU.apply(x, self.weight, self.eps)
            return normed
        return rms_norm(x, self.weight, self.eps)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The same as a function."""
    wide = x.float() if x.dtype == torch.float64 else x
    return weight * F.rms_norm(wide, x.shape[-1:], None, eps).to(x.dtype)


class _OnCPU(torch.autograd.Function):
    """The same bits with the gradient written out: half the work of the one that PyTorch derives on a CPU, where it has no kernel.

    With n = x / rms(x) and h = gradient * weight the gradient of x is (h - n mean(h n)) / rms(x).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        inverse = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
        normed = wide * inverse
        ctx.save_for_backward(normed, inverse, weight)
        ctx.dtype = x.dtype
        return weight * normed.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        normed, inverse, weight = ctx.saved_tensors
        gradient = gradient.float()
        of_weight = (gradient * normed).sum(list(range(gradient.dim() - 1))).to(weight.dtype)
        gradient = gradient * weight
        of_x = (gradient - normed * (gradient * normed).mean(-1, keepdim=True)) * inverse
        return of_x.to(ctx.dtype), of_weight, None


# ---- rotary embedding --------------------------------------------------------------------------------
#
# In the half-split layout of Hugging Face: the pairs are (i, i + head_dim / 2).
#
# Angles are computed in fp32 whatever the model's type is: bf16 can represent only 769 of the positions 0 to 4095. Frequencies are, to
# the bit, those that `transformers` computes (modeling_rope_utils.py).


def frequencies(arch: Architecture) -> tuple[Tensor, float]:
    """Radians a token, fp32 `[head_dim / 2]`, and what cosines and sines are multiplied by."""
    dim, theta, scaling = arch.head_dim, arch.rope_theta, arch.rope_scaling
    periods = theta ** (torch.arange(0, dim, 2, dtype=torch.int64, device="cpu").float() / dim)
    if scaling is None:
        return 1.0 / periods, 1.0
    if scaling.rope_type == "llama3":
        return _llama3(1.0 / periods, scaling), 1.0
    return _yarn(periods, theta, scaling), scaling.attention_factor or 0.1 * math.log(scaling.factor) + 1.0


def _llama3(plain: Tensor, scaling: RopeScaling) -> Tensor:
    """Llama 3.1: what turns less than `low_freq_factor` times in the old context turns `factor` times slower, what turns more
    than `high_freq_factor` times stays, and between them it is mixed (llama-models, apply_scaling)."""
    old, low, high = scaling.original_max_position_embeddings, scaling.low_freq_factor, scaling.high_freq_factor
    wavelength = 2 * math.pi / plain
    slowed = torch.where(wavelength > old / low, plain / scaling.factor, plain)
    smooth = (old / wavelength - low) / (high - low)
    between = (wavelength >= old / high) & (wavelength <= old / low)
    return torch.where(between, (1 - smooth) * slowed / scaling.factor + smooth * slowed, slowed)


def _yarn(periods: Tensor, theta: float, scaling: RopeScaling) -> Tensor:
    """YaRN: from the dimension that turns `beta_fast` times in the old context to the one that turns `beta_slow` times a linear
    ramp from the plain frequency to the one that is `factor` times slower."""
    dim = 2 * len(periods)

    def dimension(turns: float) -> float:
        return dim * math.log(scaling.original_max_position_embeddings / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = max(math.floor(dimension(scaling.beta_fast)), 0), min(math.ceil(dimension(scaling.beta_slow)), dim - 1)
    ramp = (torch.arange(dim // 2, dtype=torch.float32, device="cpu") - low) / ((high - low) or 0.001)
    plain_share = 1 - ramp.clamp(0, 1)
    return 1.0 / (scaling.factor * periods) * (1 - plain_share) + 1.0 / periods * plain_share


@lru_cache(maxsize=16)
def _table(arch: Architecture, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False), torch.no_grad():  # training uses what generation has made
        rates, factor = frequencies(arch)
        angles = torch.arange(arch.context, device="cpu").float().unsqueeze(-1) * rates
        cos, sin = angles.cos() * factor, angles.sin() * factor
        tables = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
        cos, sin = (table.to(dtype).to(device) for table in tables)
    return cos, sin


def rotary_table(arch: Architecture, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """For the positions 0 to `context` - 1, `[context, head_dim]` each in `dtype`: cos | cos, and -sin | sin.

    Computed on the CPU, so the same on every device, and kept: a step only looks up its positions.
    """
    return _table(arch, device, dtype)


# To the compiler the tables are constants: nothing is traced or computed again. `torch.compiler.assume_constant_result` does
# just this, but imports the compiler, which takes 1.5 seconds.
rotary_table._dynamo_marked_constant = True  # type: ignore[attr-defined]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`x` `[B, heads, T, head_dim]` turned by the angles of its positions, tables `[T, head_dim]` or `[B, 1, T, head_dim]`."""
    return torch.addcmul(x * cos, x.roll(x.size(-1) // 2, -1), sin)


# ---- mask --------------------------------------------------------------------------------------------
#
# Which keys a query may see: those before it, from the first of its own document and of its window on.
#
# Attention gets None for plain causality, for which the kernels need no mask; a boolean mask for `scaled_dot_product_attention`; or on a
# GPU the block mask of flex_attention, which skips blocks in which nothing is seen.

Mask = Tensor | BlockMask | None


def document_starts(segments: Tensor | None) -> Tensor | None:
    """`[B, T]`: the place at which each token's document begins; `segments` `[B, T]` changes where one begins.

    None where every row is one document: attention is then plain. On a GPU nobody looks, as the step would wait for the answer.
    """
    if segments is None or segments.size(1) == 1:
        return None
    begins = segments[:, 1:] != segments[:, :-1]
    if begins.device.type == "cpu" and not torch.compiler.is_compiling() and not bool(begins.any()):
        return None
    places = torch.arange(1, segments.size(1), device=segments.device)
    starts = torch.zeros(segments.shape, dtype=torch.int64, device=segments.device)
    starts[:, 1:] = torch.where(begins, places, 0)
    return starts.cummax(dim=1).values


def first_key(past: int, window: int) -> int:
    """The earliest position that a query at position `past` sees."""
    return max(0, past + 1 - window) if window else 0


def visible(starts: Tensor | None, past: int, length: int, window: int, device: torch.device, first: int = 0) -> Mask:
    """The mask of `length` queries at places from `past` on, over the keys from `first` on.

    `starts` `[B, T]` or `[B, 1]` is the first place of each query's document; nothing that it sees lies before `first`.
    """
    narrow = 0 < window < past + length
    if starts is None and (length == 1 or not (past or narrow)):
        return None
    queries = torch.arange(past, past + length, device=device)
    earliest = queries - (window - 1) if narrow else torch.zeros_like(queries)
    if starts is not None:
        earliest = torch.maximum(earliest, starts)
    if device.type == "cuda" and not past:
        return block_mask(earliest)
    return dense_mask(earliest, past, first)


def dense_mask(earliest: Tensor, past: int = 0, first: int = 0) -> Tensor:
    """Boolean `[T, keys]`, true where a query may look; for a batch `[B, 1, T, keys]`.

    `earliest` `[T]` or `[B, T]` is the first position that each query sees. Queries begin at position `past`, keys at `first`.
    """
    end = past + earliest.size(-1)
    queries = torch.arange(past, end, device=earliest.device).unsqueeze(-1)
    keys = torch.arange(first, end, device=earliest.device)
    seen = (keys <= queries) & (keys >= earliest.unsqueeze(-1))
    return seen.unsqueeze(1) if seen.dim() == 3 else seen


def block_mask(earliest: Tensor) -> BlockMask:
    """The same for flex_attention. Tests compare it with the dense mask on the CPU; it has never run on a GPU here."""
    shared = earliest.dim() == 1  # by all rows of a batch, however many

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (key >= (earliest[query] if shared else earliest[batch, query]))

    length = earliest.size(-1)
    create = fused(create_block_mask) if earliest.is_cuda else create_block_mask
    mask: BlockMask = create(seen, None if shared else len(earliest), None, length, length, device=earliest.device)
    return mask


@cache
def _compiled(function: Any) -> Any:
    return torch.compile(function, dynamic=False)


def fused(function: Any) -> Any:
    """A function of flex_attention as one kernel, for without the compiler it would write out all scores; compiled at its first use."""
    return function if torch.compiler.is_compiling() else _compiled(function)


# ---- key-value cache ---------------------------------------------------------------------------------
#
# Keys and values of what a model has read, so that a new token costs one step and not the whole text.


class KVCache:
    """Keys and values of the places so far, `[B, kv_heads, longest, head_dim]` each, by layer.

    All rows of a batch end at the same place, and `starts` says where each begins (empty: all at 0): its positions count from there, and
    it sees nothing before. So one step adds a token to every row, whatever their lengths. What lies before a row's start is finite, as a
    weight of 0 times a NaN would be NaN.
    """

    def __init__(self, longest: int, window: int = 0):
        self.longest, self.window, self.length = longest, window, 0
        self.starts: list[int] = []
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def first(self) -> int:
        """The earliest place that the next token of any row sees: attention gets the keys from there on."""
        return max(first_key(self.length, self.window), min(self.starts, default=0))

    @property
    def ragged(self) -> bool:
        """Whether some row begins after `first`, so that attention needs a mask."""
        return max(self.starts, default=0) > self.first

    @property
    def longest_row(self) -> int:
        """Tokens of the row that begins first."""
        return self.length - min(self.starts, default=0)

    def row_starts(self, device: torch.device) -> Tensor | None:
        """`[B, 1]`; None if all rows begin at 0."""
        return torch.tensor(self.starts, device=device).unsqueeze(1) if any(self.starts) else None

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores `[B, kv_heads, T, head_dim]` after the first `length` places; returns all that the new ones see, from `first` on."""
        first, new, seen = self.first, keys.size(2), []
        for kept, given in zip(self._layer(layer, keys), (keys, values)):
            kept.narrow(2, self.length, new).copy_(given)
            seen.append(kept.narrow(2, first, self.length + new - first))
        return seen[0], seen[1]

    def keep(self, rows: list[int]) -> None:
        """Forgets all other rows."""
        self.layers = {layer: (keys[rows], values[rows]) for layer, (keys, values) in self.layers.items()}
        self.starts = [self.starts[row] for row in rows]

    def _layer(self, layer: int, like: Tensor) -> tuple[Tensor, Tensor]:
        if layer not in self.layers:  # shape, type and device are those of what comes: half the heads, say, or bf16
            shape = (len(like), like.size(1), self.longest, like.size(3))
            self.layers[layer] = like.new_zeros(shape), like.new_zeros(shape)
        return self.layers[layer]


# ---- attention ---------------------------------------------------------------------------------------

#: Rows up to this length are attended to by plain products where a CPU computes in bf16: torch's own kernel is quick in fp32 alone, and
#: takes three times as long for 64 tokens, twice as long for 512.
PLAIN = 512


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Mask) -> Tensor:
    """softmax(QK' / sqrt(head_dim)) V, `[B, heads, T, head_dim]`; for `mask` see `visible` (None is causal).

    A query that sees nothing gets 0. Each key-value head serves `heads / kv_heads` consecutive query heads. PyTorch picks the
    kernel: FlashAttention on a GPU and its own on a CPU; with a block mask flex_attention, whose backward a CPU lacks.
    """
    grouped = queries.size(1) != keys.size(1)
    if mask is None or isinstance(mask, Tensor):
        causal = mask is None and queries.size(2) > 1
        if causal and queries.device.type == "cpu" and queries.dtype == torch.bfloat16 and queries.size(2) <= PLAIN:
            return _plain(queries, keys, values)
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=causal, enable_gqa=grouped)
    mixed: Tensor = fused(flex_attention)(queries, keys, values, block_mask=mask, enable_gqa=grouped)
    return mixed


def _plain(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Causal attention by its formula, softmax in fp32."""
    if (each := queries.size(1) // keys.size(1)) > 1:
        keys, values = (heads.repeat_interleave(each, dim=1) for heads in (keys, values))
    length, head_dim = queries.shape[2:]
    future = torch.full((length, length), -torch.inf).triu(1)
    scores = torch.add(future, queries @ keys.mT, alpha=head_dim**-0.5)  # fp32, as one of the two is
    return F.softmax(scores, dim=-1).to(values.dtype) @ values


class Attention(nn.Module):
    """Self-attention of one layer, with an optional norm on each head of queries and keys.

    How many heads there are is read off the projections' outputs, so a tensor-parallel rank may hold some of them.
    """

    def __init__(self, arch: Architecture, layer: int):
        super().__init__()
        self.layer, self.head_dim = layer, arch.head_dim
        self.q_proj = nn.Linear(arch.width, arch.heads * arch.head_dim, bias=False)
        self.k_proj = nn.Linear(arch.width, arch.kv_heads * arch.head_dim, bias=False)
        self.v_proj = nn.Linear(arch.width, arch.kv_heads * arch.head_dim, bias=False)
        self.o_proj = nn.Linear(arch.heads * arch.head_dim, arch.width, bias=False)
        self.q_norm = RMSNorm(arch.head_dim, arch.norm_eps) if arch.qk_norm else None
        self.k_norm = RMSNorm(arch.head_dim, arch.norm_eps) if arch.qk_norm else None

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Mask, cache: KVCache | None) -> Tensor:
        """`x` `[B, T, width]` to the same; `cos` and `sin` as in `rotate`."""
        batch, length, _ = x.shape
        shape = (batch, length, -1, self.head_dim)
        queries, keys, values = (project(x).view(shape) for project in (self.q_proj, self.k_proj, self.v_proj))
        if self.q_norm is not None and self.k_norm is not None:
            queries, keys = self.q_norm(queries), self.k_norm(keys)
        queries, keys, values = (heads.transpose(1, 2) for heads in (queries, keys, values))
        # under autocast the rotation is fp32: the tables have the residual stream's type
        queries, keys = rotate(queries, cos, sin).to(values.dtype), rotate(keys, cos, sin).to(values.dtype)
        if cache is not None:
            keys, values = cache.extend(self.layer, keys, values)
        mixed = attend(queries, keys, values, mask)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))


# ---- layers and model --------------------------------------------------------------------------------


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


class LlamaModel(nn.Module):
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
        """Switches activation checkpointing and compilation of the layers.

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
        self.model = LlamaModel(arch)
        self.lm_head = nn.Linear(arch.width, arch.vocab_size, bias=False)
        self.tie()

    def tie(self) -> None:
        """Makes a tied head share the embedding's weights; needed again after `to_empty` has replaced them."""
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
