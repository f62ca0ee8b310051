"""A stage for the tests of the engines, in a module of its own because Ray's processes import it."""

import importlib
import os
import re
import signal
import time
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import DocumentFiles, Output, Stage, Task, Worker


def arrive(folder: str) -> None:
    """Lets the first process that calls it live; all later ones leave a file in the folder and die."""
    try:
        Path(folder, "first").touch(exist_ok=False)
    except FileExistsError:
        Path(folder, f"dead-{os.getpid()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)


class FirstAlone:
    """As a parameter of a job, it reaches a worker's process before the worker is ready."""

    def __init__(self, folder: str):
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return arrive, (self.folder,)


def lose_node(markers: str, losses: int) -> None:
    """Kills the node that this process is on (its parent is Ray's raylet), up to a number of times."""
    lost = len(list(Path(markers).iterdir()))
    if lost < losses:
        Path(markers, str(lost)).touch()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(1000)


class LinesConfig(Config):
    shout: bool = True


class LinesWorker(Worker):
    """Splits a text file into lines; the task's `deed` names a fault to cause meanwhile."""

    def process(self, task: Task) -> Output | Iterator[Output]:
        deed, marker = task.params.get("deed"), task.params.get("marker", "")
        if deed == "die" or (deed == "die once" and not Path(marker).exists()):
            if marker:
                Path(marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if deed == "wait for deaths":
            while len(list(Path(marker).glob("dead-*"))) < task.params["deaths"]:
                time.sleep(0.1)
        if deed == "lose node":
            lose_node(marker, task.params["losses"])
        if deed == "deaf":  # like native code that does not return: no signal handler is called
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
            time.sleep(1000)
        if deed == "sleep":
            time.sleep(task.params.get("seconds", 1000))
        if deed == "spin":
            while True:
                pass
        if deed == "regex":
            re.fullmatch("(a|aa)+", "a" * 60 + "b")
        if deed == "bad input":
            raise InputError(f"{task.inputs[0].path}: broken at byte 7.")
        if deed == "bug":
            raise KeyError("no such column")
        if deed == "tell process":
            return Output({}, warnings=[str(os.getpid())])
        lines = Path(task.inputs[0].path).read_text().upper().splitlines()
        table = pa.table({"id": [f"{task.key}-{i}" for i in range(len(lines))], "text": lines})
        if deed == "parts":
            middle = len(table) // 2
            return (written(f"{task.key}-{number:04}", part) for number, part in enumerate((table[:middle], table[middle:])))
        return written(task.key, table, warnings=about_process() if deed == "tell" else [])


def written(name: str, table: pa.Table, **options: Any) -> Output:
    report = table.select(["id"]).append_column("failed", pa.array([[]] * table.num_rows, pa.list_(pa.string())))
    made = DocumentFiles(table.schema, report.schema)
    made.add(table, report)
    return made.output(name, **options)


def about_process() -> list[str]:
    return [
        tokenize.__file__,
        str(list(importlib.import_module("corpusmill.tokenize").__path__)),
        os.environ["OMP_NUM_THREADS"],
        os.environ.get("CUDA_VISIBLE_DEVICES", "all"),
    ]


class LinesStage(Stage):
    name = "lines"
    Config = LinesConfig

    def __init__(self, config: Config, params: list[dict[str, Any]], gpus: float = 0.0):
        super().__init__(config)
        self.params = params
        self.gpus = gpus

    def execute(self, run: StageRun) -> None:
        refs = [FileRef(path, "fixed") for path in run.inputs]
        run.map("", LinesWorker, [Task(f"part-{i:05d}", (ref,), self.params[i]) for i, ref in enumerate(refs)], gpus=self.gpus)
