"""Makes a run folder of a million report rows, by repeating the shards of a finished run.

    python benchmarks/large_run.py RUN OUT [--rows 1000000] [--texts | --no-texts] [--workers 2]

In repetition 7 the id `5f2c09d1...` is `000709d1...` in every table, the URL `http://host/x` is `http://r0007.host/x`, the crawl file
`crawl.warc.gz` is `r0007-crawl.warc.gz`, and the numbers of shards continue. So no two repetitions share a document, a URL, a cluster or a
crawl file, and each is equal to RUN otherwise. Manifests, sizes and hashes are those of the new files; the filter stage can be retuned.
Intermediate files (signatures, keys, encoded parts) are left out, so later stages can't be redone. The tokenizer is that of RUN.
"""

import argparse
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.filters.stage import FilterStage
from corpusmill.filters.worker import FilterWorker
from corpusmill.pipeline.code import code_for
from corpusmill.pipeline.config import config_digest, digest
from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.manifest import FileRef, Manifest, TaskRow, task_identity
from corpusmill.pipeline.run import RUN_FILE, plan_of_existing
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import OutputFile, publish, read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import SHARDS_FILE, SPLITS, ShardSet
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.report.read import RunReader

STAGES = ("ingest", "filter", "dedup", "tokens")
#: Files that are repeated; all other files of these stages are intermediate.
REPEATED = re.compile(r"(data|report|clusters)/part-\d+(-\d+)?\.parquet|(train|validation)/tokens-\d+\.(bin|index\.parquet)")
#: The one table of a stage without a number in its name.
SOURCES = "clusters/sources.parquet"
NUMBER = re.compile(r"-(\d{5})")
IDS = ("id", "kept_id", "cluster_id", "full_cluster")
URLS = ("url", "canonical_url")


@dataclass(frozen=True)
class Repetition:
    """One repetition: `number`, and the number of shards of each kind (`part`, or a split's name) in a repetition."""

    number: int
    shards: dict[str, int]

    def path(self, path: str) -> str:
        """Returns a shard's path (or name) in this repetition."""
        kind = next((folder for folder in (*SPLITS, "clusters") if f"{folder}/" in path), "part")
        return NUMBER.sub(lambda found: f"-{int(found[1]) + self.number * self.shards[kind]:05d}", path)

    def source(self, path: str) -> str:
        folder, slash, name = path.rpartition("/")
        return f"{folder}{slash}r{self.number:04d}-{name}"

    def table(self, table: pa.Table) -> pa.Table:
        """Returns a shard's table in this repetition; ignores columns that the table does not have."""
        changes: dict[str, Callable[[pa.ChunkedArray], Any]] = {
            **dict.fromkeys(IDS, lambda ids: pc.utf8_replace_slice(ids, 0, 4, f"{self.number:04x}")),
            **dict.fromkeys(URLS, lambda urls: pc.replace_substring(urls, "://", f"://r{self.number:04d}.", max_replacements=1)),
            "source": partial(each_value, self.source),
            "shard": partial(each_value, self.path),
            "data_file": partial(each_value, self.path),
            "shards": lambda lists: self._token_shards(lists.combine_chunks(), table["split"]),
        }
        for name, change in changes.items():
            place = table.schema.get_field_index(name)
            if place >= 0 and not pa.types.is_integer(table.field(place).type):  # in one table `url` is a count
                table = table.set_column(place, table.field(place), change(table[name]))
        return table

    def _token_shards(self, lists: pa.ListArray, splits: pa.ChunkedArray) -> pa.ListArray:
        """Returns the numbers of the token shards that have a document, continued within its split."""
        offsets = pc.coalesce(*(pc.if_else(pc.equal(splits, split), self.number * self.shards[split], None) for split in SPLITS), 0)
        values = pc.add(lists.flatten(), offsets.take(pc.list_parent_indices(lists)).combine_chunks())
        lengths = pc.fill_null(pc.list_value_length(lists), 0)
        starts = pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths)])
        return pa.ListArray.from_arrays(starts, values, mask=lists.is_null())


def each_value(change: Callable[[str], str], column: pa.ChunkedArray) -> pa.Array:
    """Changes each value of a column that has few different strings."""
    encoded = column.combine_chunks().dictionary_encode()
    return pa.array([change(value) for value in encoded.dictionary.to_pylist()], column.type).take(encoded.indices)


@dataclass(frozen=True)
class Job:
    """A file to write: `old` in RUN, `new` in OUT, both relative to the run's folder."""

    old: str
    new: str
    repetition: Repetition
    texts: bool


