"""Muon: momentum whose update is orthogonalised, for the matrices inside the layers (https://kellerjordan.github.io/posts/muon)."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from corpusmill.train.shards import gradient_of, is_sharded, like, local_of

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Keller Jordan's quintic: steep at 0, close to 1 over (0.3, 1.2)
#: Elements that are orthogonalised at once: many small matrices are faster together, and a few large ones take memory.
AT_ONCE = 2**26


def orthogonalize(matrices: Tensor, steps: int = 5, bf16: bool = False) -> Tensor:
    """The nearest (semi-)orthogonal matrices, roughly, for a stack `[n, rows, columns]`, by Newton-Schulz in its own type or in bf16."""
    a, b, c = NEWTON_SCHULZ
    flip = matrices.size(1) > matrices.size(2)
    x = matrices.mT if flip else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    x = x.bfloat16() if bf16 else x
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.mT if flip else x
    return x.to(matrices.dtype)


def fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies matrices faster in bf16 than in fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def _orthogonalized(stack: Any, bf16: bool) -> Any:
    if not is_sharded(stack):
        return orthogonalize(stack, bf16=bf16)
    from corpusmill.train.parallel.matrices import by_matrix  # takes half a second

    return by_matrix(partial(orthogonalize, bf16=bf16), stack)


class Muon:
    """Matrices of a shape are orthogonalised together; where they are sharded (DTensors), each rank takes some of them."""

    def __init__(self, params: Iterable[Tensor], momentum: float, weight_decay: float, bf16: bool = False):
        self.params, self.momentum, self.weight_decay, self.bf16 = list(params), momentum, weight_decay, bf16
        self.buffers: dict[Tensor, Tensor] = {}

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update of all that has a gradient."""
        alike: dict[Any, list[Tensor]] = {}
        for p in self.params:
            if p.grad is not None:
                alike.setdefault((p.shape, getattr(p, "placements", None)), []).append(p)
        for params in alike.values():
            at_once = max(1, AT_ONCE // params[0].numel())
            for begin in range(0, len(params), at_once):
                self._update(params[begin : begin + at_once], lr)

    def _update(self, params: list[Tensor], lr: float) -> None:
        locals_ = [local_of(p) for p in params]
        grads, buffers = [gradient_of(p) for p in params], [self.state_of(p)["momentum"] for p in params]
        torch._foreach_lerp_(buffers, grads, 1 - self.momentum)
        nesterov = torch._foreach_lerp(grads, buffers, self.momentum)
        stack = torch.stack([like(update, p) for update, p in zip(nesterov, params)])
        updates = _orthogonalized(stack, self.bf16 and stack.dtype == torch.float32).unbind(0)
        torch._foreach_mul_(locals_, 1 - lr * self.weight_decay)
        rows, columns = params[0].shape
        scale = max(1.0, rows / columns) ** 0.5
        torch._foreach_add_(locals_, [local_of(update) for update in updates], alpha=-lr * scale)

    def state_of(self, p: Tensor) -> dict[str, Tensor]:
        """The momentum of a parameter, or of this rank's shard of it."""
        if p not in self.buffers:
            self.buffers[p] = torch.zeros_like(local_of(p))
        return {"momentum": self.buffers[p]}
