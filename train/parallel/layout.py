"""Which processes there are, and which part of the data and of the model each of them has."""

from dataclasses import dataclass

import torch
from torch.distributed.device_mesh import DeviceMesh

from corpusmill.train.objective import Share
from corpusmill.train.options import ParallelConfig


@dataclass(frozen=True)
class Layout:
    """One process among `config.world`; `mesh` has a dimension for each kind of parallelism that is in use (None: one process)."""

    config: ParallelConfig
    device: torch.device
    rank: int = 0
    mesh: DeviceMesh | None = None

    @staticmethod
    def single(device: torch.device) -> "Layout":
        """One process alone."""
        return Layout(ParallelConfig(), device)

    @property
    def world(self) -> int:
        return self.config.world

    @property
    def is_main(self) -> bool:
        """Whether this process writes logs, models and results."""
        return self.rank == 0

    @property
    def share(self) -> Share:
        """The part of each step's rows that this process computes."""
        return Share()

    def barrier(self) -> None:
        """Waits for all processes."""