def write(source: str, target: str, job: Job) -> OutputFile:
    """Writes one shard; a token shard's array becomes a link. The job's paths are relative to the run."""
    if job.old.endswith(".bin"):
        return OutputFile(job.new, linked(Path(source, job.old), Path(target, job.new)), "")
    table = job.repetition.table(read_table(Storage(source), job.old))
    if not job.texts and "text" in table.column_names:
        place = table.schema.get_field_index("text")
        table = table.set_column(place, table.field(place), pa.array([""] * table.num_rows, pa.large_string()))
    return publish(Storage(target), job.new, table)


def linked(source: Path, target: Path) -> int:
    """Links a file, or copies it where the folders are on different disks. Returns its bytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target.stat().st_size


def repeat_run(
    source: str,
    target: str,
    rows: int,
    texts: bool = True,
    stages: tuple[str, ...] = STAGES,
    counted: str = "ingest",
    workers: int = os.cpu_count() or 1,
) -> int:
    """Makes the run `target` of about `rows` report rows of the stage `counted`, in whole repetitions. Returns their number."""
    reader = RunReader(source)
    rows_one = sum(task.rows_in for task in reader.stages[counted].tasks)
    if not rows_one:
        raise SystemExit(f"{source}: its stage {counted} has no report, so there is nothing to repeat.")
    if os.path.exists(target) and os.listdir(target):
        raise SystemExit(f"{target}: already there.")
    stages = tuple(name for name in stages if reader.stages[name].status == "complete")
    shards = count_shards(reader, stages)
    repetitions = [Repetition(number, shards) for number in range(max(1, round(rows / rows_one)))]
    jobs = [
        Job(f"{stage}/{path}", repetition.path(f"{stage}/{path}"), repetition, texts)
        for repetition in repetitions
        for stage in stages
        for path in reader.stages[stage].outputs("")
        if REPEATED.fullmatch(path)
    ]
    with ProcessPoolExecutor(workers) as pool:
        written = pool.map(partial(write, source, target), jobs, chunksize=4)
        outputs = {(job.repetition.number, job.old): output for job, output in zip(jobs, written, strict=True)}
    rewritten = Rewritten(reader, Storage(target), repetitions, outputs)
    for stage in stages:
        rewritten.manifest(stage, filter_params(source) if stage == "filter" else None)
    copy_rest(reader, Path(source), Path(target), len(repetitions))
    return rows_one * len(repetitions)


def count_shards(reader: RunReader, stages: tuple[str, ...]) -> dict[str, int]:
    """Counts the shards of one repetition, by kind (see `Repetition`)."""
    counts = dict.fromkeys(("part", "clusters", *SPLITS), 0)
    for path in chain.from_iterable(reader.stages[stage].outputs("") for stage in stages):
        if REPEATED.fullmatch(path):
            kind = path.split("/")[0]
            kind = kind if kind in counts else "part"
            counts[kind] = max(counts[kind], int(NUMBER.findall(path)[0]) + 1)
    return counts


def filter_params(source: str) -> Callable[[str, list[FileRef]], str]:
    """Returns the parameters by which the filter stage identifies a task, so that it (and `retune`) takes over the repeated shards."""
    plan = plan_of_existing(source)
    stage = FilterStage(plan.sections["filter"])
    run = StageRun(stage, Storage(source), dict(plan.sections), plan.inputs, InlineEngine(), Progress(False))
    _, params = stage.tasks(run)
    config = config_digest(stage.config)
    code = code_for(FilterWorker, stage.config.model_dump(mode="json"), params).digest
    return lambda task, inputs: task_identity(task, inputs, {**params, "piece": {}}, config, code)


@dataclass(frozen=True)
class Rewritten:
    """Data for the manifests of the new run; `outputs` are the written files by repetition and old path, with paths relative to the run."""

    reader: RunReader
    target: Storage
    repetitions: list[Repetition]
    outputs: dict[tuple[int, str], OutputFile]

    def manifest(self, stage: str, identity: Callable[[str, list[FileRef]], str] | None = None) -> None:
        """Writes a stage's manifest. `identity` returns a task's identity as in the stage; without it, no stage knows the identities."""
        manifest = Manifest(self.target.child(stage))
        for row in self._rows(stage):
            manifest.append(replace(row, identity=identity(row.task, row.inputs)) if identity else row)
        manifest.finish(list(manifest.tasks))

    def _rows(self, stage: str) -> Iterator[TaskRow]:
        tasks = self.reader.stages[stage].tasks
        for repetition in self.repetitions:
            for row in tasks:
                outputs = [self.outputs.get((repetition.number, f"{stage}/{output.path}")) for output in row.outputs]
                found = [self._in_stage(stage, old, new) for old, new in zip(row.outputs, outputs, strict=True) if new]
                if found:
                    number = NUMBER.findall(found[0].path)[0]
                    inputs = [self._input(repetition, ref) for ref in row.inputs]
                    identity = digest([row.identity, repetition.number])
                    yield replace(row, task=NUMBER.sub(f"-{number}", row.task), identity=identity, inputs=inputs, outputs=found)
        for row in tasks:
            for name, make in ((SOURCES, self._sources), (SHARDS_FILE, self._shard_sets)):
                if any(output.path.endswith(name) for output in row.outputs):
                    yield self._times(replace(row, outputs=make()))

    def _in_stage(self, stage: str, old: OutputFile, new: OutputFile) -> OutputFile:
        return replace(new, path=new.path.removeprefix(f"{stage}/"), sha256=new.sha256 or old.sha256)

    def _input(self, repetition: Repetition, ref: FileRef) -> FileRef:
        """Returns an input of a task: a shard of its repetition, a file of the crawl, or an intermediate file that is gone."""
        made = self.outputs.get((repetition.number, ref.path))
        if made:
            return FileRef(made.path, made.sha256, made.bytes)
        return ref if ref.path.split("/")[0] in STAGES else replace(ref, path=repetition.source(ref.path))

    def _times(self, row: TaskRow) -> TaskRow:
        """Returns a task's counts multiplied for all repetitions; maxima stay the same."""
        times = len(self.repetitions)
        counts = {name: count if name.startswith("largest") else count * times for name, count in row.counts.items()}
        return replace(row, rows_in=row.rows_in * times, kept=row.kept * times, dropped=row.dropped * times, counts=counts)

    def _sources(self) -> list[OutputFile]:
        table = read_table(self.reader.storage.child("dedup"), SOURCES)
        return [publish(self.target.child("dedup"), SOURCES, pa.concat_tables(r.table(table) for r in self.repetitions))]

    def _shard_sets(self) -> list[OutputFile]:
        found = []
        for split in SPLITS:
            folder = f"tokens/{split}"
            if self.reader.storage.exists(f"{folder}/{SHARDS_FILE}"):
                old = ShardSet.read(self.reader.storage.child(folder))
                shards = []
                for repetition in self.repetitions:
                    for shard in old.shards:
                        array, index = (self.outputs[repetition.number, f"{folder}/{name}"] for name in (shard.file, shard.index))
                        names = {"file": Path(array.path).name, "index": Path(index.path).name}
                        shards.append(replace(shard, **names, index_sha256=index.sha256, plans=()))
                description = replace(old, shards=tuple(shards)).to_json()
                found.append(publish(self.target.child("tokens"), f"{split}/{SHARDS_FILE}", description))
        return found


