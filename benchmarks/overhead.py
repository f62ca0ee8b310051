"""What Ray and a run's bookkeeping cost on top of the kernels: seconds of processors and of the clock, of a stage on so much text.

    python benchmarks/overhead.py RUN [--megabytes 1000] [--stages filter dedup all] [--workers 1 2] [--folder DIR]

RUN is a run with a finished `ingest`; its documents are repeated as in filter_stage.py. `kernels` is one process that calls
`worker.process` on one piece after the other, with the same configuration; loading models and JIT is in it, writing and hashing files
is not. `and Parquet` adds what it takes to make the files of the documents and of the report, in memory: any tool has to do that, so
ratios are given to both, and what is above the second is bookkeeping and Ray. `inline` and `ray` are the command `corpusmill filter RUN
...` as a user calls it, from start to end; `all` is `corpusmill run` from filter to tokens in one command. Seconds of processors are what
the system counted of all processes at their end: of the command, and of all that Ray starts for it. Those of Ray's workers, for which
nobody waits, are looked up 20 times a second: of each its last 0.05 s are missing. Text is in UTF-8; rates are of it.
"""

import argparse
import contextlib
import ctypes
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from filter_stage import write_input

from corpusmill.pipeline.engine import InlineEngine, Job, make_worker, publish_output
from corpusmill.pipeline.manifest import FileRef, TaskRow
from corpusmill.pipeline.recipe import stage_class, validate_recipe
from corpusmill.pipeline.run import RUN_FILE, Plan, describe
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import write_parquet
from corpusmill.pipeline.stage import Output, Piece
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress

SECTIONS: dict[str, Any] = {
    "filter": {"preset": "fineweb"}, "dedup": {"preset": "fineweb", "alarm": "warn"}, "tokenizer": {"vocabulary_size": 4096}, "tokens": {},
}  # fmt: skip
#: What is measured: these stages, one after the other.
MEASURED = {"filter": ["filter"], "dedup": ["dedup"], "all": list(SECTIONS)}
#: prctl: processes whose parent ends become children of this one, so that their seconds are counted.
PR_SET_CHILD_SUBREAPER = 36
TICKS, LOOK = os.sysconf("SC_CLK_TCK"), 0.05
Seconds = tuple[float, float]  # of processors, of the clock


