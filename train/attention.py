"""Causal self-attention with grouped queries."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention

from corpusmill.train.architecture import Architecture
from corpusmill.train.kv_cache import KVCache
from corpusmill.train.norm import RMSNorm
from corpusmill.train.rope import rotate
from corpusmill.train.visibility import Mask, fused

#: Rows up to this length are attended to by plain products where a CPU computes in bf16: torch's own kernel is quick in fp32 alone, and
#: takes three times as long for 64 tokens, twice as long for 512.
PLAIN = 512


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Mask) -> Tensor:
    """softmax(QK' / sqrt(head_dim)) V, `[B, heads, T, head_dim]`, for `mask` see `visibility.py` (None is causal).

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
        """`x` `[B, T, width]` to the same; `cos` and `sin` as in `rope.rotate`."""
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
