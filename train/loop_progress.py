"""A bar on the terminal for a training: steps/s, tokens/s, loss, time left; silent where there is no terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from corpusmill.pipeline.progress import Progress

#: Called with steps done, the loss, and the tokens since the beginning of this process.
Advance = Callable[[int, float, int], None]


@contextmanager
def loop_bar(progress: Progress | None, title: str, begin: int, steps: int) -> Iterator[Advance]:
    if progress is None or not progress.enabled:
        yield lambda done, loss, tokens: None
        return
    from rich import progress as rp

    columns = (rp.TextColumn("{task.description}"), rp.BarColumn(), rp.MofNCompleteColumn(), rp.TextColumn("{task.fields[speed]}"),
               rp.TimeRemainingColumn())  # fmt: skip
    started = time.perf_counter()
    with rp.Progress(*columns, console=progress.console, transient=True) as bars:
        task = bars.add_task(title, total=steps, completed=begin, speed="")

        def advance(done: int, loss: float, tokens: int) -> None:
            seconds = max(time.perf_counter() - started, 1e-9)
            speed = f"loss {loss:.3f}  {(done - begin) / seconds:,.1f} steps/s  {tokens / seconds:,.0f} tokens/s"
            bars.update(task, completed=done, speed=speed)

        yield advance
