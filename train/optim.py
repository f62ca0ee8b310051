"""The optimisers: learning rates, AdamW, Muon, the `Optimizer` over both, and ZeRO-1 over several ranks."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim.adamw import adamw

from corpusmill.train.options import OptimizerConfig, Schedule
from corpusmill.train.parallel.dims import ParallelDims, gradient_of, is_sharded, like, local_of

# ---- learning rates ----------------------------------------------------------------------------------
#
# Learning rates are given as fractions of the peak.


def lr_fraction(step: int, config: Schedule) -> float:
    """Returns the fraction at `step` (0, 1, ...): linear warm-up, then cosine, linear, constant, or constant with a decay at the end
    (`wsd`).

    Warm-up is nanoGPT's (step + 1) / (warmup + 1), so no step is lost at rate 0. The decay of `wsd` is linear, or 1 - sqrt(part done)
    (Haegele et al. 2024, https://arxiv.org/abs/2405.18392).
    """
    if step < config.warmup:
        return (step + 1) / (config.warmup + 1)
    if config.schedule == "constant":
        return 1.0
    begin = config.fall
    done = min(max((step - begin) / max(config.steps - begin, 1), 0.0), 1.0)
    if config.schedule == "cosine":
        left = 0.5 * (1 + math.cos(math.pi * done))
    else:
        left = 1 - math.sqrt(done) if (config.schedule, config.decay) == ("wsd", "1-sqrt") else 1 - done
    return config.min_lr + (1 - config.min_lr) * left


# ---- AdamW -------------------------------------------------------------------------------------------
#
# Calls torch's fused kernel directly: `torch.optim.Optimizer` would import the compiler (1.5 seconds) before the first step.


class AdamW:
    """AdamW with decoupled weight decay (https://arxiv.org/abs/1711.05101) on `decayed`, and none on `others`."""

    def __init__(self, decayed: Sequence[Tensor], others: Sequence[Tensor], config: OptimizerConfig):
        self.groups, self.config = ((list(decayed), config.weight_decay), (list(others), 0.0)), config
        self.moments: dict[Tensor, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Updates all parameters that have a gradient."""
        for params, decay in self.groups:
            moving = [p for p in params if p.grad is not None]
            states = [self.state_of(p) for p in moving]
            averages, squares, steps = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
            if moving:
                adamw(
                    moving, [p.grad for p in moving if p.grad is not None], averages, squares, [], steps, fused=True, amsgrad=False,
                    beta1=self.config.betas[0], beta2=self.config.betas[1], lr=lr, weight_decay=decay, eps=self.config.eps, maximize=False,
                )  # fmt: skip

    def state_of(self, p: Tensor) -> dict[str, Tensor]:
        """Returns a parameter's moments and step counter, which are made at the first call."""
        if p not in self.moments:
            names = ("exp_avg", "exp_avg_sq")
            count = torch.zeros((), dtype=torch.float32, device=p.device)
            self.moments[p] = {"step": count, **{name: torch.zeros_like(p) for name in names}}
        return self.moments[p]


# ---- Muon --------------------------------------------------------------------------------------------
#
# Momentum with orthogonalised updates, for the matrices inside the layers (https://kellerjordan.github.io/posts/muon).

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Keller Jordan's quintic: steep at 0, close to 1 over (0.3, 1.2)
#: Elements that are orthogonalised at once. Many small matrices are faster together; a few large ones need much memory.
AT_ONCE = 2**26


def orthogonalize(matrices: Tensor, steps: int = 5, bf16: bool = False) -> Tensor:
    """Returns roughly the nearest (semi-)orthogonal matrices of a stack `[n, rows, columns]`, by Newton-Schulz in its own type or bf16."""
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
    """Orthogonalises a stack, which may be sharded: then ranks exchange shards so that each has some whole matrices, which it alone
    computes, and exchange the results (as in https://arxiv.org/abs/2502.16982)."""
    if not is_sharded(stack):
        return orthogonalize(stack, bf16=bf16)
    from torch.distributed.tensor import DTensor, Shard  # takes half a second

    mesh, matrices = stack.device_mesh, [Shard(0)] * stack.device_mesh.ndim
    mine = orthogonalize(stack.redistribute(placements=matrices).to_local(), bf16=bf16)
    shared = DTensor.from_local(mine, mesh, matrices, run_check=False, shape=stack.shape, stride=stack.stride())
    return shared.redistribute(placements=stack.placements)


class Muon:
    """Muon for a list of matrices. Those of one shape are orthogonalised together; of sharded ones (DTensors) each rank takes some."""

    def __init__(self, params: Iterable[Tensor], momentum: float, weight_decay: float, bf16: bool = False):
        self.params, self.momentum, self.weight_decay, self.bf16 = list(params), momentum, weight_decay, bf16
        self.buffers: dict[Tensor, Tensor] = {}

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Updates all parameters that have a gradient."""
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
        """Returns the momentum of a parameter, or of this rank's shard of it."""
        if p not in self.buffers:
            self.buffers[p] = torch.zeros_like(local_of(p))
        return {"momentum": self.buffers[p]}


# ---- both together -----------------------------------------------------------------------------------
#
# AdamW for all parameters, or Muon for the matrices inside the layers and AdamW for the rest. Both work on shards as on whole parameters.


class Optimizer:
    """One or two optimisers over named parameters; their state is named after the parameters."""

    def __init__(self, parameters: Mapping[str, Tensor], config: OptimizerConfig):
        self.parameters = dict(parameters)
        hidden = {name: p for name, p in parameters.items() if p.dim() == 2 and ".layers." in name and config.kind == "muon"}
        self.shards = {name: local_of(p) for name, p in parameters.items() if name not in hidden}  # the parameters of AdamW
        self.parts: list[tuple[AdamW | Muon, float]] = []
        if self.shards:  # a pipeline's rank may have only matrices
            decay, plain = ([p for name, p in self.shards.items() if (parameters[name].dim() >= 2) == wanted] for wanted in (True, False))
            self.parts.append((AdamW(decay, plain, config), config.lr))
        if hidden:
            bf16 = fast_bf16(next(iter(hidden.values())).device)
            self.parts.append((Muon(hidden.values(), config.momentum, config.weight_decay, bf16), config.muon_lr))

    def step(self, lr_fraction: float) -> None:
        """Makes one update at this fraction of the peak learning rates."""
        for name, shard in self.shards.items():
            p = self.parameters[name]
            if shard is not p:
                shard.grad = None if p.grad is None else gradient_of(p)
        for part, peak in self.parts:
            part.step(peak * lr_fraction)

    def zero_grad(self) -> None:
        for p in (*self.parameters.values(), *self.shards.values()):
            p.grad = None

    def state(self) -> dict[str, Tensor]:
        """Returns every moment and step counter as `parameter name/key`, laid out like its parameter. Missing ones are made, so that a
        saved state can be copied into them."""
        return {f"{name}/{key}": like(value, p) for name, p in self.parameters.items() for key, value in self._state_of(name).items()}

    def _state_of(self, name: str) -> dict[str, Tensor]:
        adamw = name in self.shards  # AdamW is the first part, where there is one; Muon is the last
        return self.parts[0 if adamw else -1][0].state_of(self.shards[name] if adamw else self.parameters[name])


# ---- ZeRO-1 ------------------------------------------------------------------------------------------
#
# Every rank has a copy of the model, but moments for only some parameters, and updates those (https://arxiv.org/abs/1910.02054). Copies
# with Muon do the same, because each matrix is then orthogonalised once.


def owners(parameters: Mapping[str, Tensor], ranks: int) -> dict[str, int]:
    """Assigns each parameter to the rank that updates it: the largest first, each to the rank with the smallest load so far."""
    loads, found = [0] * ranks, {}
    for name in sorted(parameters, key=lambda name: (-parameters[name].numel(), name)):
        found[name] = loads.index(min(loads))
        loads[found[name]] += parameters[name].numel()
    return found


class SharedOptimizer:
    """The optimiser (see `Optimizer`) of parameters that are equal on all ranks; each rank updates its own part."""

    def __init__(self, parameters: Mapping[str, Tensor], config: OptimizerConfig, dims: ParallelDims):
        self.parameters, self.ranks = parameters, dims.world
        self.owners = owners(parameters, dims.world)
        self.mine = Optimizer({name: p for name, p in parameters.items() if self.owners[name] == dims.rank}, config)

    @torch.no_grad()
    def step(self, lr_fraction: float) -> None:
        """Updates this rank's parameters, and sends every rank's parameters to the others."""
        self.mine.step(lr_fraction)
        for rank in range(self.ranks):
            theirs = [p for name, p in self.parameters.items() if self.owners[name] == rank]
            if theirs:
                flat = torch.cat([p.flatten() for p in theirs])
                dist.broadcast(flat, rank)
                torch._foreach_copy_(theirs, [part.view_as(p) for part, p in zip(flat.split([p.numel() for p in theirs]), theirs)])

    def zero_grad(self) -> None:
        for p in self.parameters.values():
            p.grad = None

    def state(self) -> dict[str, Tensor]:
        """Returns the moments of this rank's parameters."""
        return self.mine.state()
