"""A compact decoder-only Llama with the weight names of Hugging Face (`model.layers.0.self_attn.q_proj.weight`, ...), and its loss.

`transformers` computes the same logits from the same weights: in float64 to 1e-10 (tests/train/test_model.py).
"""

import hashlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.utils.checkpoint import checkpoint

from corpusmill.pipeline.errors import InputError
from corpusmill.train.compute import fused
from corpusmill.train.data import IGNORED, DataShare, counted_places
from corpusmill.train.options import LLAMA3, YARN, Architecture

# ---- RMSNorm -----------------------------------------------------------------------------------------


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension (https://arxiv.org/abs/1910.07467): divides in fp32, rounds the result to the type of
    `x`, then multiplies by the weight, as `transformers` does. `F.rms_norm` with a weight would multiply before it rounds."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and x.dtype != torch.float64 and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            normed: Tensor = _OnCPU.apply(x, self.weight, self.eps)
            return normed
        wide = x.float() if x.dtype == torch.float64 else x
        return self.weight * F.rms_norm(wide, x.shape[-1:], None, self.eps).to(x.dtype)


class _OnCPU(torch.autograd.Function):
    """Computes the bits of the norm with its gradient written out: half the work of the gradient that PyTorch derives on a CPU.

    With n = x / rms(x) and h = gradient * weight, the gradient of x is (h - n mean(h n)) / rms(x).
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
# The layout is Hugging Face's half-split one: the pairs are (i, i + head_dim / 2).
#
# Angles are computed in fp32 whatever the model's type: of the positions 0 to 4095, bf16 can represent only 769. Frequencies equal those
# of `transformers` to the bit (modeling_rope_utils.py).


def frequencies(arch: Architecture) -> tuple[Tensor, float]:
    """Returns the frequencies in radians per token, fp32 `[head_dim / 2]`, and the factor of cosines and sines.

    Llama 3.1 slows frequencies with fewer than LLAMA3's turns in the old context, keeps those with more, and interpolates between
    (llama-models, apply_scaling). YaRN has a linear ramp over dimensions, from the plain frequency where it makes YARN's `beta_fast` turns
    in the old context to the slowed one where it makes `beta_slow` turns.
    """
    dim, theta, scaling = arch.head_dim, arch.rope_theta, arch.rope_scaling
    periods = theta ** (torch.arange(0, dim, 2, dtype=torch.int64, device="cpu").float() / dim)
    plain = 1.0 / periods
    if scaling is None:
        return plain, 1.0
    factor, old = scaling.factor, scaling.original_max_position_embeddings
    if scaling.rope_type == "llama3":
        low, high = LLAMA3["low_freq_factor"], LLAMA3["high_freq_factor"]
        wavelength = 2 * math.pi / plain
        slowed = torch.where(wavelength > old / low, plain / factor, plain)
        smooth = (old / wavelength - low) / (high - low)
        between = (wavelength >= old / high) & (wavelength <= old / low)
        return torch.where(between, (1 - smooth) * slowed / factor + smooth * slowed, slowed), 1.0
    fast, slow = (dim * math.log(old / (YARN[name] * 2 * math.pi)) / (2 * math.log(theta)) for name in ("beta_fast", "beta_slow"))
    first, last = max(math.floor(fast), 0), min(math.ceil(slow), dim - 1)
    ramp = (torch.arange(dim // 2, dtype=torch.float32, device="cpu") - first) / ((last - first) or 0.001)
    share = 1 - ramp.clamp(0, 1)
    return 1.0 / (factor * periods) * (1 - share) + plain * share, 0.1 * math.log(factor) + 1.0


@lru_cache(maxsize=16)
def rotary_table(arch: Architecture, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Returns cos | cos and -sin | sin for the positions 0 to `context` - 1, `[context, head_dim]` each, in `dtype`.

    They are computed on the CPU, so equal on every device, and cached: a step only looks up its positions.
    """
    with torch.inference_mode(False), torch.no_grad():  # so that training can use tables that generation made
        rates, factor = frequencies(arch)
        angles = torch.arange(arch.context, device="cpu").float().unsqueeze(-1) * rates
        cos, sin = angles.cos() * factor, angles.sin() * factor
        tables = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
        cos, sin = (table.to(dtype).to(device) for table in tables)
    return cos, sin


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates `x` `[B, heads, T, head_dim]` by the angles of its positions; tables `[T, head_dim]` or `[B, 1, T, head_dim]`."""
    return torch.addcmul(x * cos, x.roll(x.size(-1) // 2, -1), sin)


# ---- mask --------------------------------------------------------------------------------------------
#
# A query sees the keys of its own document up to itself; with a window, only the last `window` of them. Attention gets one of three masks:
# None for plain causal attention; a boolean mask for `scaled_dot_product_attention`; on a GPU the block mask of flex_attention, which skips
# blocks where nothing is seen.

Mask = Tensor | BlockMask | None


def document_starts(segments: Tensor | None) -> Tensor | None:
    """Returns `[B, T]`: the place where each token's document begins. `segments` `[B, T]` changes value where a document begins; loaders
    give None where attention can be plain, as each row is one document."""
    if segments is None or segments.size(1) == 1:
        return None
    begins = segments[:, 1:] != segments[:, :-1]
    places = torch.arange(1, segments.size(1), device=segments.device)
    starts = torch.zeros(segments.shape, dtype=torch.int64, device=segments.device)
    starts[:, 1:] = torch.where(begins, places, 0)
    return starts.cummax(dim=1).values


def visible(starts: Tensor | None, past: int, length: int, window: int, device: torch.device, first: int = 0) -> Mask:
    """Returns the mask of `length` queries, at places from `past` on, over the keys from `first` on.

    `starts` `[B, T]` or `[B, 1]` is the first place of each query's document. A query sees nothing before `first`.
    """
    narrow = 0 < window < past + length
    if starts is None and (length == 1 or not (past or narrow)):
        return None
    queries = torch.arange(past, past + length, device=device)
    earliest = queries - (window - 1) if narrow else torch.zeros_like(queries)
    if starts is not None:
        earliest = torch.maximum(earliest, starts)
    if device.type == "cuda" and not past and length > BLOCK:  # a single block has nothing to skip, and needs no compiler
        return block_mask(earliest)
    return dense_mask(earliest, past, first)


def dense_mask(earliest: Tensor, past: int = 0, first: int = 0) -> Tensor:
    """Returns a boolean mask `[T, keys]`, for a batch `[B, 1, T, keys]`: true where a query sees a key.

    `earliest` `[T]` or `[B, T]` is the first position that each query sees. Queries begin at position `past`, keys at `first`.
    """
    end = past + earliest.size(-1)
    queries = torch.arange(past, end, device=earliest.device).unsqueeze(-1)
    keys = torch.arange(first, end, device=earliest.device)
    seen = (keys <= queries) & (keys >= earliest.unsqueeze(-1))
    return seen.unsqueeze(1) if seen.dim() == 3 else seen


#: Side of the blocks that flex_attention computes, skips, or computes without a mask.
BLOCK = 128


def block_mask(earliest: Tensor) -> BlockMask:
    """Returns `dense_mask` as a mask of flex_attention; `earliest`, which never falls within a row, as there.

    The blocks follow from the first and last queries of each block, so there is no need to look at all scores, as `create_block_mask` does.
    """
    shared = earliest.dim() == 1  # one mask for all rows of a batch
    rows = earliest.unsqueeze(0) if shared else earliest
    length, device = rows.size(1), rows.device
    first = torch.arange(0, length, BLOCK, device=device)
    last = (first + BLOCK - 1).clamp(max=length - 1)
    queries, keys, ends = first.unsqueeze(1), first, first + BLOCK - 1  # queries down, keys across
    begins = rows.index_select(1, first).unsqueeze(-1), rows.index_select(1, last).unsqueeze(-1)
    seen = (keys <= last.unsqueeze(1)) & (ends >= begins[0])
    whole = (ends <= queries) & (keys >= begins[1]) & (queries + BLOCK <= length)

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (key >= (earliest[query] if shared else earliest[batch, query]))

    # for each row how many blocks are computed with a mask and without one, and the numbers of all blocks, these first
    counts = [blocks.sum(-1, dtype=torch.int32).unsqueeze(1) for blocks in (seen & ~whole, whole)]
    order = [blocks.int().argsort(dim=-1, descending=True, stable=True).int().unsqueeze(1) for blocks in (seen & ~whole, whole)]
    return BlockMask.from_kv_blocks(
        counts[0], order[0], counts[1], order[1], BLOCK_SIZE=BLOCK, mask_mod=visible, seq_lengths=(length, length)
    )


# ---- key-value cache ---------------------------------------------------------------------------------


class KVCache:
    """Keys and values of the places so far, by layer: `[B, kv_heads, longest, head_dim]` each.

    All rows of a batch end at the same place. `starts` holds the place where each row begins (empty: all at 0); a row's positions count
    from there, and it sees nothing before. So one step adds a token to every row, whatever its length. Values before a row's start must
    be finite, as a weight of 0 times a NaN would be NaN.
    """

    def __init__(self, longest: int, window: int = 0):
        self.longest, self.window, self.length = longest, window, 0
        self.starts: list[int] = []
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def first(self) -> int:
        """The earliest place that the next token of any row sees. Attention gets the keys from there on."""
        earliest = max(0, self.length + 1 - self.window) if self.window else 0
        return max(earliest, min(self.starts, default=0))

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores `[B, kv_heads, T, head_dim]` after the first `length` places. Returns all keys and values that the new tokens may see."""
        if layer not in self.layers:  # with the type and the heads of `keys`, which may be in bf16, or have part of the heads
            shape = (len(keys), keys.size(1), self.longest, keys.size(3))
            self.layers[layer] = keys.new_zeros(shape), keys.new_zeros(shape)
        end, found = self.length + keys.size(2), self.layers[layer]
        for kept, given in zip(found, (keys, values)):
            kept[:, :, self.length : end].copy_(given)
        return found[0][:, :, self.first : end], found[1][:, :, self.first : end]

    def take(self, rows: list[int]) -> None:
        """Keeps these rows, in this order, and drops all others. A row may be named several times."""
        self.layers = {layer: (keys[rows], values[rows]) for layer, (keys, values) in self.layers.items()}
        self.starts = [self.starts[row] for row in rows] if self.starts else []


# ---- attention ---------------------------------------------------------------------------------------

#: On a CPU in bf16, attention over rows up to this length uses plain products. PyTorch's kernel is fast only in fp32: in bf16 it takes
#: three times as long as products for 64 tokens, twice as long for 512.
PLAIN = 512


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Mask) -> Tensor:
    """Returns softmax(QK' / sqrt(head_dim)) V, `[B, heads, T, head_dim]`; for `mask` see `visible` (None is causal).

    A query that sees nothing gets 0. Each key-value head serves `heads / kv_heads` consecutive query heads. PyTorch picks the kernel:
    FlashAttention on a GPU, its own on a CPU. A block mask needs flex_attention, which has no backward pass on a CPU.
    """
    grouped = queries.size(1) != keys.size(1)
    if isinstance(mask, BlockMask):
        mixed: Tensor = fused(_flex)(queries, keys, values, mask, grouped)
        return mixed
    if grouped and queries.device.type == "cuda" and (mask is not None or queries.dtype == torch.float32):
        # of the kernels that store no scores only FlashAttention takes groups, and it takes neither a mask nor fp32
        keys, values, grouped = *_repeated(keys, values, queries.size(1)), False
    if mask is None and queries.size(2) > 1:  # in a branch: a comparison of the compiler's sizes is no bool, which `is_causal` must be
        if queries.device.type == "cpu" and queries.dtype == torch.bfloat16 and queries.size(2) <= PLAIN:
            return _plain(queries, keys, values)
        return F.scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=grouped)
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, enable_gqa=grouped)


