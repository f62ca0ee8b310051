"""RMSNorm (https://arxiv.org/abs/1910.07467) as Llama computes it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension: the division in fp32, its result rounded to the type of `x`, then the weight.

    `F.rms_norm` with a weight would multiply before it rounds, and would divide float64 in float64; `transformers` does neither.
    """

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float() if x.dtype == torch.float64 else x
        return self.weight * F.rms_norm(wide, x.shape[-1:], None, self.eps).to(x.dtype)
