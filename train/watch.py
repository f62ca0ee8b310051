"""What a training tells the outside while it runs: lines in files, a bar on the terminal, and programs that draw curves."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train.log import StepLog
from corpusmill.train.loop_progress import loop_bar
from corpusmill.train.options import LoopConfig
from corpusmill.train.parallel.layout import ParallelDims
from corpusmill.train.speed import Meter
from corpusmill.train.trackers import numbers, open_tracker

#: Beside the log: what differs between equal runs, and what the model wrote.
SPEED, SAMPLES = "speed.jsonl", "samples.jsonl"


class Watch:
    """Open for the time of a training that begins at step `begin`; `flops` are those of a token. Ranks but the first show and write
    nothing."""

    def __init__(
        self, log: Path, begin: int, config: LoopConfig, dims: ParallelDims, flops: float, progress: Progress | None, title: str
    ):  # fmt: skip
        self.log, self.begin, self.config, self.dims, self.progress, self.title = log, begin, config, dims, progress, title
        self.meter = Meter(begin, config.steps, dims.device, flops, dims.world)
        self.files: dict[str, StepLog] = {}
        self.stack = ExitStack()

    def __enter__(self) -> "Watch":
        with ExitStack() as stack:
            if self.dims.is_main:
                self.stack, steps = stack, self.config.steps
                self._file(self.log.name)
                self._file(SPEED)
                if self.log.with_name(SAMPLES).exists():
                    self._file(SAMPLES)
                self.trackers = [open_tracker(kind, self.log.parent, self.begin, self.title) for kind in self.config.log]
                for tracker in self.trackers:
                    stack.callback(tracker.close)
                self.bar = stack.enter_context(loop_bar(self.progress, self.title, self.begin, steps))
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def _file(self, name: str) -> StepLog:
        """The log of this name in the log's folder, without the lines of steps that will be done again."""
        if name not in self.files:
            self.files[name] = self.stack.enter_context(StepLog(self.log.with_name(name), self.begin))
        return self.files[name]

    def step(self, line: dict[str, Any], tokens: int, seconds: float, waited: float) -> None:
        """Takes the line of a finished step of `tokens`, the seconds it took (evaluation apart) and waited for batches.

        Its `samples`, where it has any, go into a file of their own.
        """
        if not self.dims.is_main:
            return
        samples = line.pop("samples", None)
        speed = self.meter.line(line["step"], tokens, seconds, waited)
        self._file(self.log.name).write(line)
        self._file(SPEED).write(speed)
        if samples:
            self._file(SAMPLES).write({"step": line["step"], "samples": samples})
        for tracker in self.trackers:
            tracker.write(line["step"], numbers(line) | numbers(speed, "speed"))
        if self.bar:
            self.bar.step(line, speed, self.meter.tokens_per_second())

    def sync(self) -> None:
        """Makes the lines durable: to be called before the state that follows them is saved."""
        for file in self.files.values():
            file.sync()
