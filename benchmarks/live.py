"""Measures the CPU time that watching costs: milliseconds a phase and a task for the run, and seconds for each look of the watcher.

    python benchmarks/live.py [--tasks 2000] [--manifest 10000]

Performs tasks that write one small file each, with and without lease, log (a line a task), Prometheus counts and `progress.json`, turn
by turn; the median of the turns counts. Then reads a manifest of `--manifest` tasks, first from its beginning, then again with one row
more.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from corpusmill.pipeline.config import Config
from corpusmill.pipeline.engine import InlineEngine, TaskDone
from corpusmill.pipeline.lease import holding
from corpusmill.pipeline.manifest import MANIFEST, FileRef, Manifest, TaskRow
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import OutputFile
from corpusmill.pipeline.stage import Output, Stage, Task, Worker
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.log import Observer, ProgressFile
from corpusmill.pipeline.watch.metrics import Counting, Prometheus
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.report.live.status import Status

TURNS = 5


class OneFile(Worker):
    def process(self, task: Task) -> Output:
        return Output({f"data/{task.key}.bin": b"x"}, rows_in=1, kept=1, bytes_in=1)


class Files(Stage):
    name, Config = "ingest", Config

    def __init__(self, config: Config, tasks: int):
        super().__init__(config)
        self.tasks = tasks

    def execute(self, run: StageRun) -> None:
        run.map("", OneFile, [Task(f"part-{number:05d}", (FileRef("in", "x", 1),)) for number in range(self.tasks)])


class Silent(Observer):
    """Ignores all events of tasks."""

    def done(self, stage: str, phase: str, done: TaskDone) -> None:
        pass


def seconds(tasks: int, told: bool) -> float:
    """Returns the CPU seconds of one stage of `count` tasks."""
    with tempfile.TemporaryDirectory() as folder:
        storage, engine = Storage(folder), InlineEngine()
        began = time.process_time()
        if told:
            with holding(storage) as lease, ProgressFile(storage, ["ingest"], engine) as live:
                observer = Observer(storage, live, Counting([Prometheus()]))
                run = StageRun(Files(Config(), tasks), storage, {}, [], engine, Progress(False), observer)
                run.hold(lease)
                run.execute()
        else:
            StageRun(Files(Config(), tasks), storage, {}, [], engine, Progress(False), Silent(storage)).execute()
        return time.process_time() - began


def looks(tasks: int) -> tuple[float, float]:
    """Returns the seconds of the first look, and of a second one after another row has come."""
    with tempfile.TemporaryDirectory() as folder:
        storage = Storage(folder)
        storage.write_bytes("run.json", b'{"recipe": {"ingest": {}}}')
        manifest = Manifest(storage.child("ingest"))
        row = TaskRow(
            "x",
            "y",
            [FileRef("in", "x", 1)],
            "c",
            "v",
            1,
            1,
            0,
            1,
            [OutputFile(f"{kind}/part.parquet", 1, "0" * 64) for kind in ("data", "report")],
        )
        manifest.append(row)
        path = Path(folder) / "ingest" / MANIFEST
        line = path.read_bytes()
        path.write_bytes(b"".join(line.replace(b'"task":"x"', f'"task":"part-{number:05d}"'.encode()) for number in range(tasks)))
        began = time.process_time()
        status = Status(folder)
        status.read()
        first = time.process_time() - began
        path.write_bytes(path.read_bytes() + line)
        began = time.process_time()
        status.read()
        return first, time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--manifest", type=int, default=10_000)
    arguments = parser.parse_args()
    os.fsync = lambda _: None  # fsync is left out: its time depends on the disk and would hide the difference
    turns = [(seconds(arguments.tasks, False), seconds(arguments.tasks, True)) for _ in range(TURNS)]
    without, told = (statistics.median(turn[side] for turn in turns) for side in (0, 1))
    each, beside = without / arguments.tasks * 1e3, told / arguments.tasks * 1e3
    print(f"{arguments.tasks:,} tasks: {each:.3f} ms of CPU each, {beside:.3f} ms with lease, log, counts and progress.json")
    first, again = looks(arguments.manifest)
    print(f"a manifest of {arguments.manifest:,} tasks: {first:.2f} s for the first look, {again * 1e3:.1f} ms for the next")


if __name__ == "__main__":
    main()
