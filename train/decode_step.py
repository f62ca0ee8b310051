"""One more token in every row: what `Llama.forward` computes with a cache, without the modules around it.

With a token a row the operations are short, and on a CPU a small model's modules and reshaping take as long as they do. Values are the
forward's, in float64 to 1e-10 (tests/train/test_decode_step.py).
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from corpusmill.train.attention import Attention
from corpusmill.train.kv_cache import KVCache
from corpusmill.train.model import Decoder, Layer, Llama, SwiGLU
from corpusmill.train.norm import RMSNorm, rms_norm
from corpusmill.train.rope import rotary_table, rotate
from corpusmill.train.visibility import dense_mask

#: What a model is made of whose weights say all. Adapters, shards and the like compute otherwise than these, and so do hooks.
_KNOWN = (Llama, Decoder, nn.ModuleDict, Layer, Attention, SwiGLU, RMSNorm, nn.Linear, nn.Embedding)


class DecodeStep:
    """A model's weights, ready for a step. They are the model's own, so it may be trained on in between."""

    def __init__(self, model: Llama):
        self.model, self.arch = model, model.arch
        self.plain = all(type(part) in _KNOWN and not (part._forward_hooks or part._forward_pre_hooks) for part in model.modules())
        if self.plain:
            self.layers = [_weights(layer) for layer in model.model.layers.values()]

    def __call__(self, ids: Tensor, cache: KVCache) -> Tensor:
        """Logits `[B, vocab]` after `ids` `[B]`, which follow what each of the rows of `cache` holds; it takes them up."""
        if not self.plain:
            return self.model.lm_head(self.model.model(ids.unsqueeze(1), None, cache)[:, -1])
        arch, decoder, rows = self.arch, self.model.model, len(ids)
        x = F.embedding(ids, decoder.embed_tokens.weight)
        cos, sin = rotary_table(arch, x.device, x.dtype)
        starts, mask = cache.row_starts(ids.device), None
        if starts is None:
            cos, sin = cos[cache.length], sin[cache.length]
        else:
            positions = cache.length - starts.squeeze(1)
            cos, sin = (table[positions].view(rows, 1, 1, -1) for table in (cos, sin))
            mask = dense_mask(starts, cache.length, cache.first) if cache.ragged else None
        for number, (norm, query, key, value, query_norm, key_norm, out, second_norm, gate, up, down) in enumerate(self.layers):
            normed = rms_norm(x, norm, arch.norm_eps)
            queries, keys, values = (F.linear(normed, weight).view(rows, -1, 1, arch.head_dim) for weight in (query, key, value))
            if query_norm is not None:
                queries, keys = rms_norm(queries, query_norm, arch.norm_eps), rms_norm(keys, key_norm, arch.norm_eps)
            keys, values = cache.extend(number, rotate(keys, cos, sin), values)
            # the query heads that share keys take the place of positions
            queries = rotate(queries, cos, sin).view(rows, arch.kv_heads, -1, arch.head_dim)
            mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
            x = x + F.linear(mixed.reshape(rows, -1), out)
            normed = rms_norm(x, second_norm, arch.norm_eps)
            x = x + F.linear(F.silu(F.linear(normed, gate)) * F.linear(normed, up), down)
        cache.length += 1
        return F.linear(rms_norm(x, decoder.norm.weight, arch.norm_eps), self.model.lm_head.weight)


def _weights(layer: Any) -> tuple[Any, ...]:
    attention, mlp = layer.self_attn, layer.mlp
    parts = (layer.input_layernorm, attention.q_proj, attention.k_proj, attention.v_proj, attention.q_norm, attention.k_norm,
             attention.o_proj, layer.post_attention_layernorm, mlp.gate_proj, mlp.up_proj, mlp.down_proj)  # fmt: skip
    return tuple(None if part is None else part.weight for part in parts)
