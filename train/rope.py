"""Rotary position embedding in the half-split layout of Hugging Face: the pairs are (i, i + head_dim / 2).

Angles are computed in fp32 whatever the model's type is: bf16 can represent only 769 of the positions 0 to 4095.
"""

import torch
from torch import Tensor


def rotary_angles(positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each `[..., 1, T, head_dim / 2]` in `dtype`, for integer positions `[..., T]`."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64, device=positions.device).float() / head_dim
    angles = positions.float().unsqueeze(-1) * (1.0 / theta**exponents)
    return angles.cos().to(dtype).unsqueeze(-3), angles.sin().to(dtype).unsqueeze(-3)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`x` `[B, heads, T, head_dim]` turned by the angles of its positions."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def document_positions(segments: Tensor) -> Tensor:
    """Positions `[B, T]` that begin at 0 in each document; `segments` `[B, T]` changes where a document begins."""
    places = torch.arange(segments.size(1), device=segments.device).expand_as(segments)
    begins = torch.zeros_like(places)
    begins[:, 1:] = torch.where(segments[:, 1:] != segments[:, :-1], places[:, 1:], 0)
    return places - begins.cummax(dim=1).values


def document_mask(segments: Tensor) -> Tensor:
    """Boolean `[B, 1, T, T]`, true where a query may look: backwards, in its own document."""
    same = segments.unsqueeze(2) == segments.unsqueeze(1)
    return same.tril().unsqueeze(1)
