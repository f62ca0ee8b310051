"""Measures what each stage takes for one large file of documents: time, and memory of the largest process.

    python benchmarks/large_file.py make TEXTS FILE [--megabytes 1600]
    python benchmarks/large_file.py run RECIPE FILE RUN [--to filter] [--workers 2]

`make` writes `--megabytes` of text as JSONL (.jsonl.gz, .jsonl.zst: one stream) or Parquet (.parquet: one row group). Its documents
are those of TEXTS, a folder of Parquet shards such as RUN/ingest/data, repeated with every second word replaced by another of TEXTS.
`run` prints for each phase of RECIPE: seconds, the average number of busy workers, tasks, shards that the stage wrote, and the resident
set of the largest worker and of the largest child of a worker (the reader of ingest). Last comes the resident set of the driver.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard


def varied(texts: list[str], size: int) -> Iterator[str]:
    """Yields `size` bytes of UTF-8: the given texts with words replaced."""
    words, at = np.unique(np.array(" ".join(texts).split(" "), object), return_inverse=True)
    bounds = np.cumsum([0, *(text.count(" ") + 1 for text in texts)])
    random = np.random.default_rng(7)
    while size > 0:
        for begin, end in pairwise(bounds):
            chosen = np.where(random.random(end - begin) < 0.5, at[begin:end], at[random.integers(0, len(at), end - begin)])
            text = " ".join(words[chosen])
            yield text
            size -= len(text.encode())
            if size <= 0:
                return


def make(folder: Path, path: Path, megabytes: int) -> None:
    texts = pq.read_table(folder, columns=["text"])["text"].to_pylist()
    documents = enumerate(varied(texts, megabytes * 1_000_000))
    if path.suffix == ".parquet":
        table = pa.Table.from_pylist([{"url": url(number), "text": text} for number, text in documents])
        pq.write_table(table, path, row_group_size=table.num_rows, use_dictionary=False)
        return
    with gzip.open(path, "wb", 5) if path.suffix == ".gz" else zstandard.open(path, "wb") as file:
        for number, text in documents:
            file.write(json.dumps({"url": url(number), "text": text}, ensure_ascii=False).encode() + b"\n")


def url(number: int) -> str:
    return f"https://host-{number % 1000}.test/{number}"


def run(recipe: str, path: str, folder: str, last: str, workers: int) -> None:
    command = ["run", recipe, path, "--output", folder, "--to", last, "--workers", str(workers), "--engine", "ray"]
    process = subprocess.Popen([sys.executable, "-m", "corpusmill", *command])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"the run ended with {os.waitstatus_to_exitcode(status)}")
    print(f"{'phase':24} {'seconds':>8} {'busy':>5} {'tasks':>6} {'shards':>6} {'worker MB':>10} {'reader MB':>10}")
    for line in (Path(folder) / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        name = f"{row['stage']} {row['phase']}".rstrip()
        shards = len(list((Path(folder) / row["stage"] / "data").glob("*.parquet"))) if name == row["stage"] else ""
        busy = row["worker_seconds"] / row["seconds"]
        worker = row["peak_mb"] - row["children_mb"]
        print(f"{name:24} {row['seconds']:8.1f} {busy:5.2f} {row['tasks']:6} {shards:>6} {worker:10} {row['children_mb']:10}")
    print(f"driver: {usage.ru_maxrss >> 10} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("texts", type=Path)
    making.add_argument("file", type=Path)
    making.add_argument("--megabytes", type=int, default=1600)
    running = commands.add_parser("run")
    for name in ("recipe", "file", "run"):
        running.add_argument(name)
    running.add_argument("--to", default="filter")
    running.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    if given.command == "make":
        make(given.texts, given.file, given.megabytes)
    else:
        run(given.recipe, given.file, given.run, given.to, given.workers)


if __name__ == "__main__":
    main()
