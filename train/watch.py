"""What a training tells the outside while it runs: a line a step in a file, a bar on the terminal."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from corpusmill.pipeline.progress import Progress
from corpusmill.train.log import StepLog
from corpusmill.train.loop_progress import loop_bar


class Watch:
    """Open for the time of a training; ranks other than the first write nothing (`writes`)."""

    def __init__(self, log: Path, begin: int, steps: int, progress: Progress | None, title: str, writes: bool):
        self.log, self.begin, self.steps, self.progress, self.title, self.writes = log, begin, steps, progress, title, writes

    def __enter__(self) -> "Watch":
        self.stack = ExitStack()
        self.bar = self.stack.enter_context(loop_bar(self.progress, self.title, self.begin, self.steps))
        self.lines = self.stack.enter_context(StepLog(self.log, self.begin)) if self.writes else None
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def step(self, line: dict[str, Any], tokens: int) -> None:
        """Takes the line of a finished step, and the tokens since the beginning of this process."""
        if self.lines:
            self.lines.write(line)
        self.bar(line["step"] + 1, line["loss"], tokens)

    def sync(self) -> None:
        """Makes the lines durable: to be called before the state that follows them is saved."""
        if self.lines:
            self.lines.sync()
