"""Measures repetition inside documents: a crawl's boilerplate, the text removed, speed, and whether every repeated passage is found.

    python benchmarks/inside.py RUN/ingest/data/*.parquet         # document shards, for instance of an ingested `make_crawl.sh small`

Each variant of the stage runs in a process of its own, on one core, Parquet to Parquet; its phases are timed by the run's own
metrics. MB are 10^6 bytes of the stage's input text. Passages are compared with those of a suffix array (pydivsufsort,
Kasai's longest common prefixes) over the words of some documents: a window repeats where a neighbour of its suffix begins alike.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpusmill.dedup.inside.lines import cut_units, unit_keys
from corpusmill.dedup.inside.passages import WordScratch, anchors, cut_windows, kinds, walk, windows
from corpusmill.dedup.inside.sections import KeyTable
from corpusmill.dedup.stage import DedupStage
from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.manifest import Manifest, TaskRow
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import publish, read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.text.buffers import text_buffers

TOKENS = 50
VARIANTS: dict[str, dict[str, Any]] = {
    "documents alone": {},
    "boilerplate lines (keep: none, in 10 documents or more)": {"lines": {}},
    "lines once (keep: first, as CCNet)": {"lines": {"keep": "first"}},
    "lines in 10% of a host's documents": {"lines": {"scope": "host", "min_share": 0.1}},
    "passages (50 words, keep: first)": {"substrings": {}},
    "boilerplate lines, then passages": {"lines": {}, "substrings": {}},
}
BUCKETS = [50, 60, 80, 120, 200, 400, 10**9]


def write_upstream(root: Path, paths: list[str]) -> Storage:
    """Writes a run whose `ingest` stage is finished with these shards."""
    run = Storage(str(root))
    manifest = Manifest(run.child("ingest"))
    keys = [f"part-{number:05d}" for number in range(len(paths))]
    for key, path in zip(keys, paths, strict=True):
        table = pq.read_table(path)
        output = publish(run.child("ingest"), f"data/{key}.parquet", table)
        manifest.append(TaskRow(key, key, [], "", "", table.num_rows, table.num_rows, 0, 0, [output]))
    manifest.finish(keys)
    return run


def dedup(root: str, config: dict[str, Any]) -> int:
    """Runs the stage; returns the peak memory of this process in MB."""
    run = Storage(root)
    stage = DedupStage(DedupStage.Config.model_validate(config))
    StageRun(stage, run, {"ingest": None, "dedup": stage.config}, [], InlineEngine(), Progress(False)).execute()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def column(run: Storage, name: str, folder: str = "report") -> pa.ChunkedArray:
    files = [file for file in run.list_files(f"dedup/{folder}") if file.endswith(".parquet")]
    return pa.chunked_array([chunk for file in files for chunk in read_table(run, file, [name])[name].chunks])


def run_variant(name: str, config: dict[str, Any], paths: list[str], size: float) -> None:
    with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(1) as pool:
        run = write_upstream(Path(folder), paths)
        write_upstream(Path(folder, "warm"), paths[:1])  # so that no kernel is compiled while the clock runs
        pool.apply(dedup, (f"{folder}/warm", config))
        peak = pool.apply(dedup, (folder, config))
        phases = [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]
        chars = pc.sum(column(run, "chars_in")).as_py()
        out = pc.sum(column(run, "chars_out")).as_py()
        print(
            f"\n{name}: {out / chars:.1%} of {chars:,} characters stay, {pc.sum(column(run, 'kept')).as_py():,} documents; peak {peak:,} MB"
        )
        for kind in ("line_chars_cut", "substring_chars_cut"):
            if kind in pq.read_schema(next(Path(folder, "dedup/report").glob("*.parquet"))).names:
                values = column(run, kind)
                cut = int(np.count_nonzero(pc.fill_null(values, 0)))
                print(f"  {kind}: {pc.sum(values).as_py():,} in {cut:,} documents")
        mine = [phase for phase in phases if phase["phase"].startswith(("lines", "substrings")) or not phase["phase"]]
        print(
            "  " + ", ".join(f"{p['phase'] or 'documents that stay'} {p['seconds']:.2f} s ({size / p['seconds']:.0f} MB/s)" for p in mine)
        )
        if set(config) == {"lines"} and config["lines"].get("keep") != "first":
            print_top(run)


def print_top(run: Storage, count: int = 15) -> None:
    print(f"  {'documents':>9} {'sources':>7}  text")
    for row in read_table(run, "dedup/lines/top.parquet").slice(0, count).to_pylist():
        print(f"  {row['documents']:>9,} {row['sources']:>7,}  {row['text'][:100]!r}  ({row['example_url']})")


def word_numbers(texts: pa.Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns `(numbers, bounds)`: the words of n texts as numbers, equal for equal words; text i is `numbers[bounds[i]:bounds[i + 1]]`.
    Numbers are made from the words themselves, not from their hashes.
    """
    data, offsets = text_buffers(texts)
    scratch, raw, table = WordScratch(offsets), data.tobytes(), kinds()
    known: dict[bytes, int] = {}
    numbers, bounds = [], [0]
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        count = walk(data, start, end, table, scratch.prefixes, scratch.begins, scratch.ends)
        places = zip((scratch.begins[:count] + start).tolist(), (scratch.ends[:count] + start).tolist(), strict=True)
        numbers += [known.setdefault(raw[a:b], len(known)) for a, b in places]
        bounds.append(len(numbers))
    return np.array(numbers, np.int64), np.array(bounds)


