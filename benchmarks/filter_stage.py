"""Compares the whole filter stage with datatrove's local executor: the same Parquet, the same filters, the same number of workers.

    python benchmarks/filter_stage.py RUN [--megabytes 250] [--workers 2] [--reference-megabytes 250] [--regex-words]

RUN is a run with a finished `ingest`. Its documents are repeated up to `--megabytes`, with the number of the copy at the end of each.
corpusmill's side is the command's whole work: Ray started, data and report written, Ray ended. datatrove reads the
same shards with its Parquet reader and writes Parquet; its chain stops at the first filter that drops a document, and keeps no
values. With `--reference-megabytes` it gets the first shards only, and its time (including some seconds of start-up) is
extrapolated by bytes of text. `--regex-words` gives it regular expressions in place of spaCy, as a second ratio.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.filters.worker import FilterConfig
from corpusmill.pipeline.manifest import Manifest, TaskRow
from corpusmill.pipeline.on_ray.engine import RayEngine
from corpusmill.pipeline.run import Plan, execute
from corpusmill.pipeline.shards import publish
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress

STEPS: list[Any] = [
    {"gopher_repetition": {"preset": "fineweb"}},
    {"gopher_quality": {"preset": "fineweb"}},
    {"c4": {"preset": "fineweb"}},
    {"fineweb_quality": {"preset": "fineweb"}},
]
SHARD_MEGABYTES = 4


def shards(source: str) -> Iterator[pa.Table]:
    manifest = Manifest(Storage(source).child("ingest"), read_only=True)
    for row in manifest.rows():
        for output in row.outputs:
            if output.path.startswith("data/"):
                yield pq.read_table(f"{source}/ingest/{output.path}").replace_schema_metadata(None)


def slices(table: pa.Table) -> Iterator[pa.Table]:
    """Splits a table into slices of at most 500 documents, so that shards have nearly the same size."""
    yield from (table.slice(start, 500) for start in range(0, table.num_rows, 500))


def write_input(source: str, target: str, megabytes: float, shard_megabytes: float = SHARD_MEGABYTES) -> list[int]:
    """Makes a run with a finished `ingest`, in shards of `shard_megabytes` of text. Returns the bytes of text in each shard."""
    storage = Storage(target).child("ingest")
    manifest, sizes, size, copy = Manifest(storage), [], 0, 0
    waiting: list[pa.Table] = []

    def flush() -> None:
        nonlocal size
        table = pa.concat_tables(waiting)
        key = f"part-{len(sizes):05d}"
        output = publish(storage, f"data/{key}.parquet", table)
        manifest.append(TaskRow(key, key, [], "", "", table.num_rows, table.num_rows, 0, size, [output]))
        sizes.append(size)
        waiting.clear()
        size = 0

    while sum(sizes) + size < megabytes * 1e6:
        for table in (piece for shard in shards(source) for piece in slices(shard)):
            texts = table["text"].to_pylist()
            changed = [f"{text}\nThis is copy number {copy} of it." if copy and text else text for text in texts]
            table = table.set_column(table.schema.get_field_index("text"), table.schema.field("text"), pa.array(changed, pa.large_string()))
            if copy:
                ids = pa.array([f"{copy:04x}{id_[4:]}" for id_ in table["id"].to_pylist()])
                table = table.set_column(0, table.schema.field("id"), ids)
            waiting.append(table)
            size += sum(len(text.encode()) for text in changed)
            if size >= shard_megabytes * 1e6:
                flush()
            if sum(sizes) + size >= megabytes * 1e6:
                break
        copy += 1
    if waiting:
        flush()
    manifest.finish(list(manifest.tasks))
    return sizes


def ours(folder: str, workers: int, word_rule: str) -> tuple[float, int, int]:
    """Returns (seconds from start to end, peak MB of a worker, documents kept)."""
    section = FilterConfig.model_validate({"steps": STEPS, "word_rule": word_rule})
    shutil.rmtree(f"{folder}/filter", ignore_errors=True)
    Path(folder, "metrics.jsonl").unlink(missing_ok=True)
    plan = Plan(folder, {"ingest": section, "filter": section}, [], "filter", "filter")
    started = time.perf_counter()
    execute(plan, RayEngine(workers), Progress(False))
    seconds = time.perf_counter() - started
    metrics = json.loads(Path(folder, "metrics.jsonl").read_text().splitlines()[-1])
    return seconds, metrics["peak_mb"], sum(row.kept for row in Manifest(Storage(folder).child("filter")).rows())


class RegexWords:
    """Replaces datatrove's tokenizer in each of its worker processes, which import the modules of the filters anew."""

    def __init__(self, step: Any):
        self.step = step
        self.name, self.type = step.name, step.type

    def __call__(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        from datatrove_filters import regex_words

        regex_words()
        return self.step(data, rank, world_size)

    def __repr__(self) -> str:
        return repr(self.step)

    @property
    def stats(self) -> Any:
        return self.step.stats


def datatrove(source: str, target: str, tasks: int, workers: int, regex: bool) -> tuple[float, int]:
    """Returns (seconds, documents kept) of the local executor on the first `tasks` shards, one shard a task."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter

    folder = f"{target}/input"
    Path(folder).mkdir(parents=True)
    for path in sorted(Path(source, "ingest/data").iterdir())[:tasks]:
        (Path(folder) / path.name).hardlink_to(path)
    steps: list[Any] = [
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(filter_no_terminal_punct=False),
        FineWebQualityFilter(),
    ]
    if regex:
        steps = [RegexWords(step) for step in steps]
    executor = LocalPipelineExecutor(
        [ParquetReader(folder), *steps, ParquetWriter(f"{target}/output")], tasks=tasks, workers=workers, logging_dir=f"{target}/logs",
    )  # fmt: skip
    started = time.perf_counter()
    executor.run()
    seconds = time.perf_counter() - started
    return seconds, sum(pq.read_metadata(path).num_rows for path in Path(target, "output").rglob("*.parquet"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run with a finished ingest")
    parser.add_argument("--megabytes", type=float, default=250)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--reference-megabytes", type=float, help="text for datatrove; its time is extrapolated")
    parser.add_argument("--regex-words", action="store_true", help="datatrove with a regular expression in place of spaCy, too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sizes = write_input(arguments.run, folder, arguments.megabytes)
        total = sum(sizes) / 1e6
        print(f"{total:.1f} MB of text in {len(sizes)} shards, {arguments.workers} workers", flush=True)
        seconds: dict[str, float] = {}
        for word_rule in ("spacy", "words"):
            with tempfile.TemporaryDirectory() as small:  # compiles the kernels
                write_input(arguments.run, small, 1)
                ours(small, 1, word_rule)
            seconds[word_rule], peak, kept = ours(folder, arguments.workers, word_rule)
            print(
                f"ours, word rule {word_rule}: {seconds[word_rule]:.1f} s, {total / seconds[word_rule]:.1f} MB/s, "
                f"{peak} MB a worker at most, {kept:,} documents kept", flush=True,
            )  # fmt: skip
        wanted = (arguments.reference_megabytes or arguments.megabytes) * 1e6
        tasks = next((n for n in range(1, len(sizes) + 1) if sum(sizes[:n]) >= wanted), len(sizes))
        tasks = min(len(sizes), -(-tasks // arguments.workers) * arguments.workers)  # each worker gets the same number of shards
        part = sum(sizes[:tasks]) / 1e6
        for regex in (False, True) if arguments.regex_words else (False,):
            rule = "words" if regex else "spacy"
            with tempfile.TemporaryDirectory() as target:
                reference, kept = datatrove(folder, target, tasks, arguments.workers, regex)
            whole = reference * total / part
            how = "" if tasks == len(sizes) else f" (extrapolated from {part:.1f} MB in {reference:.1f} s, {kept:,} kept)"
            print(
                f"datatrove, {'a regular expression for words' if regex else 'stock'}: {whole:.1f} s, {part / reference:.2f} MB/s{how}; "
                f"ours takes {whole / seconds[rule]:.1f} times less", flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
