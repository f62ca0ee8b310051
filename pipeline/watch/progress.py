"""A run on a terminal: one bar a phase with documents/s and MB/s, elsewhere a line now and then; and sentences."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any, Self

from corpusmill.pipeline.events import Event
from corpusmill.pipeline.safe import safe_text


def print_note(sentence: str) -> None:
    print(safe_text(f"Note: {sentence}"), file=sys.stderr, flush=True)


#: Seconds between two lines about a phase where no bar is drawn.
LINES = 30.0


class Bar:
    """The progress bar of a phase: finished tasks, documents/s and MB/s. `lines`: prints them as lines to standard error."""

    def __init__(self, bars: Any, name: str, total: int, lines: bool = False):
        self.bars, self.task = bars, bars.add_task(name, total=total, speed="")
        self.name, self.total, self.lines = name, total, lines
        self.tasks = self.rows = self.bytes = 0
        self.started = self.said = time.perf_counter()

    def advance(self, rows: int, bytes_: int) -> None:
        self.tasks += 1
        self.rows += rows
        self.bytes += bytes_
        now = time.perf_counter()
        seconds = max(now - self.started, 1e-9)
        speed = f"{self.rows / seconds:,.0f} documents/s  {self.bytes / seconds / 1e6:,.1f} MB/s"
        self.bars.update(self.task, advance=1, speed=speed)
        if self.lines and now - self.said >= LINES and self.tasks < self.total:
            self.said = now
            print(f"{self.name}: {self.tasks:,} of {self.total:,} tasks, {speed}", file=sys.stderr, flush=True)


class Bytes:
    """The progress bar of a transfer, whose total grows by `expect`. Threads may share it."""

    def __init__(self, bars: Any = None, name: str = ""):
        self.bars = bars
        self.task = bars.add_task(name, total=0) if bars else None
        self.total = 0

    def expect(self, bytes_: int) -> None:
        """Adds bytes to the total."""
        self.total += bytes_
        if self.bars:
            self.bars.update(self.task, total=self.total)

    def advance(self, bytes_: int) -> None:
        if self.bars:
            self.bars.update(self.task, advance=bytes_)


class Progress:
    """A listener that draws to standard error, and in a notebook below the cell. `enabled=None` means: when standard error is a terminal,
    and in a notebook that has ipywidgets, by which rich draws there. `on_note` gets the notes."""

    def __init__(self, enabled: bool | None = None, on_note: Callable[[str], None] = print_note):
        from rich.console import Console

        self.console = Console(stderr=True)
        self.notebook = self.console.is_jupyter and find_spec("ipywidgets") is not None
        self.enabled = self.console.is_terminal or self.notebook if enabled is None else enabled
        self.on_note = on_note
        self._shared: Any = None  # the one display of a notebook
        self._phase = ExitStack()  # ends the bar of the present phase
        self._bar: Bar | None = None

    def __call__(self, event: Event) -> None:
        match event.kind:
            case "phase_begin" if not event.fields["once"]:
                self._bar = self._phase.enter_context(self.phase(f"{event.stage} {event.phase}".strip(), event.fields["tasks"]))
            case "phase_end" | "phase_broken_off":
                self._phase.close()
                self._bar = None
            case "task" | "failure" if self._bar:
                self._bar.advance(event.fields.get("rows_in", 0), event.fields.get("bytes_in", 0))
            case "note":
                self.on_note(event.message)
            case "retry" | "death" | "split" | "alone" | "waiting":
                print(f"corpusmill: {event.message}", file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shared:
            self._shared.stop()

    @contextmanager
    def _bars(self, *columns: Any) -> Iterator[Any]:
        from rich import progress as rp

        if self.enabled and self.notebook:  # each display would leave an empty line below the cell
            self._shared = bars = self._shared or rp.Progress(console=self.console, transient=True)
            bars.start()
            try:
                yield bars
            finally:
                for task in bars.task_ids:
                    bars.remove_task(task)
            return
        columns = (rp.TextColumn("{task.description}"), rp.BarColumn(), *columns, rp.TimeRemainingColumn())
        with rp.Progress(*columns, console=self.console, transient=True, disable=not self.enabled) as bars:
            yield bars

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator[Bar]:
        """Shows a bar over `total` tasks during the block."""
        from rich import progress as rp

        columns = rp.MofNCompleteColumn(), rp.TextColumn("{task.fields[speed]}")
        with self._bars(*columns) as bars:
            yield Bar(bars, name, total, not self.enabled)

    @contextmanager
    def transfer(self, name: str) -> Iterator[Bytes]:
        """Shows a bar over bytes during the block."""
        from rich import progress as rp

        with self._bars(rp.DownloadColumn(), rp.TransferSpeedColumn()) as bars:
            yield Bytes(bars, name)

    @contextmanager
    def steps(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """Shows a bar over the steps of one task during the block. Yields a function that adds finished steps."""
        from rich import progress as rp

        with self._bars(rp.MofNCompleteColumn()) as bars:
            task = bars.add_task(name, total=total)
            yield lambda done: bars.update(task, advance=done)
