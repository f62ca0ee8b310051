"""A run's own documents as examples: a sample that depends on the documents' ids alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import Manifest, TaskRow
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


def read_run(folder: str, stage: str, limit: int, seed: int, failed: Sequence[str] = ()) -> RunDocuments:
    """`limit` documents of a finished stage: those whose ids have the smallest hashes under the seed. Only ids are read of the others.

    `failed`: only documents that failed one of these rules of the filter stage. Raises InputError where the run or a stage is not there, or
    not finished, or has no such rule.
    """
    storage = Storage(folder)
    if not storage.exists("run.json"):
        raise InputError(f"{folder}: not a run (it has no run.json).")
    shards = [output for row in _finished(storage, stage) for output in row.outputs if output.path.startswith("data/")]
    files = [{"name": f"{stage}/{shard.path}", "bytes": shard.bytes, "sha256": shard.sha256} for shard in shards]
    part = storage.child(stage)
    hashes = [
        np.array([xxhash.xxh3_64_intdigest(name, seed) for name in table["id"].to_pylist()], np.uint64)
        for shard in shards
        for table in iter_tables(part, shard.path, ["id"])
    ]
    keys = np.concatenate([np.zeros(0, np.uint64), *hashes])
    wanted = np.zeros(len(keys), bool)
    able = np.flatnonzero(np.isin(keys, _failing(storage, failed, seed))) if failed else np.arange(len(keys))
    wanted[able[np.argsort(keys[able], kind="stable")[:limit]]] = True
    texts: list[str] = []
    at = 0
    for shard in shards:
        for table in iter_tables(part, shard.path, ["text"]):
            texts += table.filter(pa.array(wanted[at : at + table.num_rows]))["text"].to_pylist()
            at += table.num_rows
    return RunDocuments(texts, len(keys), files)


def _finished(storage: Storage, stage: str) -> Sequence[TaskRow]:
    """The tasks of a finished stage."""
    manifest = Manifest(storage.child(stage), read_only=True)
    if not manifest.complete:
        raise InputError(f"{storage.root}: its stage {stage} is not finished.")
    return manifest.rows()


def _failing(storage: Storage, rules: Sequence[str], seed: int) -> npt.NDArray[np.uint64]:
    """The hashes, under the seed, of the ids of documents that failed one of these rules."""
    tasks = _finished(storage, "filter")
    known = sorted({name.removeprefix("failed ") for task in tasks for name in task.counts if name.startswith("failed ")})
    for rule in rules:
        if rule not in known:
            raise InputError(f"{storage.root}: its filter stage has no rule {rule!r} (it has {', '.join(known)}).")
    found: list[int] = []
    for task in tasks:
        for output in task.outputs:
            if output.path.startswith("report/"):
                for table in iter_tables(storage.child("filter"), output.path, ["id", "failed"]):
                    fails = [not set(rules).isdisjoint(names) for names in table["failed"].to_pylist()]
                    found += [xxhash.xxh3_64_intdigest(name, seed) for name in table.filter(pa.array(fails, pa.bool_()))["id"].to_pylist()]
    return np.array(found, np.uint64)
