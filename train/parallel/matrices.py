"""Functions of whole matrices whose shards lie on several ranks."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor, Shard


def by_matrix(function: Callable[[Tensor], Tensor], stack: Any) -> Tensor:
    """`function` of a sharded stack of matrices `[n, rows, columns]`, each of which it treats alone: ranks exchange shards, so that each
    has some of the matrices whole and nobody else computes those, and exchange what comes out (as in https://arxiv.org/abs/2502.16982).
    """
    mesh, matrices = stack.device_mesh, [Shard(0)] * stack.device_mesh.ndim
    mine = function(stack.redistribute(placements=matrices).to_local())
    shared = DTensor.from_local(mine, mesh, matrices, run_check=False, shape=stack.shape, stride=stack.stride())
    return shared.redistribute(placements=stack.placements)
