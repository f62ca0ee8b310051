"""Measures what Ray and a run's bookkeeping cost on top of the kernels: processor seconds of a stage, and their parts.

    python benchmarks/overhead.py RUN [--megabytes 1000] [--shard-mb 30] [--stages filter dedup all] [--workers 1 2] [--folder DIR]

RUN is a run with a finished `ingest`; its documents are repeated as in filter_stage.py, in shards of `--shard-mb`: 30 MB is the text of
one task of ingest by default (WARC.gz or JSONL). Each line is the command `corpusmill run` as a user calls it, from start to
end, inline or on a Ray of its own; `all` is filter to tokens in one command. Seconds are what the system counted for all processes at their
end: the command's, and those of all that Ray starts for it. Nobody waits for Ray's workers, so their seconds are sampled 20 times a second,
and the last 0.05 s of each are missing. Of these seconds `counted.py` counts in the same run:

* kernels: the calls of the workers, with what each loads (libraries, models, JIT);
* Parquet: making the files of the documents and of the report, in memory, which any tool has to do.

The rest is bookkeeping and Ray. Ratios are all seconds divided by the kernels', and by those of kernels and Parquet. Text is in UTF-8.

    python benchmarks/overhead.py CRAWL --against CHECKOUT [--recipe fineweb] [--pairs 5]

CRAWL is a crawl's folder. Each stage of the recipe runs with this checkout and with another one (that of an earlier commit, say), in turns
and inline. Prints the user's processor seconds of both, each as the median of the pairs, and the median of their ratios.
"""

import argparse
import contextlib
import ctypes
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from counted import FOLDER, counted
from filter_stage import write_input

from corpusmill.pipeline.recipe import validate_recipe
from corpusmill.pipeline.run import RUN_FILE, Plan, describe
from corpusmill.pipeline.storage import Storage

SECTIONS: dict[str, Any] = {
    "filter": {"preset": "fineweb"}, "dedup": {"preset": "fineweb", "alarm": "warn"}, "tokenizer": {"vocab_size": 4096}, "tokens": {},
}  # fmt: skip
#: Groups of stages to measure, one after the other.
MEASURED = {"filter": ["filter"], "dedup": ["dedup"], "all": list(SECTIONS)}
#: prctl: processes whose parent ends become children of this one, so that their seconds are counted.
PR_SET_CHILD_SUBREAPER = 36
TICKS, LOOK = os.sysconf("SC_CLK_TCK"), 0.05
Seconds = tuple[float, float]  # processor seconds, wall seconds


def children() -> float:
    """Returns the processor seconds of all children that this process has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Unwaited(threading.Thread):
    """Adds up the seconds of descendants that nobody waits for. Ray's raylet ignores SIGCHLD, so the system adds the seconds of its ended
    workers to no process.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seconds: dict[tuple[int, int], float] = {}  # by process and start time
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


def command(arguments: list[str], folder: str, what: str) -> Seconds:
    """Runs a process on fresh stages and waits for all processes that it started."""
    for stage in MEASURED[what]:
        shutil.rmtree(f"{folder}/{stage}", ignore_errors=True)
    before, unwaited, wall = children(), Unwaited(), time.perf_counter()
    unwaited.start()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    wall = time.perf_counter() - wall
    waited = set()  # includes workers that outlived their raylet
    with contextlib.suppress(ChildProcessError):
        while True:
            waited.add(os.waitpid(-1, 0)[0])
    unwaited.ended.set()
    unwaited.join()
    others = sum(seconds for (process, _), seconds in unwaited.seconds.items() if process not in waited)
    return children() - before + others, wall


def measured(folder: str, what: str, workers: list[int]) -> Iterator[tuple[str, Seconds, Counter[str]]]:
    """Yields for each way to run the stages: seconds of all processes, and the counted ones."""
    stages = MEASURED[what]
    ours = ["run", f"{folder}/recipe.yaml", "--output", folder, "--from", stages[0], "--to", stages[-1]]
    ways = {"inline": ["--engine", "inline"]} | {
        f"ray, {number} worker{'s' if number > 1 else ''}": ["--engine", "ray", "--workers", str(number)] for number in workers
    }
    for name, way in ways.items():
        shutil.rmtree(f"{folder}/{FOLDER}", ignore_errors=True)
        yield name, command(["-c", "import counted; counted.main()", *ours, *way], folder, what), counted(folder)


