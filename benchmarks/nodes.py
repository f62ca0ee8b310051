"""Compares the data stages on two worker nodes with one, each node pinned to one core, on the same input; and measures the machine's limit.

    python benchmarks/nodes.py CRAWL... [--recipe recipes/demo.yaml] [--no-ceiling] [--keep FOLDER]

Each cluster is real: a head and raylets as `make cluster-up` starts them. The head and the run's own process share the first node's core
in both cases, so one core is compared with two. A first run compiles the kernels. All files of the two runs are compared
byte by byte. Two cores of one machine share its memory and caches, so the ceiling is measured too: the same stages in one process on one
core alone, and then two such runs side by side on two cores. Twice the first time divided by the second is the largest possible gain.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from corpusmill.pipeline import cluster as clusters
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.storage import Storage

STAGES = ("ingest", "filter", "dedup", "tokenizer", "tokens")
ASKED = 1.8
#: Seconds of each stage, and of all stages under "all".
Times = dict[str, float]


def start(recipe: str, inputs: Sequence[str], run: Path, cores: Sequence[int], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Starts `corpusmill run` of the data stages, pinned; with an empty environment it runs inline."""
    engine = "ray" if environment else "inline"
    command = [sys.executable, "-m", "corpusmill", "run", recipe, *inputs, "--output", str(run), "--to", STAGES[-1], "--engine", engine]
    threads = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with open(f"{run}.log", "wb") as log:
        return subprocess.Popen(
            command, env={**os.environ, **threads, **environment}, stdout=log, stderr=log, preexec_fn=lambda: os.sched_setaffinity(0, cores)
        )


def finish(process: subprocess.Popen[bytes], run: Path) -> Times:
    """Waits for a run, which must succeed; returns its seconds from its own log."""
    if process.wait() != 0:
        sys.exit(f"{run}.log: the run failed:\n{Path(f'{run}.log').read_text()[-2000:]}")
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    times = {row["stage"]: row["fields"]["seconds"] for row in rows if row["event"] == "stage_end"}
    return {**times, "all": sum(times.values())}


@contextmanager
def cluster(folder: Path, cores: Sequence[Sequence[int]]) -> Iterator[dict[str, str]]:
    """Starts a cluster with a node for each group of cores; yields the environment for a run on it."""
    here = clusters.up(folder, len(cores), cores)
    try:
        yield {"RAY_ADDRESS": here["address"], **clusters.environment(here)}
    finally:
        clusters.down(folder)


def on_nodes(recipe: str, inputs: Sequence[str], run: Path, cores: Sequence[int]) -> Times:
    with cluster(run.parent / f"cluster-{len(cores)}", [[core] for core in cores]) as environment:
        return finish(start(recipe, inputs, run, cores[:1], environment), run)


def side_by_side(recipe: str, inputs: Sequence[str], runs: Sequence[Path], cores: Sequence[int]) -> Times:
    """Starts runs together, each on its core; returns the slower one's seconds of each stage."""
    processes = [start(recipe, inputs, run, [core], {}) for run, core in zip(runs, cores, strict=True)]
    try:
        times = [finish(process, run) for process, run in zip(processes, runs, strict=True)]
    finally:
        for process in processes:  # where one run fails, the other would go on
            process.terminate()
            process.wait()
    return {stage: max(found[stage] for found in times) for stage in times[0]}


def outputs(run: Path) -> dict[str, bytes]:
    """Returns every file that the manifests name."""
    found = {}
    for stage in STAGES:
        for row in Manifest(Storage(str(run / stage)), read_only=True).rows():
            for output in row.outputs:
                found[f"{stage}/{output.path}"] = (run / stage / output.path).read_bytes()
    return found


def compare(one: Path, two: Path) -> tuple[int, int, int]:
    """Returns files, bytes, and differing bytes; a file that only one run has counts as a whole."""
    left, right = outputs(one), outputs(two)
    different = 0
    for name in left.keys() | right.keys():
        a, b = left.get(name, b""), right.get(name, b"")
        different += 0 if a == b else sum(x != y for x, y in zip(a, b, strict=False)) + abs(len(a) - len(b))
    return len(left.keys() | right.keys()), sum(map(len, left.values())), different


def table(one: Times, two: Times, alone: Times | None, beside: Times | None) -> None:
    print(f"{'':10}  one node  two nodes  ratio" + ("   ceiling of this machine" if alone else ""))
    for stage in (*STAGES, "all"):
        ceiling = f"   {2 * alone[stage] / beside[stage]:4.2f}  ({alone[stage]:.1f} s, {beside[stage]:.1f} s)" if alone and beside else ""
        print(f"{stage:10}  {one[stage]:6.1f} s   {two[stage]:6.1f} s   {one[stage] / two[stage]:4.2f}{ceiling}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("inputs", nargs="+", metavar="CRAWL")
    parser.add_argument("--recipe", default=str(Path(__file__).parents[1] / "recipes" / "demo.yaml"))
    parser.add_argument("--no-ceiling", action="store_true", help="leave out the runs that tell what the machine allows")
    parser.add_argument("--keep", type=Path, help="where the runs stay; by default they are removed")
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        sys.exit("Two nodes with a core each need two cores.")
    folder = given.keep or Path(tempfile.mkdtemp(prefix="corpusmill-nodes-"))
    folder.mkdir(parents=True, exist_ok=True)
    inputs = [str(Path(path).absolute()) for path in given.inputs]
    try:
        began = time.monotonic()
        finish(start(given.recipe, inputs, folder / "warm", cores, {}), folder / "warm")
        print(f"kernels are compiled, the input is in memory ({time.monotonic() - began:.0f} s)", flush=True)
        one = on_nodes(given.recipe, inputs, folder / "one", cores[:1])
        two = on_nodes(given.recipe, inputs, folder / "two", cores)
        alone = beside = None
        if not given.no_ceiling:
            alone = side_by_side(given.recipe, inputs, [folder / "alone"], cores[:1])
            beside = side_by_side(given.recipe, inputs, [folder / "left", folder / "right"], cores)
        table(one, two, alone, beside)
        files, size, different = compare(folder / "one", folder / "two")
        print(f"{different} bytes differ ({files} files, {size / 1e6:,.1f} MB); asked: a ratio of {ASKED} and 0 bytes")
    finally:
        if not given.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
