"""The bar of a training that runs where there is no terminal: it shows what the logs say, which are on a disk that both see."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train.loop_progress import loop_bar
from corpusmill.train.watch import SPEED


class _Tail:
    """The lines that come into a file from now on; it may become shorter, as a training that begins again does its steps again."""

    def __init__(self, path: Path):
        self.path, self.offset = path, path.stat().st_size if path.exists() else 0

    def read(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        with open(self.path, "rb") as file:
            self.offset = min(self.offset, file.seek(0, 2))
            file.seek(self.offset)
            whole, _, _ = file.read().rpartition(b"\n")
        self.offset += len(whole) + bool(whole)
        return [json.loads(line) for line in whole.split(b"\n") if line.strip()]


@contextmanager
def following(progress: Progress | None, title: str, log: Path | None, steps: int) -> Iterator[Callable[[], None]]:
    """A bar for the time of the block; what this gives is to be called now and then, and moves it to the latest step of `log`."""
    with loop_bar(progress if log else None, title, 0, steps) as bar:
        if bar is None or log is None:
            yield lambda: None
            return
        lines, speeds = _Tail(log), _Tail(log.with_name(SPEED))
        known: dict[int, dict[str, Any]] = {}

        def look() -> None:
            known.update((line["step"], line) for line in lines.read())
            for speed in speeds.read():
                if line := known.pop(speed["step"], None):
                    bar.step(line, speed, speed["tokens_per_second"])

        yield look