def _flex(queries: Tensor, keys: Tensor, values: Tensor, mask: BlockMask, grouped: bool) -> Tensor:
    if not torch.compiler.is_compiling():  # the compiler calls a function as it is where it is off, or after too many shapes
        _warn_of_scores()
    mixed: Tensor = flex_attention(queries, keys, values, block_mask=mask, enable_gqa=grouped)
    return mixed


@cache
def _warn_of_scores() -> None:
    warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")  # three paragraphs
    warnings.warn("attention with a mask is not compiled, so it stores all scores, which takes much memory and time", stacklevel=2)


def _plain(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Computes causal attention by its formula, with the softmax in fp32."""
    keys, values = _repeated(keys, values, queries.size(1))
    length, head_dim = queries.shape[2:]
    future = torch.full((length, length), -torch.inf).triu(1)
    scores = torch.add(future, queries @ keys.mT, alpha=head_dim**-0.5)  # fp32, because `future` is
    return F.softmax(scores, dim=-1).to(values.dtype) @ values


def _repeated(keys: Tensor, values: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Returns keys and values with one of each for every query head."""
    each = heads // keys.size(1)
    return (keys.repeat_interleave(each, dim=1), values.repeat_interleave(each, dim=1)) if each > 1 else (keys, values)


class Attention(nn.Module):
    """Self-attention of one layer, with an optional norm on each head of queries and keys.

    The number of heads is read from the projections' outputs, so a tensor-parallel rank may hold only some of them.
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
        """Maps `x` `[B, T, width]` to the same shape; `cos` and `sin` as in `rotate`."""
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
    """Attention and feed-forward, each after a norm, and each added to the residual stream.

    With `checkpointing`, the backward pass keeps only the layer's input and computes the rest again.
    """

    def __init__(self, arch: Architecture, layer: int):
        super().__init__()
        self.checkpointing = False
        self.input_layernorm = RMSNorm(arch.width, arch.norm_eps)
        self.self_attn = Attention(arch, layer)
        self.post_attention_layernorm = RMSNorm(arch.width, arch.norm_eps)
        self.mlp = SwiGLU(arch)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Mask, cache: KVCache | None = None) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():  # inside the layer, so that wrappers which shard the layer stay outside
            recomputed: Tensor = checkpoint(self._add, x, cos, sin, mask, cache, use_reentrant=False, preserve_rng_state=False)
            return recomputed
        return self._add(x, cos, sin, mask, cache)

    def _add(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Mask, cache: KVCache | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class LlamaModel(nn.Module):
    """Maps ids to the hidden states before the output head.

    In a pipeline, a stage has some consecutive `layers`. Its `embed_tokens` is None unless it is the first stage (it then takes hidden
    states), and its `norm` is None unless it is the last (it then returns hidden states without the norm).
    """

    def __init__(self, arch: Architecture):
        super().__init__()
        self.arch = arch
        rows = torch.empty(arch.vocab_size, arch.width)
        if not rows.is_meta:  # there `nn.Embedding` would draw values, too, for which torch imports its compiler (two seconds)
            nn.init.normal_(rows)
        self.embed_tokens = nn.Embedding.from_pretrained(rows, freeze=False)
        self.layers = nn.ModuleDict({str(layer): Layer(arch, layer) for layer in range(arch.layers)})
        self.norm = RMSNorm(arch.width, arch.norm_eps)

    def forward(self, ids: Tensor, segments: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Returns hidden states `[B, T, width]` for ids `[B, T]` (in a later pipeline stage for hidden states); see `Llama.forward`."""
        past, length, first, starts = 0, ids.size(1), 0, document_starts(segments)
        begins = cache.starts if cache else []  # where each row begins
        if cache is not None:
            past, first = cache.length, cache.first
            starts = torch.tensor(begins, device=ids.device).unsqueeze(1) if any(begins) else None
        end = past + length
        if (longest := end - min(begins, default=0)) > self.arch.context:
            raise InputError(f"a sequence of {longest} tokens is longer than the model's context of {self.arch.context}.")
        ragged = cache is None or max(begins, default=0) > first  # else all keys are visible, and a mask would only cost time
        mask = visible(starts if ragged else None, past, length, self.arch.window, ids.device, first)
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
    """The language model. `model` gives the hidden states, `lm_head` turns them into logits."""

    def __init__(self, arch: Architecture):
        super().__init__()
        self.arch, self.compiled = arch, False
        self.model = LlamaModel(arch)
        self.lm_head = nn.Linear(arch.width, arch.vocab_size, bias=False)
        self.tie()

    def switch(self, *, checkpointing: bool = False, compiled: bool = False) -> None:
        """Switches activation checkpointing of the layers, and compilation of the layers, the last norm and the loss.

        One layer's compiled code serves all layers, whether or not the model is sharded or cut into stages.
        """
        begins = compiled and not self.compiled  # a model that is compiled already keeps its code
        self.compiled = compiled
        if compiled:  # one code has variants for masks, evaluations, fixed and changing shapes; above the limit it would run as it is
            torch.compiler.config.recompile_limit = 64
        layer: Any
        for layer in self.model.layers.values():
            layer.checkpointing = checkpointing
        for module in (*self.model.layers.values(), self.model.norm) if begins else ():
            if module is not None:
                module.compile()

    def tie(self) -> None:
        """Makes a tied head share the embedding's weights. Needed again after `to_empty` has replaced both."""
        if self.arch.tied and self.lm_head is not None and self.model.embed_tokens is not None:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(
        self, ids: Tensor, segments: Tensor | None = None, cache: KVCache | None = None, targets: Tensor | None = None,
        places: Tensor | None = None, summed: bool = False,
    ) -> Tensor:  # fmt: skip
        """Returns logits `[B, T, vocab]` for ids `[B, T]`; a pipeline stage without a head (None) returns hidden states.

        With `targets` `[B, T]` it returns `target_nats`: the nats of the targets that count, or their sum. All logits of a batch need not
        exist for that.

        `segments` `[B, T]` (integers that change where a document begins) keep attention and positions within each document; without them
        a row is one document. Rows may be padded on the right, as no token sees later ones. With a `cache`, whose rows are one document
        each, the ids follow the cached ones and are added to it. Raises InputError beyond the context.
        """
        hidden = self.model(ids, segments, cache)
        if self.lm_head is None:
            return hidden
        return self.lm_head(hidden) if targets is None else target_nats(self.lm_head, hidden, targets, places, summed, self.compiled)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def new_cache(self, longest: int | None = None) -> KVCache:
        """Returns an empty cache for sequences of at most `longest` tokens (default: the context)."""
        return KVCache(longest or self.arch.context, self.arch.window)


# ---- initial weights ---------------------------------------------------------------------------------


def blank_model(arch: Architecture) -> Llama:
    """Returns a model without storage, which can be cut, spread and sharded before it is filled."""
    with torch.device("meta"):
        return Llama(arch)


def fill(model: Llama, seed: int, device: torch.device | str) -> None:
    """Gives a blank model, or this rank's part of it, storage and initial weights."""
    model.to_empty(device=device)
    model.tie()
    initialise(model, seed)


def initialise(model: Llama, seed: int) -> None:
    """Sets the initial weights, in place. They depend only on the seed and the weight's name: equal on every machine, in every type, and in
    a part of the model as in the whole.

    Projections into the residual stream and the head begin at zero, so the first loss is ln(vocabulary) and every layer begins as the
    identity (as in modded-nanogpt). A tied head can't be zero; it begins like GPT-2's embedding.
    """
    weight: Any
    for name, weight in model.named_parameters():
        values = torch.ones(weight.shape)
        if name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight")):
            values.zero_()
        elif len(weight.shape) == 2:
            embeds = name.endswith("embed_tokens.weight")
            deviation = (0.02 if model.arch.tied else 0.5) if embeds else (3 * weight.shape[1]) ** -0.5
            values.normal_(0.0, deviation, generator=named_generator(name, seed))
        if hasattr(weight, "placements"):  # a DTensor, whose module takes half a second to import
            from torch.distributed.tensor import distribute_tensor

            # every rank draws the whole weight and keeps its shard
            values = distribute_tensor(values.to(weight.device), weight.device_mesh, weight.placements, src_data_rank=None)
        weight.data.copy_(values)


def named_generator(name: str, seed: int) -> torch.Generator:
    """Returns the generator that draws the initial values of the weight of this name."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


# ---- the loss of next tokens -------------------------------------------------------------------------
#
# The negative log-likelihood of targets, always in fp32 at least.


def token_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns `[B, T]`: nats of targets `[B, T]` under logits `[B, T, vocab]`, fp32 (float64 for float64 logits); 0 for IGNORED targets."""
    nats: Any = F.cross_entropy(_wide(logits).flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
    whole = nats.full_tensor() if hasattr(nats, "placements") else nats  # plain, and whole on every rank of a tensor group
    return whole.view_as(targets)


# Of hidden states: the head's logits are the largest values of a step, so they exist only for the targets that count, and where they are
# many, or on a GPU, only for some rows at a time.
#
# torch 2.13 has `F.linear_cross_entropy` with options for chunks. It can't serve here: it returns its value in the input's type (in bf16 up
# to 0.2% off), and it does not compile.

#: Logits that exist at once, in fp32 512 MiB.
LOGITS = 2**27
#: By kind of device: the head's matrix is filled up to a multiple of so many rows, as kernels are slow for other sizes.
MULTIPLE = {"cuda": 128}


def target_nats(
    head: nn.Linear, hidden: Tensor, targets: Tensor, places: Tensor | None = None, summed: bool = False, compiled: bool = False
) -> Tensor:
    """Returns nats `[n]` of the targets `[B, T]` that count, in order of rows and places, from hidden states `[B, T, width]`; or their sum.

    `places` are those of `counted_places`. Without them a GPU is asked for them, and the step waits; a sum needs none. Where a tensor group
    shares out the positions, the head computes all of them, as each rank has only part of each row.
    """
    if places is None and not summed:
        places = counted_places(targets)
    if hasattr(hidden, "placements"):
        nats = _nats_by_rows(head, hidden, targets).flatten()
        nats = nats if places is None else nats.index_select(0, places)
        return nats.sum() if summed else nats
    hidden, targets = hidden.flatten(0, 1), targets.flatten()
    rows = len(targets)
    if places is not None:
        hidden, targets = hidden.index_select(0, places), targets.index_select(0, places)
    if hidden.device.type == "cuda" or (rows if summed else len(targets)) * head.out_features > LOGITS:
        return linear_nats(head, hidden, targets, summed=summed, compiled=compiled)
    nats = F.cross_entropy(_wide(head(hidden)), targets, ignore_index=IGNORED, reduction="none")
    return nats.sum() if summed else nats


def _nats_by_rows(head: nn.Linear, hidden: Tensor, targets: Tensor) -> Tensor:
    """Returns nats `[B, T]` where a tensor group shares out positions and vocabulary: no more than LOGITS logits of whole rows exist at
    once, or those of one row, and the backward pass computes them again."""

    def nats(some: Tensor, wanted: Tensor) -> Tensor:
        return token_nats(head(some), wanted)

    rows = max(1, LOGITS // (targets.size(1) * head.out_features))
    if rows >= len(targets):
        return nats(hidden, targets)
    pieces = zip(hidden.split(rows), targets.split(rows))
    return torch.cat([checkpoint(nats, *piece, use_reentrant=False, preserve_rng_state=False) for piece in pieces])


def linear_nats(head: nn.Linear, hidden: Tensor, targets: Tensor, *, summed: bool = False, compiled: bool = False) -> Tensor:
    """Returns nats `[n]` of targets `[n]` (0 for IGNORED ones) from hidden states `[n, width]`, or their sum.

    No more than LOGITS logits exist at once (Liger Kernel, https://arxiv.org/abs/2410.10989, and Cut Your Losses, 2411.09009): a sum takes
    the gradient together with the value, single nats compute their logits again in the backward pass. Exponentials and sums are in fp32 at
    least. No softmax sees the rows by which the matrix is filled up (MULTIPLE).
    """
    weight, vocabulary, kind = head.weight, head.out_features, hidden.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    if extra := -vocabulary % MULTIPLE.get(kind, 1):
        weight = F.pad(weight, (0, 0, 0, extra))
    with torch.autocast(kind, enabled=False):
        at_once = summed and torch.is_grad_enabled()
        nats: Tensor = _LinearNats.apply(hidden, weight, targets, vocabulary, at_once, compiled)
    return nats if at_once or not summed else nats.sum()


class _LinearNats(torch.autograd.Function):
    """The function behind `linear_nats`. `at_once`: returns the sum, and takes the gradient in the forward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, vocabulary: int, at_once: bool, compiled: bool) -> Tensor:
        ctx.at_once, ctx.options = at_once, (vocabulary, compiled)
        needed = ctx.needs_input_grad[:2] if at_once else (False, False)
        scale = torch.ones(targets.shape, dtype=_wide(hidden[:0]).dtype, device=hidden.device)
        nats, *grads = _by_chunks(hidden, weight, targets, scale, needed, *ctx.options)
        ctx.save_for_backward(*(grads if at_once else (hidden, weight, targets)))
        return nats.sum() if at_once else nats

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.at_once:
            grads = [None if grad is None else grad * gradient.to(grad.dtype) for grad in ctx.saved_tensors]
        else:
            hidden, weight, targets = ctx.saved_tensors
            _, *grads = _by_chunks(hidden, weight, targets, gradient, ctx.needs_input_grad[:2], *ctx.options)
        return *grads, None, None, None, None


def _by_chunks(
    hidden: Tensor, weight: Tensor, targets: Tensor, scale: Tensor, needed: tuple[bool, bool], vocabulary: int, compiled: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Returns nats `[n]`, and those gradients of hidden states and weight that are `needed`, of the sum of `scale` `[n]` times the nats."""
    value, gradient = (fused(_value), fused(_gradient)) if compiled else (_value, _gradient)
    nats, of_hidden, of_weight = list[Tensor](), list[Tensor](), torch.zeros_like(weight, dtype=scale.dtype) if needed[1] else None
    for some, wanted, each in zip(*(tensor.split(max(1, LOGITS // len(weight))) for tensor in (hidden, targets, scale))):
        logits = some @ weight.mT
        found, normaliser = value(logits, wanted, vocabulary)
        nats.append(found)
        if any(needed):
            logits = gradient(logits, normaliser, wanted, each, vocabulary)
        if needed[0]:
            of_hidden.append(logits @ weight)
        if of_weight is not None:
            of_weight += logits.mT @ some
    return torch.cat(nats), torch.cat(of_hidden) if needed[0] else None, None if of_weight is None else of_weight.to(weight.dtype)


def _value(logits: Tensor, targets: Tensor, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Returns the nats and the log-sum-exp `[n]` of logits `[n, rows of the matrix]`."""
    wide = _wide(logits)[:, :vocabulary]
    normaliser = wide.logsumexp(-1)
    nats = normaliser - wide.gather(1, targets.clamp(min=0).unsqueeze(1)).squeeze(1)
    return torch.where(targets == IGNORED, 0, nats), normaliser


def _gradient(logits: Tensor, normaliser: Tensor, targets: Tensor, scale: Tensor, vocabulary: int) -> Tensor:
    """Returns the gradient of `scale` `[n]` times the nats for logits `[n, rows of the matrix]`, in their type."""
    scale = torch.where(targets == IGNORED, 0, scale).unsqueeze(1)
    columns = torch.arange(logits.size(1), device=logits.device)
    found = (_wide(logits) - normaliser.unsqueeze(1)).exp_().mul_(scale)
    found = torch.where(columns == targets.unsqueeze(1), found - scale, found)
    if vocabulary < logits.size(1):
        found = torch.where(columns < vocabulary, found, 0)
    return found.to(logits.dtype)


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


# ---- objectives --------------------------------------------------------------------------------------
#
# By an objective the training loop asks for losses. Nothing is divided here: an objective returns a sum over the valid targets (pairs in
# alignment) of a micro-batch, and their count. `train/loop.py` divides the step's sum by the step's count over all micro-batches and ranks;
# `gradient_scale` (`train/parallel/`) undoes the averaging of gradients over ranks. So neither micro-batches nor ranks change what is
# minimised. The step number is the only state of the data, so a killed and restarted run takes the same steps with the same bits.


@dataclass
class StepLoss:
    """The loss of a micro-batch: `total`, the sum over its valid targets (pairs in alignment); `count`, their number; sums to log.

    `metrics` are sums, too: the log shows them divided by the step's count. `tokens` serves only to measure speed (0: same as `count`).
    Tensors are fetched from the device once a step.
    """

    total: Tensor
    count: int | Tensor
    metrics: Mapping[str, float | Tensor] = field(default_factory=dict)
    tokens: int | Tensor = 0


def step_totals(parts: Sequence[StepLoss], metrics: Sequence[str], device: torch.device) -> Tensor:
    """Adds up loss, count, tokens and metrics of micro-batches: float64 `[3 + metrics]` on the device, without waiting for it."""
    sums = torch.zeros(3 + len(metrics), dtype=torch.float64, device=device)
    for p in parts:
        counted = p.count if isinstance(p.tokens, int) and not p.tokens else p.tokens
        values = [p.total.detach(), p.count, counted, *(p.metrics[name] for name in metrics)]
        sums += torch.stack([v.double() if isinstance(v, Tensor) else torch.full_like(sums[0], v) for v in values])
    return sums


class Objective:
    """What the loop trains on: by default next tokens, in batches of `(ids, targets, segments)`. `metrics` names the entries of every
    `StepLoss.metrics`; the names are the same on all ranks."""

    metrics: Sequence[str] = ()

    def batches(self, step: int, share: DataShare) -> Iterator[Any]:
        """Yields the micro-batches of this share of a step's rows, on the model's device; every share has the same number."""
        raise NotImplementedError

    def loss(self, model: Llama, batch: Any) -> StepLoss:
        ids, targets, segments = batch
        return StepLoss(model(ids, segments, targets=targets, summed=True), (targets != IGNORED).sum())
