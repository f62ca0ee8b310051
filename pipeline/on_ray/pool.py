"""Worker processes that have no work, of a Ray that is the run's own: the next phase has them without the seconds of a processor that
Python, Ray and libraries take to come up. Of any other Ray an actor goes as soon as it has no work, so that a cluster can shrink."""

from typing import Any


class Pool:
    """Actors that have each one CPU and no GPU."""

    def __init__(self, ray: Any):
        self.ray = ray
        self._idle: list[Any] = []

    def take(self) -> Any | None:
        """One of them, which may have died meanwhile; None where there is none."""
        return self._idle.pop() if self._idle else None

    def give(self, actor: Any) -> None:
        actor.rest.remote()
        self._idle.append(actor)

    def clear(self) -> None:
        """Ends them, so that others can have their CPUs."""
        while self._idle:
            self.ray.kill(self._idle.pop())
