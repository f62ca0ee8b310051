"""Measures speed and memory of a task that merges files of keys and of co-located documents.

    python benchmarks/merge.py [--files 16] [--documents 30000] [--groups 1000]

The files are like those of shards with `--documents` documents: 14 keys a document; a quarter of the documents has a candidate, with a text
of 5 KB. Prints a line for each kind: bytes read, seconds (CPU of the process), MB/s, and the growth of peak memory without mapped files.
"""

import argparse
import os
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from corpusmill.dedup.candidates import DOCUMENT_WORDS, GROUPED
from corpusmill.dedup.external_sort import GROUP, DocumentMergeWorker, KeyMergeWorker, MergeWorker, group_blocks, keys_bytes
from corpusmill.dedup.signatures import signature_schema
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.shards import batches_buffer, publish
from corpusmill.pipeline.stage import Task
from corpusmill.pipeline.storage import Storage

KEYS, RANGES, SHARE, TEXT, SHINGLES, VOCABULARY = 14, 1_024, 4, 5_000, 700, 20_000
LINE = "{:9} {:7.1f} MB of {} files to {:7.1f} MB: {:6.2f} s CPU, {:6.1f} MB/s, {:6.1f} MB of memory"


def keys_file(number: int, documents: int) -> bytes:
    draw = np.random.default_rng(number)
    keys = draw.integers(0, 1 << 64, documents * KEYS, np.uint64)
    return keys_bytes(keys, keys, np.tile(np.arange(documents, dtype=np.uint32), KEYS))


def documents_table(number: int, documents: int, groups: int) -> pa.Table:
    """Makes the documents of a shard that have a candidate: random words, spread over the groups, sorted by group."""
    draw = random.Random(number)
    words = [f"w{draw.randrange(10**6)}" for _ in range(VOCABULARY)]
    rows = [
        {
            "id": f"{row:032x}", "source": "crawl/part-00000.warc.gz", "chars": TEXT, "shingles": SHINGLES, "exact": draw.randbytes(16),
            "signature": draw.randbytes(448), "text": " ".join(draw.choices(words, k=SHINGLES)),
        }
        for row in range(documents // SHARE)
    ]  # fmt: skip
    group = np.sort(np.random.default_rng(number).integers(0, groups, len(rows), np.int32))
    schema = signature_schema(112, 32).append(pa.field("text", pa.large_string()))
    return pa.Table.from_pylist(rows, schema).append_column(GROUP, pa.array(group))


def members(table: pa.Table) -> pa.Table:
    count = table.num_rows
    words = np.full(count, DOCUMENT_WORDS + SHINGLES + 112)
    return pa.table([np.arange(count), table[GROUP].cast(pa.int64()), np.ones(count, bool), words], schema=GROUPED)


def written(run: Storage, path: str, content: bytes) -> FileRef:
    output = publish(run, path, content)
    return FileRef(output.path, output.sha256, output.bytes)


def measure_keys(run: Storage, files: int, documents: int) -> None:
    refs = [written(run, f"keys-{number}.arrow", keys_file(number, documents)) for number in range(files)]
    params = {"ranges": RANGES, "starts": [number * documents for number in range(files)]}
    measure("keys", KeyMergeWorker(Config(), run, {}), Task("keys", tuple(refs), params))


def measure_documents(run: Storage, files: int, documents: int, groups: int) -> None:
    tables = [documents_table(number, documents, groups) for number in range(files)]
    table = written(run, "groups.arrow", batches_buffer(GROUPED, [members(table) for table in tables], "lz4").to_pybytes())
    bounds = group_blocks(run, table.path, (0, files), groups)
    refs = []
    for number, shard in enumerate(tables):
        cuts = np.searchsorted(shard[GROUP].to_numpy(), bounds)
        parts = [shard.slice(a, b - a) for a, b in pairwise(cuts.tolist())]
        refs.append(written(run, f"documents-{number}.arrow", batches_buffer(shard.schema, parts, "lz4").to_pybytes()))
    tables.clear()
    worker = DocumentMergeWorker(Config(), run, {})
    measure("documents", worker, Task("documents", (table, *refs), {"shards": (0, files), "groups": groups, "starts": [0] * files}))


def measure(name: str, worker: MergeWorker, task: Task) -> None:
    pa.default_memory_pool().release_unused()
    size = sum(ref.bytes for ref in task.inputs)
    before = peak = _own_memory()
    began = time.process_time()

    def watched(content: Iterator[Any]) -> Iterator[Any]:
        nonlocal peak
        for part in content:
            peak = max(peak, _own_memory())
            yield part

    (content,) = worker.process(task).files.values()
    done = publish(worker.run, f"merged/{name}.arrow", watched(content))  # type: ignore[arg-type]
    seconds = time.process_time() - began
    print(LINE.format(name, size / 1e6, len(task.inputs), done.bytes / 1e6, seconds, size / 1e6 / seconds, (peak - before) / 1e6))


def _own_memory() -> int:
    """Returns the bytes of this process that are in memory and not of a file."""
    resident, shared = map(int, Path("/proc/self/statm").read_text().split()[1:3])
    return (resident - shared) * resource.getpagesize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=16)
    parser.add_argument("--documents", type=int, default=30_000)
    parser.add_argument("--groups", type=int, default=1_000)
    given = parser.parse_args()
    os.fsync = lambda _: None
    with tempfile.TemporaryDirectory() as folder:
        measure_keys(Storage(folder), given.files, given.documents)
        measure_documents(Storage(folder), given.files, given.documents, given.groups)


if __name__ == "__main__":
    main()
