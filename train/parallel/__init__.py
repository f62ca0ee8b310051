"""A model on one process or many: PyTorch's own parallelism on one mesh, with one interface for the training loop.

This file: the processes of a training, the part of data and model that each has, and sums over all of them.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from corpusmill.train.data import DataShare
from corpusmill.train.options import ParallelConfig

# ---- processes ---------------------------------------------------------------------------------------

#: The kinds of parallelism, outermost first: ranks of a tensor group are neighbours, as they communicate most.
KINDS = ("pipeline", "replicate", "shard", "tensor")
#: The timeout where a process may wait for work of another: longer than any. A process that is killed ends the others by its launcher.
PATIENCE = timedelta(days=30)


@dataclass(frozen=True)
class ParallelDims:
    """One process of `config.world`. `mesh` has a dimension for each kind of parallelism that is in use (None: one process). `patient` is
    a gloo group of all processes whose collectives wait for as long as it takes: one process may export a large model meanwhile."""

    config: ParallelConfig
    device: torch.device
    rank: int = 0
    mesh: DeviceMesh | None = None
    patient: dist.ProcessGroup | None = None

    @staticmethod
    def single(device: torch.device) -> "ParallelDims":
        """Returns the dims of a single process."""
        return ParallelDims(ParallelConfig(), device)

    @staticmethod
    def distributed(config: ParallelConfig, device: torch.device) -> "ParallelDims":
        """Returns this process's dims in the default process group, which must have `config.world` processes."""
        if config.world == 1:
            return ParallelDims.single(device)
        sizes: dict[str, int] = {kind: getattr(config, kind) for kind in KINDS}
        logging.getLogger("torch.distributed.tensor").setLevel(logging.ERROR)  # silences warnings about exchanges that could be faster
        # copies of part of a model are made as shards of size one: FSDP2 averages gradients of DTensors and of a pipeline's micro-batches
        as_shards = config.replicate > 1 and config.tensor * config.pipeline > 1
        used = tuple(kind for kind, size in sizes.items() if size > 1 or (kind == "shard" and as_shards))
        mesh = init_device_mesh(device.type, tuple(sizes[kind] for kind in used), mesh_dim_names=used)
        return ParallelDims(config, device, dist.get_rank(), mesh, dist.new_group(backend="gloo", timeout=PATIENCE))

    @property
    def world(self) -> int:
        return self.config.world

    @property
    def is_main(self) -> bool:
        """Whether this process writes logs, models and results."""
        return self.rank == 0

    @property
    def kinds(self) -> tuple[str, ...]:
        """The dimensions of the mesh."""
        return tuple(self.mesh.mesh_dim_names or ()) if self.mesh is not None else ()

    def index(self, kind: str) -> int:
        """Returns this process's place along a dimension of the mesh; 0 where the mesh lacks it."""
        return self.mesh.get_local_rank(kind) if self.mesh is not None and kind in self.kinds else 0

    def submesh(self, *kinds: str) -> DeviceMesh | None:
        """Returns the mesh of those `kinds` that are in use; None if none is."""
        used = tuple(kind for kind in self.kinds if kind in kinds)
        return self.mesh[used] if self.mesh is not None and used else None

    @property
    def share(self) -> DataShare:
        """The part of each step's rows that this process computes."""
        return DataShare(self.index("replicate") * self.config.shard + self.index("shard"), self.config.ranks)

    def barrier(self) -> None:
        """Waits for all processes, for as long as it takes."""
        if self.world > 1:
            dist.barrier(group=self.patient)


# ---- parts of a parameter ----------------------------------------------------------------------------
#
# torch's optimisers refuse lists that mix plain tensors, DTensors, and DTensors of several meshes. They work element by element, so they
# are given the local shards instead. A DTensor is recognised by its `placements`, as its module takes half a second to import.


def is_sharded(p: Tensor) -> bool:
    return hasattr(p, "placements")


@torch.no_grad()
def local_of(p: Any) -> Tensor:
    """Returns this rank's part of a parameter, in the same memory; the parameter itself where it is not sharded."""
    return p.to_local() if is_sharded(p) else p


@torch.no_grad()
def like(local: Tensor, p: Any) -> Tensor:
    """Returns `local`, of the shape of `local_of(p)`, as this rank's part of a tensor that is sharded like `p`."""
    if not is_sharded(p) or local.dim() != p.dim():
        return local
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(local, p.device_mesh, p.placements, run_check=False, shape=p.shape, stride=p.stride())


# ---- sums over processes -----------------------------------------------------------------------------
#
# Each part counts once. Every process adds the same numbers in the same order, so all get the same bits.


def total(values: Tensor, dims: ParallelDims) -> Tensor:
    """Sums float64 `[n]` over the rows of all processes. The ranks of a tensor group computed the same rows, so only the first counts;
    a pipeline's ranks without the loss give zeros."""
    if dims.world == 1:
        return values
    counted = values if dims.index("tensor") == 0 else torch.zeros_like(values)  # not `0 * values`, which keeps NaN
    return _gathered(counted, dims).sum(dim=0).to(values.device)


def _gathered(values: Tensor, dims: ParallelDims) -> Tensor:
    """Returns the values of all processes, stacked."""
    gathered = [torch.empty_like(values, device=dims.device) for _ in range(dims.world)]
    dist.all_gather(gathered, values.to(dims.device))
    return torch.stack(gathered)


def squared_norm(grads: Iterable[Tensor], dims: ParallelDims) -> Tensor:
    """Returns the squared norm of the whole gradient, of which this process has parts: shards of DTensors, copies of what is not sharded,
    its own pipeline stage. `clip_grad_norm_` can't add up gradients on different meshes (https://github.com/pytorch/pytorch/issues/180346).
    """
    mine = [local_of(grad) for grad in grads if _counts(grad, dims)]
    squares = torch.zeros((), dtype=torch.float64, device=dims.device)
    if mine:
        squares = torch.stack(torch._foreach_norm(mine)).double().square().sum()
    return squares if dims.world == 1 else _gathered(squares, dims).sum()


def _counts(grad: Any, dims: ParallelDims) -> bool:
    """Whether this process is the first of those that hold the same part of a gradient."""
    placed = zip(grad.device_mesh.mesh_dim_names or (), grad.placements) if is_sharded(grad) else ()
    sharded = {name for name, placement in placed if not placement.is_replicate()}  # strided shards, too
    return all(dims.index(kind) == 0 for kind in dims.kinds if kind != "pipeline" and kind not in sharded)
