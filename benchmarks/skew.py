"""Measures a crawl with one file 1,000 times as large as the others: how far a run is from the ideal, in which all workers are always busy.

    python benchmarks/skew.py WARCS RUN [--megabytes 64] [--formats warc wet jsonl jsonl.gz parquet] [--to tokens] [--workers 2]
                              [--task-mb 4]

WARCS is a folder of *.warc.gz, from which `warc` is made; the other formats hold the texts of RUN, which has a finished `ingest`. The large
file has `--megabytes`; next to it are 40 files of a thousandth of that. Prints a line a phase: `ideal` is the sum of the seconds of its
tasks, divided by the workers (or by the number of tasks where there are fewer); `ratio` is the phase's seconds divided by the ideal. Phases
of the driver's own have one task. The first phase includes the start of Ray. `largest` is the largest task's share of a file's
bytes.
"""

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from fastwarc.warc import ArchiveIterator

from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.storage import Storage
from corpusmill.report.read import RunReader

SMALL_FILES, TIMES = 40, 1000
RECIPE = """
ingest: {{task_mb: {task_mb}}}
filter: {{preset: fineweb}}
dedup: {{preset: fineweb, alarm: warn}}
tokenizer: {{vocab_size: 2048}}
tokens: {{shard_tokens: 500000}}
"""
FORMATS = ("warc", "wet", "jsonl", "jsonl.gz", "parquet")
WET = "WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: {}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n"


def members(folder: Path) -> Iterator[bytes]:
    """Yields the records of the folder's WARC.gz files unchanged, compressed each by itself; after the last it starts again."""
    for path in cycle(sorted(folder.glob("*.warc.gz"))):
        content = path.read_bytes()
        starts = [record.stream_pos for record in ArchiveIterator(open(path, "rb"), parse_http=False)]
        yield from (content[start:end] for start, end in zip(starts, [*starts[1:], len(content)], strict=True))


def documents(run: str) -> Iterator[dict[str, str]]:
    """Yields the texts of a run, with URLs that do not repeat."""
    for turn in cycle(range(1 << 30)):
        for table in RunReader(run).tables("ingest", "data", ["url", "text"]):
            for row in table.to_pylist():
                yield {"url": f"http://r{turn}.test/{row['url']}", "text": f"{row['text']}\nCopy {turn}.\n"}


def encoded(kind: str, rows: Iterator[dict[str, str]]) -> Iterator[bytes]:
    """Yields encoded rows one by one, to be appended to a file."""
    for row in rows:
        if kind == "wet":
            text = row["text"].encode()
            yield gzip.compress(WET.format(row["url"].replace(" ", ""), len(text)).encode() + text + b"\r\n\r\n", 6)
        else:
            yield json.dumps(row).encode() + b"\n"


def write(kind: str, path: Path, source: Iterator[bytes], size: int) -> None:
    """Writes a file of about `size` bytes; those of JSONL.gz and Parquet are before compression."""
    parts, total = [], 0
    while total < size:
        parts.append(next(source))
        total += len(parts[-1])
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist([json.loads(part) for part in parts]), path, row_group_size=2000)
    else:
        path.write_bytes(gzip.compress(b"".join(parts), 6) if kind == "jsonl.gz" else b"".join(parts))


def make(kind: str, folder: Path, given: argparse.Namespace) -> None:
    folder.mkdir()
    ending = {"warc": "warc.gz", "wet": "warc.wet.gz"}.get(kind, kind)
    source = members(given.warcs) if kind == "warc" else encoded(kind, documents(given.run))
    size = int(given.megabytes * 1e6)
    for number in range(SMALL_FILES):
        write(kind, folder / f"a-{number:02d}.{ending}", source, size // TIMES)
    write(kind, folder / f"large.{ending}", source, size)


def show(run: str, workers: int) -> None:
    reader = RunReader(run)
    seconds: dict[str, list[float]] = {}
    for line in reader.json_lines("metrics.jsonl"):
        parallel = line["worker_seconds"] / min(workers, max(line["tasks"], 1))
        ideal = parallel or line["seconds"]  # a phase of the driver itself
        sums = seconds.setdefault(line["stage"], [0.0, 0.0])
        sums[:] = sums[0] + line["seconds"], sums[1] + ideal
        name = f"{line['stage']} {line['phase']}".strip()
        print(
            f"  {name:22} {line['tasks']:4} tasks {line['seconds']:8.1f} s, ideal {ideal:8.1f} s: {line['seconds'] / max(ideal, 1e-9):6.2f}"
        )
    for stage, (took, ideal) in seconds.items():
        sizes = [row.bytes_in or sum(ref.bytes for ref in row.inputs) for row in Manifest(Storage(run).child(stage), read_only=True).rows()]
        largest = max(sizes) / max(sum(sizes), 1)
        print(
            f"  {stage + ' in all':22} {len(sizes):4} tasks {took:8.1f} s, ideal {ideal:8.1f} s: {took / ideal:6.2f}; largest {largest:.1%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("warcs", type=Path)
    parser.add_argument("run")
    parser.add_argument("--megabytes", type=float, default=64)
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=FORMATS)
    parser.add_argument("--to", default="tokens")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--task-mb", type=int, default=4)
    given = parser.parse_args()
    for kind in given.formats:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make(kind, folder / "in", given)
            (folder / "recipe.yaml").write_text(RECIPE.format(task_mb=given.task_mb))
            command = [sys.executable, "-m", "corpusmill", "run", f"{folder}/recipe.yaml", f"{folder}/in", "--output", f"{folder}/run"]
            subprocess.run([*command, "--to", given.to, "--workers", str(given.workers)], check=True, stdout=subprocess.DEVNULL)
            sizes = [path.stat().st_size for path in (folder / "in").iterdir()]
            print(f"{kind}: {len(sizes)} files, {sum(sizes) / 1e6:.1f} MB, the largest {max(sizes) / 1e6:.1f} MB", flush=True)
            show(f"{folder}/run", given.workers)


if __name__ == "__main__":
    main()
