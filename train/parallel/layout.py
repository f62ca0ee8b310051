"""Which processes there are, and which part of the data and of the model each of them has."""

import logging
import math
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from corpusmill.pipeline.errors import InputError
from corpusmill.train.objective import Share
from corpusmill.train.options import ParallelConfig

#: The kinds of parallelism, outermost first: ranks of a tensor group are neighbours, as they talk most.
KINDS = ("pipeline", "replicate", "shard", "tensor")
#: Those whose ranks see different rows.
DATA = ("replicate", "shard")


@dataclass(frozen=True)
class ParallelDims:
    """One process among `config.world`; `mesh` has a dimension for each kind of parallelism that is in use (None: one process)."""

    config: ParallelConfig
    device: torch.device
    rank: int = 0
    mesh: DeviceMesh | None = None

    @staticmethod
    def single(device: torch.device) -> "ParallelDims":
        """One process alone."""
        return ParallelDims(ParallelConfig(), device)

    @staticmethod
    def distributed(config: ParallelConfig, device: torch.device) -> "ParallelDims":
        """This process among those of the default process group, which has begun. Raises InputError where their number is another one."""
        sizes: dict[str, int] = {kind: getattr(config, kind) for kind in KINDS}
        processes = dist.get_world_size()
        if processes != config.world:
            named = ", ".join(f"{kind} {size}" for kind, size in sizes.items())
            raise InputError(f"pretrain.parallel ({named}) needs {config.world} processes, but {processes} were started.")
        if config.world == 1:
            return ParallelDims(config, device)
        logging.getLogger("torch.distributed.tensor").setLevel(logging.ERROR)  # it warns of exchanges that could be faster
        # copies of a part of the model are shards of one: FSDP2 averages gradients that are DTensors or come in micro-batches of a pipeline
        as_shards = config.replicate > 1 and config.tensor * config.pipeline > 1
        used = tuple(kind for kind, size in sizes.items() if size > 1 or (kind == "shard" and as_shards))
        mesh = init_device_mesh(device.type, tuple(sizes[kind] for kind in used), mesh_dim_names=used)
        return ParallelDims(config, device, dist.get_rank(), mesh)

    @property
    def world(self) -> int:
        return self.config.world

    @property
    def is_main(self) -> bool:
        """Whether this process writes logs, models and results."""
        return self.rank == 0

    def index(self, kind: str) -> int:
        """This process's place along a dimension of the mesh; 0 where that is not in use."""
        return self.mesh.get_local_rank(kind) if self.mesh is not None and kind in self.kinds else 0

    @property
    def kinds(self) -> tuple[str, ...]:
        """The dimensions of the mesh."""
        return tuple(self.mesh.mesh_dim_names or ()) if self.mesh is not None else ()

    def submesh(self, *kinds: str) -> DeviceMesh | None:
        """The mesh of those of `kinds` that are in use; None where none is."""
        used = tuple(kind for kind in self.kinds if kind in kinds)
        return self.mesh[used] if self.mesh is not None and used else None

    @property
    def share(self) -> Share:
        """The part of each step's rows that this process computes."""
        return Share(self.index("replicate") * self.config.shard + self.index("shard"), math.prod(getattr(self.config, k) for k in DATA))

    def barrier(self) -> None:
        """Waits for all processes."""
        if self.world > 1:
            dist.barrier()
