"""Which keys a query may see: those before it, in its own document, within the window.

What attention gets is None where that is plain causality, for which the kernels need no mask; a boolean mask for
`scaled_dot_product_attention`; or on a GPU the block mask of flex_attention, which skips blocks in which nothing is seen.
"""

from typing import TYPE_CHECKING, Union

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

Mask = Union[Tensor, "BlockMask", None]


def several_documents(segments: Tensor | None) -> Tensor | None:
    """`segments` `[B, T]`, or None where every row is one document. On a GPU nobody looks, as the step would wait for it."""
    if segments is None or segments.device.type != "cpu" or torch.compiler.is_compiling():
        return segments
    return segments if bool((segments != segments[:, :1]).any()) else None


def document_positions(segments: Tensor) -> Tensor:
    """Positions `[B, T]` that begin at 0 in each document; `segments` `[B, T]` changes where a document begins."""
    places = torch.arange(segments.size(1), device=segments.device).expand_as(segments)
    begins = torch.zeros_like(places)
    begins[:, 1:] = torch.where(segments[:, 1:] != segments[:, :-1], places[:, 1:], 0)
    return places - begins.cummax(dim=1).values


def visible(segments: Tensor | None, past: int, length: int, window: int, device: torch.device) -> Mask:
    """The mask of `length` queries at positions from `past` on, over the keys from `first_key(past, window)` on."""
    narrow = 0 < window < past + length
    if segments is None and (length == 1 or not (past or narrow)):
        return None
    if device.type == "cuda" and not past:
        return block_mask(segments, length, window, device)
    return dense_mask(segments, past, length, window, device)


def first_key(past: int, window: int) -> int:
    """The earliest position that a query at position `past` sees."""
    return max(0, past + 1 - window) if window else 0


def dense_mask(segments: Tensor | None, past: int, length: int, window: int, device: torch.device) -> Tensor:
    """Boolean, true where a query may look: `[T, keys]`, with segments `[B, 1, T, keys]`."""
    queries = torch.arange(past, past + length, device=device).unsqueeze(1)
    keys = torch.arange(first_key(past, window), past + length, device=device)
    seen = keys <= queries
    if window:
        seen &= keys > queries - window
    if segments is None:
        return seen
    return (seen & (segments.unsqueeze(2) == segments.unsqueeze(1))).unsqueeze(1)


def block_mask(segments: Tensor | None, length: int, window: int, device: torch.device) -> "BlockMask":
    """The same for flex_attention. Tests compare it with the dense mask on the CPU; it has never run on a GPU here."""
    from torch.nn.attention.flex_attention import create_block_mask

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        see = key <= query
        if window:
            see = see & (key > query - window)
        if segments is not None:
            see = see & (segments[batch, query] == segments[batch, key])
        return see

    return create_block_mask(seen, None if segments is None else len(segments), None, length, length, device=device)
