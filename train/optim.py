"""Learning rates, and the optimiser: AdamW and Muon, on one rank or many."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim.adamw import adamw

from corpusmill.train.options import OptimizerConfig, Schedule
from corpusmill.train.parallel import ParallelDims, is_sharded, like, local_of

# ---- learning rates ----------------------------------------------------------------------------------
#
# Learning rates are given as fractions of the peak.


def lr_fraction(step: int, config: Schedule) -> float:
    """Returns the fraction at `step` (0, 1, ...): linear warm-up, then cosine, linear, constant, or constant until the last part (`wsd`).

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


# ---- orthogonal matrices -----------------------------------------------------------------------------

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


# ---- the optimiser -----------------------------------------------------------------------------------
#
# AdamW for all parameters, or Muon for the matrices inside the layers and AdamW for the rest. Both work on shards as on whole parameters.


class Optimizer:
    """AdamW with decoupled weight decay on matrices (https://arxiv.org/abs/1711.05101), or Muon, momentum with orthogonalised updates
    (https://kellerjordan.github.io/posts/muon), over named parameters.

    With `dims`, every rank has equal parameters, but moments for only some, and updates those (ZeRO-1, https://arxiv.org/abs/1910.02054).
    Copies with Muon do the same, because each matrix is then orthogonalised once. With `bf16`, Muon orthogonalises fp32 matrices in bf16.
    """

    def __init__(self, parameters: Mapping[str, Tensor], config: OptimizerConfig, dims: ParallelDims | None = None, bf16: bool = False):
        self.parameters, self.config, self.bf16 = dict(parameters), config, bf16
        self.owners = owners(parameters, dims.world) if dims else {}
        self.mine = {name: p for name, p in parameters.items() if not dims or self.owners[name] == dims.rank}
        hidden = {name for name, p in self.mine.items() if p.dim() == 2 and ".layers." in name and config.kind == "muon"}
        self.muon = {name: p for name, p in self.mine.items() if name in hidden}
        self.adamw = {name: local_of(p) for name, p in self.mine.items() if name not in hidden}
        #: By parameter: those of it, or of this rank's shard of it.
        self.moments = {name: {"momentum": torch.zeros_like(local_of(p))} for name, p in self.muon.items()}
        for name, p in self.adamw.items():
            step = torch.zeros((), dtype=torch.float32, device=p.device)
            self.moments[name] = {"step": step, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}

    @torch.no_grad()
    def step(self, lr_fraction: float) -> None:
        """Makes one update at this fraction of the peak learning rates, of all parameters that have a gradient."""
        self._step_adamw(self.config.lr * lr_fraction)
        # matrices of one shape are orthogonalised together; of sharded ones (DTensors) each rank takes some
        alike: dict[Any, list[str]] = {}
        for name, p in self.muon.items():
            if p.grad is not None:
                alike.setdefault((p.shape, getattr(p, "placements", None)), []).append(name)
        for (shape, _), names in alike.items():
            at_once = max(1, AT_ONCE // shape.numel())
            for begin in range(0, len(names), at_once):
                self._step_muon(names[begin : begin + at_once], self.config.muon_lr * lr_fraction)
        for rank in sorted(set(self.owners.values())):
            theirs = [p for name, p in self.parameters.items() if self.owners[name] == rank]
            flat = torch.cat([p.flatten() for p in theirs])
            dist.broadcast(flat, rank)
            torch._foreach_copy_(theirs, [part.view_as(p) for part, p in zip(flat.split([p.numel() for p in theirs]), theirs)])

    def _step_adamw(self, lr: float) -> None:
        """Calls torch's fused kernel directly: `torch.optim.Optimizer` would import the compiler (1.5 seconds) before the first step."""
        for decays in (True, False):
            names = [name for name in self.adamw if (p := self.mine[name]).grad is not None and (p.dim() >= 2) == decays]
            params, grads = [self.adamw[name] for name in names], [local_of(self.mine[name].grad) for name in names]
            averages, squares, steps = ([self.moments[name][key] for name in names] for key in ("exp_avg", "exp_avg_sq", "step"))
            if names:
                adamw(
                    params, grads, averages, squares, [], steps, fused=True, amsgrad=False, maximize=False, lr=lr, eps=self.config.eps,
                    beta1=self.config.betas[0], beta2=self.config.betas[1], weight_decay=self.config.weight_decay if decays else 0.0,
                )  # fmt: skip

    def _step_muon(self, names: Sequence[str], lr: float) -> None:
        params, momentum = [self.muon[name] for name in names], self.config.momentum
        locals_, grads = [local_of(p) for p in params], [local_of(p.grad) for p in params]
        buffers = [self.moments[name]["momentum"] for name in names]
        torch._foreach_lerp_(buffers, grads, 1 - momentum)
        nesterov = torch._foreach_lerp(grads, buffers, momentum)
        stack = torch.stack([like(update, p) for update, p in zip(nesterov, params)])
        updates = _orthogonalized(stack, self.bf16 and stack.dtype == torch.float32).unbind(0)
        torch._foreach_mul_(locals_, 1 - lr * self.config.weight_decay)
        rows, columns = params[0].shape
        scale = max(1.0, rows / columns) ** 0.5
        torch._foreach_add_(locals_, [local_of(update) for update in updates], alpha=-lr * scale)

    def zero_grad(self) -> None:
        for p in self.parameters.values():
            p.grad = None

    def state(self) -> dict[str, Tensor]:
        """Returns every moment and step counter of this rank as `parameter name/key`, laid out like its parameter."""
        return {f"{name}/{key}": like(value, p) for name, p in self.mine.items() for key, value in self.moments[name].items()}


def owners(parameters: Mapping[str, Tensor], ranks: int) -> dict[str, int]:
    """Assigns each parameter to the rank that updates it: the largest first, each to the rank with the smallest load so far."""
    loads, found = [0] * ranks, {}
    for name in sorted(parameters, key=lambda name: (-parameters[name].numel(), name)):
        found[name] = loads.index(min(loads))
        loads[found[name]] += parameters[name].numel()
    return found
