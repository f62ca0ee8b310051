"""RMSNorm (https://arxiv.org/abs/1910.07467) as Llama computes it."""

from typing import Any

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
        if x.device.type == "cpu" and x.dtype != torch.float64 and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            normed: Tensor = _OnCPU.apply(x, self.weight, self.eps)
            return normed
        return rms_norm(x, self.weight, self.eps)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The same as a function."""
    wide = x.float() if x.dtype == torch.float64 else x
    return weight * F.rms_norm(wide, x.shape[-1:], None, eps).to(x.dtype)


class _OnCPU(torch.autograd.Function):
    """The same bits with the gradient written out: half the work of what PyTorch derives on a CPU, where it has no kernel for it.

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
