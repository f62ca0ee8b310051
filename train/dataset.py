"""A loader's batches as a plain iterator and as a dataset of torch, for any number of processes and workers.

The state is one integer: how many samples of the global order all processes together have taken. A micro-batch is the next
`world * micro_batch` of them, cut evenly over the processes, and none spans two steps. So the same samples come in the same order
whatever `world`, `micro_batch` and the number of workers are, and a run goes on with other ones: at the end of any step, and within one
where what is left of it can be cut evenly.
"""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from corpusmill.train.bits import Batch
from corpusmill.train.loader import Loader


class TokenDataset(IterableDataset[Batch]):
    """The micro-batches of one process, `rank` of `world`, without end or up to `steps`.

    `micro_batch` counts the samples of this process at a time; 0 means its whole share of a step. In a `DataLoader(dataset,
    batch_size=None, num_workers=n)` each worker makes every n-th of them, and they arrive in order.
    """

    def __init__(self, loader: Loader, micro_batch: int = 0, rank: int = 0, world: int = 1, steps: int | None = None):
        if not 0 <= rank < world or loader.batch % world:
            raise ValueError(f"rank {rank} of {world} processes with batches of {loader.batch}: every process needs an equal share")
        self.loader, self.rank, self.world, self.steps = loader, rank, world, steps
        self.chunk = min((micro_batch or loader.batch) * world, loader.batch)
        self.taken = 0

    def state_dict(self) -> dict[str, int]:
        return {"samples": self.taken}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Raises ValueError where the state is so far in a step that the rest of it can't be cut evenly over the processes."""
        taken = int(state["samples"])
        if taken < 0 or taken % self.loader.batch % self.world:
            raise ValueError(f"{taken} samples: the rest of a step of {self.loader.batch} has no equal shares for {self.world} processes")
        self.taken = taken

    def __iter__(self) -> Iterator[Batch]:
        """Goes on from the state, and moves it. Workers leave it: `batches` moves it for what has arrived."""
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        first = self.taken
        while (count := self._next(first)) > 0:
            if number == 0:
                share = count // self.world
                batch = self.loader.samples(first + self.rank * share, share)
                self.taken = first + count
                yield batch
            number = (number - 1) % workers
            first += count

    def _next(self, first: int) -> int:
        """Samples of the micro-batch that begins at `first`; 0 at the end."""
        step, place = divmod(first, self.loader.batch)
        return 0 if self.steps is not None and step >= self.steps else min(self.chunk, self.loader.batch - place)

    def batches(self, workers: int = 0, **options: Any) -> Iterator[Batch]:
        """The micro-batches from the state on, made by `workers` processes of a `DataLoader` with these `options`.

        The state counts what was handed out, not what the workers have made ahead.
        """
        if not workers:
            yield from self
            return
        first = self.taken
        for batch in DataLoader(self, batch_size=None, num_workers=workers, **options):
            first += self._next(first)
            self.taken = first
            yield batch
