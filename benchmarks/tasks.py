"""Measures a run whose tasks do nothing, by number of tasks: driver's milliseconds a task, seconds of a resume, and peak memory.

    python benchmarks/tasks.py [--tasks 10000 100000] [--engine inline ray] [--workers 2] [--files 1] [--folder DIR] [--profile]

There are two stages with the same number of tasks: `ingest`, whose tasks name a crawl file, and `filter`, which reads ingest's output. A
task writes `--files` files of a few bytes. All else is real: runner, engine, manifest, publication, `progress.json`, the cleaning at the
end. Each line is a process of its own: `first` performs everything, `again` finds everything finished, `killed` finds everything finished
except the `complete` rows. Milliseconds are of the driver's process for one task of one stage: wall (including the workers' time) and CPU.
`--folder` may be on a store (s3://...).
"""

import argparse
import cProfile
import json
import os
import pstats
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from corpusmill.pipeline.config import Config
from corpusmill.pipeline.engine import Engine, InlineEngine, peak_memory_mb
from corpusmill.pipeline.events import Events
from corpusmill.pipeline.manifest import FileRef, Manifest
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Output, Stage, Task, Worker
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.log import RunLog
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.pipeline.watch.progress_file import ProgressFile

HERE = Path(__file__).resolve().parent
STAGES = ("ingest", "filter")
LINE = "{:7} {:>7} tasks {:7} {:6.3f} ms wall {:6.3f} ms CPU a task {:8.1f} s in all, driver's peak {:5,} MB"


class Empty(Worker):
    """Does nothing, and reports the counts of a stage's task."""

    def process(self, task: Task) -> Output:
        kinds = ("data", "report")[: self.params["files"]]
        files = {f"{kind}/{task.key}.parquet": f"{kind} {task.key}".encode() for kind in kinds}
        return Output(dict(files), rows_in=3, kept=2, dropped=1, bytes_in=100, counts={"failed words": 1})


class Tasks(Stage):
    Config = Config

    def __init__(self, name: str, tasks: int, files: int):
        super().__init__(Config())
        self.name = name  # type: ignore[misc]
        self.tasks, self.files = tasks, files

    def execute(self, run: StageRun) -> None:
        if self.name == "ingest" or not self.files:
            refs = [FileRef(f"/crawl/CC-MAIN-{n // 8:06d}.warc.gz", "1040187392-1700000000000000000", 1 << 30) for n in range(self.tasks)]
        else:
            refs = run.documents()
        run.map("", Empty, [Task(f"part-{n:05d}", (ref,)) for n, ref in enumerate(refs)], {"files": self.files})


def engine_named(name: str, workers: int) -> Engine:
    if name == "inline":
        return InlineEngine()
    from corpusmill.pipeline.on_ray.engine import RayEngine

    return RayEngine(workers)


def child(folder: str, tasks: int, name: str, workers: int, files: int, profile: bool) -> None:
    """Performs both stages in this process and prints their cost as JSON."""
    run, engine = Storage(folder), engine_named(name, workers)
    connect = getattr(engine, "connect", lambda: None)
    connect()  # the start of Ray is not measured
    profiler = cProfile.Profile()
    wall, cpu, performed = time.perf_counter(), time.process_time(), 0
    if profile:
        profiler.enable()
    for stage in STAGES:
        events = Events(RunLog(run), ProgressFile(run))
        done = StageRun(Tasks(stage, tasks, files), run, dict.fromkeys(STAGES), [], engine, Progress(False), events)
        done.execute()
        performed += done.performed
    profiler.disable()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    engine.close()
    if profile:
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(30)
    print(json.dumps({"wall": wall, "cpu": cpu, "performed": performed, "peak": peak_memory_mb()}))


def measured(folder: str, tasks: int, engine: str, given: argparse.Namespace) -> dict[str, float]:
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])  # Ray's workers import this file, too
    arguments = (folder, tasks, engine, given.workers, given.files, given.profile)
    code = f"import tasks; tasks.child(*{arguments!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def reopen(folder: str) -> None:
    """Leaves the stages as a kill just before their end would."""
    for stage in STAGES:
        Manifest(Storage(folder).child(stage)).reopen()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--engine", nargs="+", default=["inline", "ray"], choices=["inline", "ray"])
    parser.add_argument("--workers", type=int, default=2, help="of Ray")
    parser.add_argument("--files", type=int, default=1, choices=[0, 1, 2], help="files that a task writes")
    parser.add_argument("--folder", help="where the runs are made (a temporary folder); removed at the end")
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    root = given.folder or tempfile.mkdtemp()
    try:
        for engine in given.engine:
            for tasks in given.tasks:
                folder = f"{root}/{engine}-{tasks}"
                for what in ("first", "again", "killed"):
                    if what == "killed":
                        reopen(folder)
                    found = measured(folder, tasks, engine, given)
                    if found["performed"] != (2 * tasks if what == "first" else 0):
                        raise SystemExit(f"{what}: {found['performed']:,.0f} tasks were performed.")
                    each = (found[name] / (2 * tasks) * 1e3 for name in ("wall", "cpu"))
                    print(LINE.format(engine, f"{tasks:,}", what, *each, found["wall"], int(found["peak"])), flush=True)
                Storage(folder).remove_folder("")
    finally:
        if not given.folder:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