def paired(crawl: str, checkouts: tuple[str, str], recipe: str, pairs: int, root: str) -> None:
    """Prints for each stage the user's processor seconds with two checkouts, and the share that the first one takes more."""
    found: dict[str, list[list[float]]] = {}
    for pair in range(pairs + 1):  # the first one compiles kernels and warms caches
        for which in (0, 1) if pair % 2 else (1, 0):
            folder = f"{root}/{which}"
            shutil.rmtree(folder, ignore_errors=True)
            environment = {**os.environ, "PYTHONPATH": f"{checkouts[which]}/src", "OMP_NUM_THREADS": "1"}
            for stage in ("ingest", "filter", "dedup"):
                given = [f"{checkouts[which]}/recipes/{recipe}.yaml", crawl, "--output", folder, "--to", stage, "--engine", "inline"]
                before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
                subprocess.run([sys.executable, "-m", "corpusmill", "run", *given], env=environment, check=True, capture_output=True)
                seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
                if pair:
                    found.setdefault(stage, [[], []])[which].append(seconds)
    for stage, (here, there) in found.items():
        ratios = [a / b for a, b in zip(here, there, strict=True)]
        print(
            f"{stage:8} {statistics.median(here):6.2f} s here, {statistics.median(there):6.2f} s there, ratio "
            f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}, {pairs} pairs)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN or CRAWL")
    parser.add_argument("--megabytes", type=float, default=1000, help="of text")
    parser.add_argument("--shard-mb", type=float, default=30, help="text a shard")
    parser.add_argument("--stages", nargs="+", default=list(MEASURED), choices=list(MEASURED))
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--folder", help="where the runs are made (a temporary folder)")
    parser.add_argument("--against", help="a checkout to compare with")
    parser.add_argument("--recipe", default="fineweb")
    parser.add_argument("--pairs", type=int, default=5)
    given = parser.parse_args()
    if given.against:
        with tempfile.TemporaryDirectory(dir=given.folder) as root:
            paired(given.run, (str(Path(__file__).resolve().parent.parent), given.against), given.recipe, given.pairs, root)
        return
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory(dir=given.folder) as root:
        for what in given.stages:
            folder = f"{root}/{what}"
            size = made(given.run, folder, what, given.megabytes, given.shard_mb)
            compile_kernels(given.run, f"{root}/small", what)
            print(f"{', '.join(MEASURED[what])} of {size / 1e6:,.0f} MB of text, {given.shard_mb:g} a shard", flush=True)
            show(measured(folder, what, given.workers), size)
            shutil.rmtree(folder)


def made(source: str, folder: str, what: str, megabytes: float, shard_mb: float) -> int:
    """Makes a run with `megabytes` of text for the stages, and its recipe. Returns the bytes of text."""
    size = sum(write_input(source, folder, megabytes, shard_mb))
    sections = {"ingest": {}, **{stage: SECTIONS[stage] for stage in MEASURED[what]}}
    Path(folder, "recipe.yaml").write_text(json.dumps(sections))
    Storage(folder).write_bytes(RUN_FILE, describe(Plan(folder, validate_recipe(sections, "benchmark"), [])))
    return size


def compile_kernels(source: str, folder: str, what: str) -> None:
    """Lets numba compile the kernels that are not compiled on this machine, on little text."""
    made(source, folder, what, 1, 1)
    for _ in measured(folder, what, []):
        pass
    shutil.rmtree(folder)


def show(lines: Iterator[tuple[str, Seconds, Counter[str]]], size: int) -> None:
    """Prints each line as it comes; `size` is in bytes of text."""
    for name, (cpu, wall), of in lines:
        kernels, parquet = of["kernels"], of["Parquet"]
        rest = cpu - kernels - parquet
        if rest < 0 or not kernels:
            sys.exit(f"{name}: {cpu:.1f} s of processors, less than its kernels' {kernels:.1f}: some process was not counted.")
        parts = f"kernels {kernels:6.1f}, Parquet {parquet:4.1f}, all else {rest:4.1f}"
        ratio = f"{cpu / kernels:5.3f} of kernels, {cpu / (kernels + parquet):5.3f} with Parquet"
        speed = f"{wall:6.1f} s of the clock, {size / 1e6 / cpu:5.2f} MB/s of a core"
        print(f"  {name:15} {cpu:6.1f} s of processors: {parts} ({ratio}); {speed}", flush=True)


if __name__ == "__main__":
    main()
