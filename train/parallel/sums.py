"""Sums over all processes, each part counted once, with the same bits everywhere: every process adds the same numbers in the same order."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from corpusmill.train.parallel.layout import ParallelDims
from corpusmill.train.shards import is_sharded, local_of


def total(values: Tensor, dims: ParallelDims) -> Tensor:
    """float64 `[n]` of the rows that each process computed, summed. Ranks of a tensor group computed the same ones, so the first counts;
    the ranks of a pipeline that have no loss give zeros."""
    if dims.world == 1:
        return values
    counted = values if dims.index("tensor") == 0 else torch.zeros_like(values)  # never NaN * 0
    gathered = [torch.empty_like(values, device=dims.device) for _ in range(dims.world)]
    dist.all_gather(gathered, counted.to(dims.device))
    return torch.stack(gathered).sum(dim=0).to(values.device)


def squared_norm(grads: Iterable[Tensor], dims: ParallelDims) -> Tensor:
    """The square of the norm of the whole gradient, of which this process has parts: a DTensor's shard, its copy of one that
    is not sharded, its stage's. `clip_grad_norm_` can't add up gradients on different meshes (https://github.com/pytorch/pytorch/issues/180346).
    """
    mine = [local_of(grad) for grad in grads if _counts(grad, dims)]
    squares = torch.zeros((), dtype=torch.float64, device=dims.device)
    if mine:
        squares = torch.stack(torch._foreach_norm(mine)).double().square().sum()
    if dims.world == 1:
        return squares
    gathered = [torch.empty(1, dtype=torch.float64, device=dims.device) for _ in range(dims.world)]
    dist.all_gather(gathered, squares.reshape(1).to(dims.device))
    return torch.cat(gathered).sum()


def _counts(grad: Any, dims: ParallelDims) -> bool:
    """Whether this process is the first of those that hold the same part of a gradient."""
    sharded = set()
    if is_sharded(grad):
        names = grad.device_mesh.mesh_dim_names or ()
        sharded = {name for name, placement in zip(names, grad.placements) if not placement.is_replicate()}  # strided ones too
    return all(dims.index(kind) == 0 for kind in dims.kinds if kind != "pipeline" and kind not in sharded)
