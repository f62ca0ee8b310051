"""AdamW for everything, or Muon for the matrices inside the layers with AdamW for the rest."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from corpusmill.train.options import OptimizerConfig

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Keller Jordan's quintic: steep at 0, close to 1 over (0.3, 1.2)


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """The nearest (semi-)orthogonal matrices, roughly, for a stack `[n, rows, columns]`, by Newton-Schulz in its own type."""
    a, b, c = NEWTON_SCHULZ
    flip = matrices.size(1) > matrices.size(2)
    x = matrices.mT if flip else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if flip else x


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised (https://kellerjordan.github.io/posts/muon), matrices of a shape at once."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float):
        super().__init__(list(params), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    shapes.setdefault(p.shape, []).append(p)
            for shape, params in shapes.items():
                grads = [p.grad for p in params if p.grad is not None]
                buffers = [self._buffer(p) for p in params]
                torch._foreach_lerp_(buffers, grads, 1 - group["momentum"])
                updates = orthogonalize(torch.stack(torch._foreach_lerp(grads, buffers, group["momentum"])))
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                torch._foreach_add_(params, list(updates.unbind(0)), alpha=-group["lr"] * scale)

    def _buffer(self, p: Tensor) -> Tensor:
        state = self.state[p]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(p)
        buffer: Tensor = state["momentum"]
        return buffer


class Optimizer:
    """One or two torch optimisers over a model, with their state by parameter name."""

    def __init__(self, model: nn.Module, config: OptimizerConfig):
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.names: dict[Tensor, str] = {p: name for name, p in named.items()}
        hidden = {name for name, p in named.items() if p.dim() == 2 and ".layers." in name} if config.kind == "muon" else set()
        rest = {name: p for name, p in named.items() if name not in hidden}
        self.parts: list[tuple[torch.optim.Optimizer, float]] = []
        groups = [
            {"params": [p for p in rest.values() if p.dim() >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in rest.values() if p.dim() < 2], "weight_decay": 0.0},
        ]
        adamw = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
        self.parts.append((adamw, config.lr))
        if hidden:
            muon = Muon([named[name] for name in named if name in hidden], config.muon_lr, config.momentum, config.weight_decay)
            self.parts.append((muon, config.muon_lr))

    def step(self, lr_fraction: float) -> None:
        """One update at this fraction of the peak learning rates."""
        for optimizer, peak in self.parts:
            for group in optimizer.param_groups:
                group["lr"] = peak * lr_fraction
            optimizer.step()

    def zero_grad(self) -> None:
        for optimizer, _ in self.parts:
            optimizer.zero_grad(set_to_none=True)

    def state_tensors(self) -> dict[str, Tensor]:
        """Every moment and step counter as `parameter name/key`."""
        return {
            f"{self.names[p]}/{key}": value
            for optimizer, _ in self.parts
            for p, state in optimizer.state.items()
            for key, value in state.items()
        }

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Takes over what `state_tensors` gave."""
        by_name = {name: p for p, name in self.names.items()}
        owner = {p: optimizer for optimizer, _ in self.parts for group in optimizer.param_groups for p in group["params"]}
        for full, value in tensors.items():
            name, _, key = full.rpartition("/")
            p = by_name[name]
            owner[p].state[p][key] = value.clone() if key == "step" else value.to(p.device, copy=True)