def copy_rest(reader: RunReader, source: Path, target: Path, times: int) -> None:
    """Copies the run's description, its metrics (with times that the larger run would have taken), and its tokenizer."""
    shutil.copy(source / RUN_FILE, target / RUN_FILE)
    lines = []
    for measure in reader.json_lines("metrics.jsonl"):
        for name in ("seconds", "worker_seconds", "tasks", "rows_in", "bytes_in"):
            if name in measure:
                measure[name] = round(measure[name] * times, 3)
        lines.append(json.dumps(measure) + "\n")
    Storage(str(target)).write_bytes("metrics.jsonl", "".join(lines).encode())
    if reader.stages["tokenizer"].status == "complete":
        for path in ("manifest.jsonl", *reader.stages["tokenizer"].outputs("")):
            linked(source / "tokenizer" / path, target / "tokenizer" / path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a finished run (ingest to dedup, or to tokens)")
    parser.add_argument("out", help="the folder to make")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of ingest's report, about")
    parser.add_argument("--texts", action=argparse.BooleanOptionalAction, default=True, help="without them documents have empty texts")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    started = time.perf_counter()
    rows = repeat_run(arguments.run, arguments.out, arguments.rows, arguments.texts, workers=arguments.workers)
    shards = len(list(Path(arguments.out, "ingest/report").iterdir()))
    print(f"{arguments.out}: {rows:,} rows of ingest's report in {shards:,} shards, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
