"""Progress on a terminal: one bar a phase with documents/s and MB/s; silent where output is no terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Bar(Protocol):
    def advance(self, rows: int, bytes_: int) -> None: ...


class _Bar:
    def __init__(self, progress: Any, task: Any):
        self.progress, self.task = progress, task
        self.rows = self.bytes = 0
        self.started = time.perf_counter()

    def advance(self, rows: int, bytes_: int) -> None:
        self.rows += rows
        self.bytes += bytes_
        seconds = max(time.perf_counter() - self.started, 1e-9)
        self.progress.update(self.task, advance=1, speed=f"{self.rows / seconds:,.0f} documents/s  {self.bytes / seconds / 1e6:,.1f} MB/s")


class _Silent:
    def advance(self, rows: int, bytes_: int) -> None:
        pass


class Bytes:
    """How much of a transfer is done; it learns how much there is as it goes on. Threads may share it."""

    def __init__(self, bars: Any = None, name: str = ""):
        self.bars = bars
        self.task = bars.add_task(name, total=0) if bars else None
        self.total = 0

    def expect(self, bytes_: int) -> None:
        """So much more is to come."""
        self.total += bytes_
        if self.bars:
            self.bars.update(self.task, total=self.total)

    def advance(self, bytes_: int) -> None:
        if self.bars:
            self.bars.update(self.task, advance=bytes_)


class Progress:
    """Draws to standard error. `enabled=None` means: when standard error is a terminal."""

    def __init__(self, enabled: bool | None = None):
        from rich.console import Console

        self.console = Console(stderr=True)
        self.enabled = self.console.is_terminal if enabled is None else enabled

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator[Bar]:
        """A bar over `total` tasks for the time of the block."""
        if not self.enabled:
            yield _Silent()
            return
        from rich import progress as rp

        columns = (rp.TextColumn("{task.description}"), rp.BarColumn(), rp.MofNCompleteColumn(), rp.TextColumn("{task.fields[speed]}"),
                   rp.TimeRemainingColumn())  # fmt: skip
        with rp.Progress(*columns, console=self.console, transient=True) as bars:
            yield _Bar(bars, bars.add_task(name, total=total, speed=""))

    @contextmanager
    def transfer(self, name: str) -> Iterator[Bytes]:
        """A bar over bytes for the time of the block."""
        if not self.enabled:
            yield Bytes()
            return
        from rich import progress as rp

        columns = (rp.TextColumn("{task.description}"), rp.BarColumn(), rp.DownloadColumn(), rp.TransferSpeedColumn(),
                   rp.TimeRemainingColumn())  # fmt: skip
        with rp.Progress(*columns, console=self.console, transient=True) as bars:
            yield Bytes(bars, name)

    @contextmanager
    def steps(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar over the steps of one task for the time of the block: gives a function that is told how many more are done."""
        if not self.enabled:
            yield lambda done: None
            return
        from rich import progress as rp

        columns = (rp.TextColumn("{task.description}"), rp.BarColumn(), rp.MofNCompleteColumn(), rp.TimeRemainingColumn())
        with rp.Progress(*columns, console=self.console, transient=True) as bars:
            task = bars.add_task(name, total=total)
            yield lambda done: bars.update(task, advance=done)
