"""A run's own documents as examples: a sample that depends on the documents' ids alone."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.shards import iter_tables
from corpusmill.pipeline.storage import Storage

#: Documents that are taken of a run where no limit is given: a run has no bound, and the examples are held in memory.
RUN_LIMIT = 20_000


@dataclass(frozen=True)
class RunDocuments:
    """The drawn texts, how many documents there were, and the shards (name, bytes, sha256)."""

    texts: list[str]
    rows: int
    files: list[dict[str, Any]]


def read_run(folder: str, stage: str, limit: int, seed: int) -> RunDocuments:
    """`limit` documents of a finished stage: those whose ids have the smallest hashes under the seed. Only ids are read of the others.

    Raises InputError where the run or the stage is not there, or not finished.
    """
    storage = Storage(folder)
    if not storage.exists("run.json"):
        raise InputError(f"{folder}: not a run (it has no run.json).")
    manifest = Manifest(storage.child(stage), read_only=True)
    if not manifest.complete:
        raise InputError(f"{folder}: its stage {stage} is not finished.")
    shards = [output for row in manifest.rows() for output in row.outputs if output.path.startswith("data/")]
    files = [{"name": f"{stage}/{shard.path}", "bytes": shard.bytes, "sha256": shard.sha256} for shard in shards]
    part = storage.child(stage)
    hashes = [
        np.array([xxhash.xxh3_64_intdigest(name, seed) for name in table["id"].to_pylist()], np.uint64)
        for shard in shards
        for table in iter_tables(part, shard.path, ["id"])
    ]
    keys = np.concatenate([np.zeros(0, np.uint64), *hashes])
    wanted = np.zeros(len(keys), bool)
    wanted[np.argsort(keys, kind="stable")[:limit]] = True
    texts: list[str] = []
    at = 0
    for shard in shards:
        for table in iter_tables(part, shard.path, ["text"]):
            texts += table.filter(pa.array(wanted[at : at + table.num_rows]))["text"].to_pylist()
            at += table.num_rows
    return RunDocuments(texts, len(keys), files)
