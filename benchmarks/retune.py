"""Seconds that `retune` takes on a report of a million rows, made by repeating the filter stage's shards of a real run.

    python benchmarks/retune.py RUN [--rows 1000000] [--set filter.thresholds.gopher_long_doc=90000]...

Each `--set` is one retuning, one after the other. Data shards are hard links, so the copy takes little more than its reports.
"""

import argparse
import os
import resource
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from corpusmill.filters.retune import Retuned, retune
from corpusmill.filters.stage import FilterStage
from corpusmill.pipeline.config import config_digest
from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.manifest import FileRef, Manifest, task_identity
from corpusmill.pipeline.progress import Progress
from corpusmill.pipeline.run import plan_of_existing
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import OutputFile
from corpusmill.pipeline.storage import Storage

SETS = [
    "filter.thresholds.gopher_long_doc=90000",
    "filter.thresholds.gopher_short_doc=60",
    "filter.thresholds.gopher_short_doc=40",
]


def repeated(source: str, target: str, rows: int) -> int:
    """Makes the run `target` of the shards of `source`, over and over until its report has so many rows. Returns the number."""
    plan = plan_of_existing(source)
    run = Storage(target)
    shutil.copy(f"{source}/run.json", f"{target}/run.json")
    stage = FilterStage(plan.sections["filter"])
    old = StageRun(stage, Storage(source), dict(plan.sections), plan.inputs, InlineEngine(), Progress(False))
    pieces, params = stage.tasks(old)
    manifests = {name: Manifest(run.child(name)) for name in ("ingest", "filter")}
    upstream = Manifest(Storage(f"{source}/ingest"))
    by_path = {f"ingest/{output.path}": row for row in upstream.rows() for output in row.outputs}
    total, number = 0, 0
    while total < rows:
        for piece in pieces:
            if total >= rows:
                break
            key, row = f"part-{number:05d}", old.manifest.tasks[piece.key]
            (shard,) = piece.inputs
            for stage_name, path in (("ingest", shard.path.removeprefix("ingest/")), *(("filter", o.path) for o in row.outputs)):
                link = Path(target, stage_name, path).with_name(f"{key}.parquet")
                link.parent.mkdir(parents=True, exist_ok=True)
                os.link(f"{source}/{stage_name}/{path}", link)
            data = FileRef(f"ingest/data/{key}.parquet", shard.fingerprint, shard.bytes)
            ingested = OutputFile(f"data/{key}.parquet", shard.bytes, shard.fingerprint)
            manifests["ingest"].append(replace(by_path[shard.path], task=key, outputs=[ingested]))
            outputs = [replace(o, path=f"{Path(o.path).parent}/{key}.parquet") for o in row.outputs]
            identity = task_identity(key, [data], {**params, "piece": {}}, config_digest(plan.sections["filter"]), old.code)
            manifests["filter"].append(replace(row, task=key, identity=identity, inputs=[data], outputs=outputs))
            total, number = total + row.rows_in, number + 1
    for manifest in manifests.values():
        manifest.finish(list(manifest.tasks))
    return total


class Clock:
    """Remembers when the verdicts were known."""

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
        rows = repeated(arguments.run, folder, arguments.rows)
        print(f"{rows:,} rows of report in {len(list(Path(folder, 'filter/report').iterdir()))} shards, {os.cpu_count()} cores")
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
