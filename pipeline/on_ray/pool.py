"""Worker processes that have no work: the next phase has them without the seconds of a processor that Python, Ray and libraries take to
come up. They stay as long as a Ray that is the run's own; of any other they go when no phase has wanted them for a while, so that a cluster
can shrink."""

import contextlib
import threading
from typing import Any

#: Seconds for which a cluster's actors stay without work: less than autoscalers wait before they take a node away.
STAY = 30.0


class Pool:
    """Actors that have each one CPU and no GPU. `stay`: seconds; None: for ever."""

    def __init__(self, ray: Any, stay: float | None):
        self.ray, self.stay = ray, stay
        self._memory: dict[Any, int] = {}  # what each has of Ray's `memory`, bytes
        self._idle: list[Any] = []
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def take(self, memory: int) -> Any | None:
        """One of them with so much memory (bytes) or more, which may have died meanwhile. None where there is none; then there is room for
        another one in the place of one that has less."""
        with self._lock:
            for actor in self._idle:
                if self._memory[actor] >= memory:
                    self._idle.remove(actor)
                    return actor
            if self._idle:
                self._end(self._idle.pop())
        return None

    def give(self, actor: Any, memory: int) -> None:
        """`memory`: what it has, where it is a new one."""
        actor.rest.remote()
        with self._lock:
            self._memory.setdefault(actor, memory)
            self._idle.append(actor)
            self._wind()

    def lost(self, actor: Any) -> None:
        """One that was taken does not come back."""
        with self._lock:
            self._memory.pop(actor, None)

    def clear(self) -> None:
        """Ends them, so that others can have their CPUs."""
        with self._lock:
            while self._idle:
                self._end(self._idle.pop())

    def forget(self) -> None:
        """Nobody will want them again: Ray ends, and they with it. A request that came behind that would connect to Ray once more."""
        with self._lock:
            self._idle.clear()
            if self._timer is not None:
                self._timer.cancel()

    def _wind(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.stay is not None:
            self._timer = threading.Timer(self.stay, self.clear)
            self._timer.daemon = True
            self._timer.start()

    def _end(self, actor: Any) -> None:
        del self._memory[actor]
        with contextlib.suppress(self.ray.exceptions.RayError):
            self.ray.kill(actor)