def longest_repeats(numbers: npt.NDArray[np.int64], bounds: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Returns for each word the number of words, from it on, that occur elsewhere too, within their documents: by a suffix array."""
    from pydivsufsort import divsufsort, kasai

    ends = bounds[1:] + np.arange(len(bounds) - 1)
    parted = np.insert(numbers, bounds[1:], numbers.max() + 1 + np.arange(len(ends)))  # a different end mark after each document
    suffixes = divsufsort(parted.astype(np.uint32))
    common = kasai(parted.astype(np.uint32), suffixes).astype(np.int64)  # of a suffix and the next one
    longest = np.zeros(len(parted), np.int64)
    longest[suffixes] = np.maximum(common, np.r_[0, common[:-1]])
    return np.delete(longest, ends)


def compare(texts: pa.Array) -> None:
    """Compares corpusmill's repeated windows with those of the suffix array, by the length of the repeat that begins at them."""
    numbers, bounds = word_numbers(texts)
    longest = longest_repeats(numbers, bounds)
    left = np.repeat(bounds[1:], np.diff(bounds)) - np.arange(len(numbers))  # words up to the end of the document
    expected = np.flatnonzero((longest >= TOKENS) & (left >= TOKENS))
    data, offsets = text_buffers(texts)
    found, counts = np.unique(anchors(data, offsets, TOKENS, (TOKENS + 1) // 2), return_counts=True)
    keys, where, places = windows(data, offsets, TOKENS, (TOKENS + 1) // 2, KeyTable(found[counts > 1]).table)
    _, back, counts = np.unique(keys, return_inverse=True, return_counts=True)
    ours = np.sort((bounds[where] + places)[counts[back] > 1])
    hit = np.isin(expected, ours)
    size = int(offsets[-1] - offsets[0])
    print(
        f"\n{len(texts):,} documents, {size / 1e6:.1f} MB, {len(numbers):,} words: {len(expected):,} windows of {TOKENS} words occur twice;"
    )
    print(f"  found {len(ours):,}, of them right {np.isin(ours, expected).mean():.4%}; recall {hit.mean():.4%}; by words of the repeat:")
    for low, high in pairwise(BUCKETS):
        chosen = (longest[expected] >= low) & (longest[expected] < high)
        if chosen.any():
            print(f"  {low:>4} to {high - 1 if high < 10**9 else '':<4} {chosen.sum():>9,} windows, recall {hit[chosen].mean():.4%}")


def kernels(texts: pa.Array) -> None:
    """Prints the speed of the compiled passes alone, in processor seconds: on all documents, copies included."""
    data, offsets = text_buffers(texts)
    hosts, rows, size = np.zeros(len(texts), np.uint64), np.arange(len(texts)), int(offsets[-1] - offsets[0]) / 1e6
    for _ in range(2):  # the first call compiles
        speeds = {}
        started = time.process_time()
        keys, _, fresh, _ = unit_keys(data, offsets, hosts, "ccnet", False, 1)
        speeds["lines counted"] = size / (time.process_time() - started)
        found, counts = np.unique(keys[fresh > 0], return_counts=True)
        units = KeyTable(found[counts >= 10], np.full(int((counts >= 10).sum()), -1))
        started = time.process_time()
        cut_units(data, offsets, hosts, rows, "ccnet", False, 1, units)
        speeds["lines cut"] = size / (time.process_time() - started)
        started = time.process_time()
        found, counts = np.unique(anchors(data, offsets, TOKENS, TOKENS // 2), return_counts=True)
        speeds["anchors"] = size / (time.process_time() - started)
        known = KeyTable(found[counts > 1]).table
        started = time.process_time()
        found, counts = np.unique(windows(data, offsets, TOKENS, TOKENS // 2, known)[0], return_counts=True)
        speeds["windows"] = size / (time.process_time() - started)
        table = KeyTable(found[counts > 1], *np.full((2, int((counts > 1).sum())), -1))
        started = time.process_time()
        cut_windows(data, offsets, rows, TOKENS, table)
        speeds["windows cut"] = size / (time.process_time() - started)
    print("\nkernels on all documents, MB a second of processor time: " + ", ".join(f"{k} {v:.0f}" for k, v in speeds.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", nargs="+", help="Parquet shards of documents")
    parser.add_argument("--oracle-mb", type=float, default=8.0, help="text of the comparison with a suffix array")
    args = parser.parse_args()
    size = sum(pc.sum(pc.binary_length(pq.read_table(path, columns=["text"])["text"])).as_py() or 0 for path in args.documents) / 1e6
    print(f"{len(args.documents)} shards, {size:.1f} MB of text")
    for name, config in VARIANTS.items():
        run_variant(name, config, args.documents, size)
    texts = pa.concat_tables([pq.read_table(path, columns=["text"]) for path in args.documents])["text"].combine_chunks()
    kernels(texts)
    texts = texts.take(pa.array(np.random.default_rng(1).permutation(len(texts))))
    bytes_ = np.cumsum(pc.binary_length(texts).to_numpy())
    compare(texts.slice(0, int(np.searchsorted(bytes_, args.oracle_mb * 1e6))))


if __name__ == "__main__":
    main()
