"""AdamW for everything, or Muon for the matrices inside the layers with AdamW for the rest."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

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


def _orthogonalized(stack: Tensor) -> Tensor:
    if not hasattr(stack, "placements"):
        return orthogonalize(stack)
    from corpusmill.train.parallel.matrices import by_matrix  # takes half a second

    return by_matrix(orthogonalize, stack)  # type: ignore[arg-type]


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised (https://kellerjordan.github.io/posts/muon), matrices of a shape at once."""

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float, weight_decay: float):
        super().__init__(list(params), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            alike: dict[Any, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault((p.shape, getattr(p, "placements", None)), []).append(p)
            for (shape, _), params in alike.items():
                grads = [p.grad for p in params if p.grad is not None]
                buffers = [self.buffer(p) for p in params]
                torch._foreach_lerp_(buffers, grads, 1 - group["momentum"])
                updates = _orthogonalized(torch.stack(torch._foreach_lerp(grads, buffers, group["momentum"])))
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                torch._foreach_add_(params, list(updates.unbind(0)), alpha=-group["lr"] * scale)

    def buffer(self, p: Tensor) -> Tensor:
        """The momentum of a parameter."""
        state = self.state[p]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(p)
        buffer: Tensor = state["momentum"]
        return buffer


class Optimizer:
    """One or two torch optimisers over named parameters, with their state by parameter name."""

    def __init__(self, parameters: Mapping[str, Tensor], config: OptimizerConfig):
        self.parameters = dict(parameters)
        hidden = {name for name, p in parameters.items() if p.dim() == 2 and ".layers." in name} if config.kind == "muon" else set()
        rest = {name: p for name, p in parameters.items() if name not in hidden}
        self.parts: list[tuple[torch.optim.Optimizer, float]] = []
        groups = [
            {"params": [p for p in rest.values() if p.dim() >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in rest.values() if p.dim() < 2], "weight_decay": 0.0},
        ]
        adamw = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
        self.parts.append((adamw, config.lr))
        if hidden:
            muon = Muon([parameters[name] for name in parameters if name in hidden], config.muon_lr, config.momentum, config.weight_decay)
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

    def state(self) -> dict[str, Tensor]:
        """Every moment and step counter as `parameter name/key`; those of a parameter that has not moved yet are made, so that a saved
        state can be copied into them."""
        found = {}
        for name, p in self.parameters.items():
            for key, value in self._state_of(p).items():
                found[f"{name}/{key}"] = value
        return found

    def _state_of(self, p: Tensor) -> dict[str, Tensor]:
        optimizer = next(part for part, _ in self.parts for group in part.param_groups if any(q is p for q in group["params"]))
        state: dict[str, Tensor] = optimizer.state[p]
        if not state and isinstance(optimizer, Muon):
            optimizer.buffer(p)
        elif not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
        return state
