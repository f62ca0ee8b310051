"""Parameters that may be sharded: what a rank has of one.

torch's optimisers refuse lists with plain tensors, DTensors and DTensors of several meshes together; what they do to each element is
the same in a shard, so they are given the shards. A DTensor is told by its `placements`, as its module takes half a second to import.
"""

from typing import Any

import torch
from torch import Tensor


def is_sharded(p: Tensor) -> bool:
    return hasattr(p, "placements")


@torch.no_grad()
def local_of(p: Any) -> Tensor:
    """What this rank has of a parameter, in the same memory; the parameter itself where it is not sharded."""
    return p.to_local() if is_sharded(p) else p


@torch.no_grad()
def gradient_of(p: Any) -> Tensor:
    """The gradient of `local_of(p)`; one that ranks have parts of is summed first."""
    grad = p.grad
    if not is_sharded(p):
        return grad
    return (grad if grad.placements == p.placements else grad.redistribute(placements=p.placements)).to_local()


@torch.no_grad()
def like(local: Tensor, p: Any) -> Tensor:
    """A tensor of the shape of `local_of(p)` as part of one that is spread like `p`."""
    if not is_sharded(p) or local.dim() != p.dim():
        return local
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(local, p.device_mesh, p.placements, run_check=False, shape=p.shape, stride=p.stride())
