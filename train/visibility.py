"""Which keys a query may see: those before it, from the first of its own document and of its window on.

What attention gets is None where that is plain causality, for which the kernels need no mask; a boolean mask for
`scaled_dot_product_attention`; or on a GPU the block mask of flex_attention, which skips blocks in which nothing is seen.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

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