def processors(*of: int) -> float:
    """Seconds of this process and of all that it has waited for, or of one of the two."""
    used = [resource.getrusage(who) for who in of or (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class Watch:
    """Adds up what calls take."""

    def __init__(self) -> None:
        self.cpu = self.wall = 0.0

    def timed(self, work: Callable[[], Any]) -> Any:
        cpu, wall = processors(), time.perf_counter()
        try:
            return work()
        finally:
            self.cpu += processors() - cpu
            self.wall += time.perf_counter() - wall


class Kernels(InlineEngine):
    """Measures what the calls of workers take, what Parquet does, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.work, self.parquet = Watch(), Watch()

    def perform(self, job: Job, pieces: Sequence[Piece], listener: Any) -> None:
        storage = Storage(job.run_root).child(job.stage)
        worker = make_worker(job)
        with contextlib.ExitStack() as ends:
            ends.callback(self.work.timed, worker.close)  # it waits for processes of its own there, whose seconds count from then on
            self.work.timed(worker.setup)
            for piece in pieces:
                output = self.work.timed(lambda piece=piece: worker.process(piece))
                self.parquet.timed(lambda output=output: encode(output))
                listener.on_done([publish_output(storage, piece.key, output, time.perf_counter())])


def encode(output: Output) -> None:
    """Makes the files of a task's tables, and forgets them."""
    for content in output.files.values():
        if isinstance(content, pa.Table):
            write_parquet(content, pa.BufferOutputStream())


class KernelRun(StageRun):
    """Tasks that the driver performs itself count, too."""

    engine: Kernels

    def once(self, task: str, inputs: Sequence[FileRef], function: Callable[[str], Output], *more: Any, **named: Any) -> TaskRow:
        return super().once(task, inputs, lambda identity: self.engine.work.timed(lambda: function(identity)), *more, **named)


def kernels(folder: str, what: str) -> None:
    """Performs the stages in this process; prints their seconds, and those with Parquet, as JSON."""
    sections, engine = recipe(what), Kernels()
    for stage in MEASURED[what]:
        KernelRun(stage_class(stage)(sections[stage]), Storage(folder), dict(sections), [], engine, Progress(False)).execute()
    work, parquet = engine.work, engine.parquet
    print(json.dumps([[work.cpu, work.wall], [work.cpu + parquet.cpu, work.wall + parquet.wall]]))


def recipe(what: str) -> dict[str, Any]:
    return validate_recipe({"ingest": {}, **{stage: SECTIONS[stage] for stage in MEASURED[what]}}, "benchmark")


class Unwaited(threading.Thread):
    """Adds up the seconds of processes below this one that nobody waits for: Ray's raylet ignores SIGCHLD, so the system adds the seconds
    of its workers to nobody's when they end."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seconds: dict[tuple[int, int], float] = {}  # by process and the moment of its start
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(LOOK):
            self.look()

    def look(self) -> None:
        found = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                values = path.read_text().rpartition(")")[2].split()
                found[int(path.parent.name)] = (int(values[1]), (int(values[11]) + int(values[12])) / TICKS, int(values[19]))
        for process, (parent, seconds, started) in found.items():
            unwaited = False
            while parent in found and parent != os.getpid():
                unwaited = unwaited or ignores_children(parent)
                parent = found[parent][0]
            if parent == os.getpid() and unwaited:
                self.seconds[process, started] = seconds


def ignores_children(process: int) -> bool:
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{process}/status").read_text()
        return bool(int(status.partition("SigIgn:")[2].split()[0], 16) >> (signal.SIGCHLD - 1) & 1)
    return False


def command(arguments: list[str], folder: str, what: str) -> tuple[Seconds, str]:
    """Runs a process on fresh stages and waits for all that it started. Seconds, and what it printed."""
    for stage in MEASURED[what]:
        shutil.rmtree(f"{folder}/{stage}", ignore_errors=True)
    before, unwaited, wall = processors(resource.RUSAGE_CHILDREN), Unwaited(), time.perf_counter()
    unwaited.start()
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    wall = time.perf_counter() - wall
    waited = set()  # workers that outlived their raylet are among them
    with contextlib.suppress(ChildProcessError):
        while True:
            waited.add(os.waitpid(-1, 0)[0])
    unwaited.ended.set()
    unwaited.join()
    others = sum(seconds for (process, _), seconds in unwaited.seconds.items() if process not in waited)
    return (processors(resource.RUSAGE_CHILDREN) - before + others, wall), done.stdout


def measured(folder: str, what: str, workers: list[int]) -> Iterator[tuple[str, Seconds]]:
    code = f"import overhead; overhead.kernels({folder!r}, {what!r})"
    _, printed = command(["-c", code], folder, what)
    bare, encoded = json.loads(printed.splitlines()[-1])
    yield "kernels", tuple(bare)
    yield "and Parquet", tuple(encoded)
    stages = MEASURED[what]
    ours = ["-m", "corpusmill", "run", f"{folder}/recipe.yaml", "--output", folder, "--from", stages[0], "--to", stages[-1]]
    yield "inline", command([*ours, "--engine", "inline"], folder, what)[0]
    for number in workers:
        yield f"ray, {number} worker{'s' if number > 1 else ''}", command([*ours, "--workers", str(number)], folder, what)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--megabytes", type=float, default=1000, help="of text")
    parser.add_argument("--stages", nargs="+", default=list(MEASURED), choices=list(MEASURED))
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--folder", help="where the runs are made (a temporary folder)")
    given = parser.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory(dir=given.folder) as root:
        for what in given.stages:
            folder = f"{root}/{what}"
            size = made(given.run, folder, what, given.megabytes)
            sections = {"ingest": {}, **{stage: SECTIONS[stage] for stage in MEASURED[what]}}
            Path(folder, "recipe.yaml").write_text(json.dumps(sections))
            compile_kernels(given.run, f"{root}/small", what)
            print(f"{', '.join(MEASURED[what])} of {size / 1e6:,.0f} MB of text", flush=True)
            show(measured(folder, what, given.workers), size)
            shutil.rmtree(folder)


def made(source: str, folder: str, what: str, megabytes: float) -> int:
    """A run with so much text for the stages. Returns its bytes."""
    size = sum(write_input(source, folder, megabytes))
    Storage(folder).write_bytes(RUN_FILE, describe(Plan(folder, recipe(what), [])))
    return size


def compile_kernels(source: str, folder: str, what: str) -> None:
    """Numba compiles what it has not compiled on this machine, on little text."""
    made(source, folder, what, 1)
    command(["-c", f"import overhead; overhead.kernels({folder!r}, {what!r})"], folder, what)
    shutil.rmtree(folder)


def show(lines: Iterator[tuple[str, Seconds]], size: int) -> None:
    """Prints each line as it comes; `size`: bytes of text."""
    seen: dict[str, float] = {}
    for name, (cpu, wall) in lines:
        seen[name] = cpu
        kernel, parquet = seen["kernels"], seen.get("and Parquet", cpu)
        if cpu < 0.9 * kernel:
            sys.exit(f"{name}: {cpu:.1f} s of processors, less than the kernels alone: some process was not counted.")
        rate = f"{size / 1e6 / cpu:5.2f} MB/s of a core, {cpu / 3600 / (size / 1e12):8,.0f} core-hours/TB"
        ratio = f"{cpu / kernel:5.3f} of kernels, {cpu / parquet:5.3f} with Parquet"
        print(f"  {name:15} {cpu:8.1f} s of processors ({ratio})  {wall:8.1f} s of the clock  {rate}", flush=True)


if __name__ == "__main__":
    main()
