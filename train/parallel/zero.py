"""ZeRO-1 (https://arxiv.org/abs/1910.02054): copies of a model, of which each rank has the moments of some parameters and updates those."""

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from corpusmill.train.optimizer import Optimizer
from corpusmill.train.options import OptimizerConfig
from corpusmill.train.parallel.layout import ParallelDims


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
