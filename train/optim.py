"""The optimisers: learning rates, AdamW, Muon, both behind one `Optimizer`, and ZeRO-1 over several ranks."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim.adamw import adamw

from corpusmill.train.options import LoopConfig, OptimizerConfig
from corpusmill.train.parallel.dims import ParallelDims, gradient_of, is_sharded, like, local_of

# ---- learning rates ----------------------------------------------------------------------------------
#
# As a fraction of the peak.


def lr_fraction(step: int, config: LoopConfig) -> float:
    """The fraction at `step` (0, 1, ...): linear warm-up, then cosine, linear, or constant with an end (`wsd`).

    Warm-up is nanoGPT's (step + 1) / (warmup + 1), so no step is lost at rate 0. The end of `wsd` is a line, or
    1 - sqrt(part done) (Haegele et al. 2024, https://arxiv.org/abs/2405.18392).
    """
    if step < config.warmup:
        return (step + 1) / (config.warmup + 1)
    begin = config.warmup
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "wsd":
        begin = max(begin, config.steps - round(config.decay_fraction * config.steps))
    done = min(max((step - begin) / max(config.steps - begin, 1), 0.0), 1.0)
    if config.schedule == "cosine":
        left = 0.5 * (1 + math.cos(math.pi * done))
    else:
        left = 1 - math.sqrt(done) if (config.schedule, config.decay) == ("wsd", "1-sqrt") else 1 - done
    return config.min_lr + (1 - config.min_lr) * left


# ---- AdamW -------------------------------------------------------------------------------------------
#
# torch's fused kernel without `torch.optim.Optimizer` around it, which imports the compiler (1.5 seconds) before the first step.


class AdamW:
    """Decoupled weight decay (https://arxiv.org/abs/1711.05101) for `decayed`, none for `others`."""

    def __init__(self, decayed: Sequence[Tensor], others: Sequence[Tensor], config: OptimizerConfig):
        self.groups, self.config = ((list(decayed), config.weight_decay), (list(others), 0.0)), config
        self.moments: dict[Tensor, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update of all that has a gradient."""
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
        """Its moments and its count of steps."""
        if p not in self.moments:
            names = ("exp_avg", "exp_avg_sq")
            count = torch.zeros((), dtype=torch.float32, device=p.device)
            self.moments[p] = {"step": count, **{name: torch.zeros_like(p) for name in names}}
        return self.moments[p]


def by_matrix(function: Callable[[Tensor], Tensor], stack: Any) -> Tensor:
    """`function` of a sharded stack of matrices `[n, rows, columns]`, which it treats one by one.

    Ranks exchange shards, so that each has some of the matrices whole and no other computes those; then they exchange the results (as in
    https://arxiv.org/abs/2502.16982).
    """
    from torch.distributed.tensor import DTensor, Shard  # takes half a second

    mesh, matrices = stack.device_mesh, [Shard(0)] * stack.device_mesh.ndim
    mine = function(stack.redistribute(placements=matrices).to_local())
    shared = DTensor.from_local(mine, mesh, matrices, run_check=False, shape=stack.shape, stride=stack.stride())
    return shared.redistribute(placements=stack.placements)


# ---- Muon --------------------------------------------------------------------------------------------
#
# Momentum whose update is orthogonalised, for the matrices inside the layers (https://kellerjordan.github.io/posts/muon).

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


# ---- both together -----------------------------------------------------------------------------------
#
# AdamW for everything, or Muon for the matrices inside the layers with AdamW for the rest; on shards as on whole parameters.


class Optimizer:
    """One or two optimisers over named parameters, with their state by parameter name."""

    def __init__(self, parameters: Mapping[str, Tensor], config: OptimizerConfig):
        self.parameters = dict(parameters)
        hidden = {name: p for name, p in parameters.items() if p.dim() == 2 and ".layers." in name and config.kind == "muon"}
        self.shards = {name: local_of(p) for name, p in parameters.items() if name not in hidden}  # what AdamW has
        self.parts: list[tuple[AdamW | Muon, float]] = []
        if self.shards:  # a rank of a pipeline may have nothing but matrices
            decay, plain = ([p for name, p in self.shards.items() if (parameters[name].dim() >= 2) == wanted] for wanted in (True, False))
            self.parts.append((AdamW(decay, plain, config), config.lr))
        if hidden:
            auto = config.newton_schulz == "auto" and fast_bf16(next(iter(hidden.values())).device)
            muon = Muon(hidden.values(), config.momentum, config.weight_decay, auto or config.newton_schulz == "bf16")
            self.parts.append((muon, config.muon_lr))

    def step(self, lr_fraction: float) -> None:
        """One update at this fraction of the peak learning rates."""
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
        """Every moment and step counter as `parameter name/key`, spread like its parameter; those of a parameter that has not moved yet
        are made, so that a saved state can be copied into them."""
        return {f"{name}/{key}": like(value, p) for name, p in self.parameters.items() for key, value in self._state_of(name).items()}

    def _state_of(self, name: str) -> dict[str, Tensor]:
        adamw = name in self.shards  # the first part, where there is one; matrices belong to the last
        return self.parts[0 if adamw else -1][0].state_of(self.shards[name] if adamw else self.parameters[name])


# ---- ZeRO-1 ------------------------------------------------------------------------------------------
#
# Copies of a model, of which each rank has the moments of some parameters and updates those (https://arxiv.org/abs/1910.02054).


def owners(parameters: Mapping[str, Tensor], ranks: int) -> dict[str, int]:
    """Which rank updates which parameter: the largest first, each to the rank that has least so far."""
    loads, found = [0] * ranks, {}
    for name in sorted(parameters, key=lambda name: (-parameters[name].numel(), name)):
        found[name] = loads.index(min(loads))
        loads[found[name]] += parameters[name].numel()
    return found


class SharedOptimizer:
    """The optimiser of parameters that are the same on all ranks of `shard`; see `Optimizer`."""

    def __init__(self, parameters: Mapping[str, Tensor], config: OptimizerConfig, dims: ParallelDims):
        self.parameters, self.mesh = parameters, dims.submesh("shard")
        self.owners = owners(parameters, dims.config.shard)
        me = dims.index("shard")
        self.mine = Optimizer({name: p for name, p in parameters.items() if self.owners[name] == me}, config)

    @torch.no_grad()
    def step(self, lr_fraction: float) -> None:
        """Each rank updates its parameters and sends them to the others."""
        self.mine.step(lr_fraction)
        if self.mesh is None:
            return
        for rank in range(self.mesh.size()):
            theirs = [p for name, p in self.parameters.items() if self.owners[name] == rank]
            if theirs:
                flat = torch.cat([p.flatten() for p in theirs])
                dist.broadcast(flat, group=self.mesh.get_group(), group_src=rank)
                torch._foreach_copy_(theirs, [part.view_as(p) for part, p in zip(flat.split([p.numel() for p in theirs]), theirs)])

    def zero_grad(self) -> None:
        for p in self.parameters.values():
            p.grad = None

    def state(self) -> dict[str, Tensor]:
        """The moments that this rank has."""
        return self.mine.state()
