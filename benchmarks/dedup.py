"""Compares deduplication, Parquet to Parquet on one core: corpusmill against datatrove, datasketch and rensa, on the same documents.

    python benchmarks/dedup.py documents.parquet more.jsonl     # files with a column `text`
    python benchmarks/dedup.py wiki.train.txt --documents 20000 # documents mixed and mutated from the sentences of a text
    python benchmarks/dedup.py RUN/ingest/data --peer-documents 4000 --peers datatrove rensa

All use 14 bands of 8 minima and shingles of 5 words. corpusmill, datasketch and rensa use the same words (runs of \\w, lower-cased) and
32-bit hashes. datatrove has its own normalisation, and is measured with its own words (spaCy) and with the cheapest (split at spaces).
The peers verify nothing on the texts; corpusmill verifies every removal there, and also writes clusters and a report row for each document.

Each system works in a process of its own, bound to one core with one thread in every library, after a warm-up on 200 documents. Seconds are
processor time, peaks are of the process. datatrove takes minutes where the others take seconds, so it gets every k-th document
(`--peer-documents`), and corpusmill is measured on these documents too: each ratio compares two rows on the same documents.
"""

import argparse
import multiprocessing
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import dedup_peers
import pyarrow as pa
from dedup_documents import number_id, read_texts, write_texts
from dedup_peers import Parameters, all_ids, shingles

from corpusmill.dedup.stage import DedupStage
from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress

PARAMETERS = Parameters()
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS", "ARROW_IO_THREADS")

System = Callable[[Storage, list[str], Parameters], set[str]]


def ours(run: Storage, keys: list[str], p: Parameters) -> set[str]:
    config = DedupStage.Config.model_validate(
        {
            "minhash": {"bands": p.bands, "rows": p.rows, "ngram": p.ngram, "seed": p.seed, "min_words": p.ngram},
            "threshold": p.threshold,
            "keep": "first",
            "alarm": "warn",
        }
    )
    shutil.rmtree(run.path("dedup"), ignore_errors=True)
    stage_run = StageRun(DedupStage(config), run, {"ingest": None, "dedup": config}, [], InlineEngine(), Progress(False))
    stage_run.execute()
    kept = {id_ for key in keys for id_ in read_table(stage_run.storage, f"data/{key}.parquet", ["id"])["id"].to_pylist()}
    return all_ids(run, keys) - kept


#: Systems by the names that `--peers` accepts; several lines where a system is measured in several ways.
PEERS: dict[str, dict[str, System]] = {
    "datatrove": {"datatrove": dedup_peers.datatrove, "datatrove, spaces": dedup_peers.datatrove_spaces},
    "datasketch": {"datasketch": dedup_peers.datasketch},
    "rensa": {
        "rensa LSH": dedup_peers.rensa_lsh,
        "rensa deduplicator": dedup_peers.rensa_deduplicator,
        "rensa flags": dedup_peers.rensa_flags,
        "rensa flags, rho": dedup_peers.rensa_rho,
    },
}
ON_SUBSET = ("datatrove",)


@dataclass(frozen=True)
class Measured:
    """Processor and wall seconds of the fastest run, peak memory of the process in MB, and the ids of removed documents."""

    cpu: float
    wall: float
    peak: int
    removed: set[str]


def measure(system: System, run: Storage, keys: list[str], warm: Storage, repeat: int) -> Measured:
    """Measures one system in this process, which is bound to one core and one thread."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    system(warm, ["part-00000"], PARAMETERS)
    seconds = []
    removed: set[str] = set()
    for _ in range(repeat):
        cpu, wall = time.process_time(), time.perf_counter()
        removed = system(run, keys, PARAMETERS)
        seconds.append((time.process_time() - cpu, time.perf_counter() - wall))
    return Measured(*min(seconds), peak_mb(), removed)


def peak_mb() -> int:
    """Returns this process's peak memory; `ru_maxrss` would include its parent's."""
    return int(re.findall(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[0]) // 1024


def measure_alone(system: System, run: Storage, keys: list[str], warm: Storage, repeat: int) -> Measured:
    """Runs `measure` in a process of its own."""
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, system, run, keys, warm, repeat).result()


def jaccard(a: str, b: str) -> float:
    x, y = set(shingles(a, PARAMETERS.ngram)), set(shingles(b, PARAMETERS.ngram))
    return len(x & y) / len(x | y) if x | y else 0.0


def wrongly_removed(run: Storage, keys: list[str], texts: dict[str, str]) -> int:
    """Counts near copies that corpusmill removed although their recomputed similarity to the kept document is below the threshold."""
    tables = [read_table(run, f"dedup/report/{key}.parquet", ["id", "kept", "kept_id", "verified"]) for key in keys]
    rows = [row for table in tables for row in table.to_pylist() if not row["kept"] and row["verified"] != "exact"]
    return sum(jaccard(texts[row["id"]], texts[row["kept_id"]]) < PARAMETERS.threshold for row in rows)


def compare(folder: Path, texts: list[str], shards: int, peers: dict[str, System], repeat: int) -> None:
    """Measures corpusmill and the peers on these documents and prints a row for each."""
    warm, run = write_texts(folder / "warm", texts[:200], 1), write_texts(folder / "run", texts, shards)
    keys = [f"part-{number:05d}" for number in range(shards)]
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    print(f"\n{len(texts):,} documents, {megabytes:,.1f} MB, {shards} shards, {PARAMETERS}")
    base = measure_alone(ours, run, keys, warm, repeat)
    by_id = {number_id(i, text): text for i, text in enumerate(texts)}
    show("corpusmill", base, len(texts), megabytes, f"removed below the threshold: {wrongly_removed(run, keys, by_id)}")
    for name, system in peers.items():
        try:
            found = measure_alone(system, run, keys, warm, 1)
        except ImportError as error:
            print(f"{name:18} not installed ({error.name})")
            continue
        agree = len(found.removed & base.removed) / max(len(found.removed | base.removed), 1)
        show(name, found, len(texts), megabytes, f"ours is {found.cpu / base.cpu:.1f} times as fast; removals agree {agree:.3f}")
    shutil.rmtree(folder)


def show(name: str, found: Measured, documents: int, megabytes: float, more: str) -> None:
    rates = f"{documents / found.cpu:9,.0f} documents/s {megabytes / found.cpu:7.2f} MB/s"
    line = f"{name:18} {found.cpu:8.2f} s CPU {found.wall:8.2f} s wall {rates}  peak {found.peak:,} MB  removed {len(found.removed):,}"
    print(f"{line}  {more}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="Parquet (files or folders) or JSONL with a column `text`, or plain text")
    parser.add_argument("--documents", type=int, default=20_000, help="how many documents to make from plain text")
    parser.add_argument("--peer-documents", type=int, default=4_000, help="how many documents datatrove gets at most")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=3, help="runs of ours, of which the fastest counts; peers run once")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS), help="with no name behind it: ours alone")
    args = parser.parse_args()

    texts = [text for text in read_texts(args.files, args.documents) if text.strip()]
    here = partial(compare, shards=args.shards, repeat=args.repeat)
    whole = {name: system for peer in args.peers if peer not in ON_SUBSET for name, system in PEERS[peer].items()}
    subset = {name: system for peer in args.peers if peer in ON_SUBSET for name, system in PEERS[peer].items()}
    with tempfile.TemporaryDirectory() as folder:
        here(Path(folder) / "whole", texts, peers=whole)
        if subset:
            here(Path(folder) / "subset", texts[:: max(1, -(-len(texts) // args.peer_documents))], peers=subset)


if __name__ == "__main__":
    main()
