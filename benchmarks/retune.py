"""Measures the seconds of `retune` on a report of a million rows, made by repeating the filter stage's shards of a real run.

    python benchmarks/retune.py RUN [--rows 1000000] [--set filter.thresholds.gopher_long_doc=90000]...

Each `--set` is a retuning of its own; they run one after the other.
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
from large_run import repeat_run

from corpusmill.filters.whatif import Retuned, retune
from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.watch.progress import Progress

SETS = [
    "filter.thresholds.gopher_long_doc=90000",
    "filter.thresholds.gopher_short_doc=60",
    "filter.thresholds.gopher_short_doc=40",
]


class Clock:
    """Records the time when the verdicts are known."""

    seconds = cpu = 0.0

    def __call__(self, result: Retuned) -> None:
        self.seconds, self.cpu = time.perf_counter(), time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run whose filter stage is finished")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--set", action="append", help="a retuning; may be given again")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path(arguments.run).resolve().parent) as folder:
        repeat_run(arguments.run, folder, arguments.rows, stages=("ingest", "filter"), counted="filter")
        shards = list(Path(folder, "filter/report").iterdir())
        rows = sum(pq.read_metadata(shard).num_rows for shard in shards)
        print(f"{rows:,} rows of report in {len(shards)} shards, {os.cpu_count()} cores")
        for override in arguments.set or SETS:
            started, cpu = time.perf_counter(), time.process_time()
            decided = Clock()
            result = retune(folder, [override], InlineEngine(), Progress(False), on_decided=decided)
            print(
                f"{override}: decided in {decided.seconds - started:.2f} s ({decided.cpu - cpu:.2f} s of CPU), "
                f"written in {time.perf_counter() - started:.2f} s ({time.process_time() - cpu:.2f} s of CPU); "
                f"{result.came_back:,} documents came back, {result.gone:,} went, {result.data_shards} data shards written"
            )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")


if __name__ == "__main__":
    main()
