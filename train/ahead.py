"""Batches are made by a thread while the ones before them are computed."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from corpusmill.train.model import Llama
from corpusmill.train.objective import Objective, Share, StepLoss


class Prefetcher:
    """`objective` with its next batch always in the making, up to the end of step `steps - 1`.

    Batches depend on the step alone and one thread makes them in turn, so they are what they would be without it. `waited` are the
    seconds in which nothing could be computed for want of a batch.
    """

    def __init__(self, objective: Objective, steps: int):
        self.objective, self.steps, self.metrics, self.waited = objective, steps, objective.metrics, 0.0
        self._thread = ThreadPoolExecutor(1, "batches")
        self._next: tuple[int, Share] | None = None  # where the stream stands; None: it has to begin anew
        self._stream: Iterator[Any] = iter(())
        self._future: Future[Any] = Future()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.objective, name)

    def __enter__(self) -> "Prefetcher":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def loss(self, model: Llama, batch: Any) -> StepLoss:
        return self.objective.loss(model, batch)

    def batches(self, step: int, share: Share) -> Iterator[Any]:
        if self._next != (step, share):
            self._stream = self._batches(step, share)
            self._future = self._thread.submit(next, self._stream, None)
        self._next = None  # until the step is over: whoever leaves it before begins anew
        while (batch := self._wait()) is not None:
            yield batch
        self._next = step + 1, share

    def _wait(self) -> Any:
        started = time.perf_counter()
        batch = self._future.result()
        self.waited += time.perf_counter() - started
        self._future = self._thread.submit(next, self._stream, None)
        return batch

    def _batches(self, first: int, share: Share) -> Iterator[Any]:
        """The batches of all steps from `first` on, each step's followed by None."""
        for step in range(first, self.steps):
            yield from self.objective.batches(step, share)
            yield None
