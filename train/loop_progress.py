"""A bar on the terminal for a training, and below it what a look should tell; silent where there is no terminal."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from corpusmill.pipeline.watch.progress import Progress

#: How much of the shown loss comes from the steps before.
SMOOTHING = 0.95


class LoopBar:
    """What the terminal shows: it is drawn twice a second, and steps only leave their numbers here."""

    def __init__(self, title: str, begin: int, steps: int, validation: str = "validation_bits_per_byte"):
        from rich import progress as rp

        columns = (rp.TextColumn("{task.description}"), rp.BarColumn(None), rp.MofNCompleteColumn(), rp.TimeElapsedColumn(),
                   rp.TextColumn("{task.fields[left]}"))  # fmt: skip
        self.bars = rp.Progress(*columns, expand=True)
        self.task = self.bars.add_task(title, total=steps, completed=begin, left="")
        self.validation, self.score, self.skipped = validation, "", 0
        self.loss: float | None = None
        self.line: dict[str, Any] = {}

    def step(self, line: dict[str, Any], speed: dict[str, Any], tokens_per_second: float) -> None:
        if "skipped" in line:
            self.skipped += 1
        else:
            loss = float(line["loss"])  # text where it is not finite and comes from a log
            self.loss = loss if self.loss is None else SMOOTHING * self.loss + (1 - SMOOTHING) * loss
        if self.validation in line:
            self.score = f"val {float(line[self.validation]):.3f}"
        self.line, self.speed, self.tokens_per_second = line, speed, tokens_per_second

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        if not self.line:
            return self.bars
        self.bars.update(self.task, completed=self.line["step"] + 1, left=f"{clock(self.speed['seconds_left'])} left")
        used = f"{self.speed['mfu']:.1%} MFU" if "mfu" in self.speed else f"{short(self.speed['flops_per_second'])}FLOP/s"
        memory = self.speed.get("cuda_bytes", self.speed["memory_bytes"])
        parts = [
            f"loss {self.loss:.3f}" if self.loss is not None else "", f"lr {self.line['lr']:.2g}",
             f"{short(self.tokens_per_second).replace(' ', '')} tok/s", used, f"{memory / 1e9:.1f} GB",
            f"{self.skipped} skipped" if self.skipped else "", self.score,
        ]  # fmt: skip
        return Group(self.bars, Text("  " + "  ".join(filter(None, parts)), style="dim", overflow="ellipsis", no_wrap=True))


def short(value: float) -> str:
    """Three digits and a unit: 12.3 k, 1.23 G."""
    for unit in ("", "k", "M", "G", "T", "P"):
        if abs(value) < 999.5 or unit == "P":
            break
        value /= 1000
    return f"{value:.{max(0, 2 - len(str(int(abs(value)))) + 1)}f} {unit}"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}"


@contextmanager
def loop_bar(progress: Progress | None, title: str, begin: int, steps: int) -> Iterator[LoopBar | None]:
    """The bar of a training for the time of the block; None where nobody would see it."""
    if progress is None or not progress.enabled:
        yield None
        return
    from rich.live import Live

    bar = LoopBar(title, begin, steps)
    with Live(bar, console=progress.console, transient=True, refresh_per_second=2):
        yield bar
