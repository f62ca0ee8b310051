"""The second phase: groups of documents that share a key, and LSH buckets in which near copies may be.

Keys are split by range, so that a task holds one range and never a text.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.dedup.config import DedupConfig, MeasureConfig
from corpusmill.dedup.corpus import MeasuredShard, only, starts
from corpusmill.dedup.external_sort import BAND_KEYS, MAX_RANGES, Keys, merge_keys, read_keys
from corpusmill.dedup.signatures import key_kinds
from corpusmill.pipeline.lists import read_list
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Output, Task, Worker

#: Keys that one task sorts: 24 bytes each, and about as much again for the order.
TASK_KEYS = 6_000_000

GROUPS = pa.schema(
    [
        pa.field("first", pa.int64(), nullable=False),  # the copy with the lowest index
        pa.field("document", pa.int64(), nullable=False),
    ]
)
BUCKETS = pa.schema(
    [
        pa.field("bucket", pa.int64(), nullable=False),  # numbered within the file
        pa.field("document", pa.int64(), nullable=False),  # of exact copies only the first
    ]
)

Index = npt.NDArray[np.int64]


def ranges_for(keys: int) -> int:
    """The number of ranges for so many keys; it depends on the documents alone, never on the workers."""
    ranges = 1
    while ranges * TASK_KEYS < keys and ranges < MAX_RANGES:
        ranges *= 2
    return ranges


def find_candidates(run: StageRun, config: DedupConfig, shards: list[MeasuredShard]) -> dict[str, list[FileRef]]:
    """Runs the phase; returns the files of each kind of candidates."""
    documents, begin = sum(shard.rows for shard in shards), starts(shards)[:-1].tolist()
    kinds = key_kinds(config)
    ranges = {kind: ranges_for(per * documents) for kind, per in kinds.items()}
    listed = merge_keys(run, {kind: [shard.keys[kind] for shard in shards] for kind in kinds}, begin, ranges)
    tasks = {kind: candidate_pieces(kind, listed[kind], ranges[kind], config.exact.enabled) for kind in kinds}
    done = iter(run.map("candidates", CandidateWorker, [task for some in tasks.values() for task in some], None, MeasureConfig()))
    return {kind: [only(next(done)) for _ in some] for kind, some in tasks.items()}


def candidate_pieces(kind: str, keys: FileRef, ranges: int, collapse: bool) -> list[Task]:
    """The tasks of one kind. `keys`: the list of the key files. `collapse`: whether exact copies count as one document in the buckets
    (they do if exact copies are removed, too)."""
    name = "buckets" if kind == BAND_KEYS else kind
    params = {"kind": kind, "parts": ranges, "collapse": collapse}
    return [Task(f"candidates/{name}-{part:05d}", (keys,), {**params, "part": part}) for part in range(ranges)]


def equal_keys(keys: Keys, check: Keys, documents: Index) -> tuple[Index, Index]:
    """`(first, document)` for each document that shares key and check with another; sorted. `first` is the lowest of them."""
    order = np.lexsort((documents, check, keys))
    keys, check, documents = keys[order], check[order], documents[order]
    begins = np.flatnonzero(np.r_[True, (keys[1:] != keys[:-1]) | (check[1:] != check[:-1])]) if len(keys) else np.zeros(0, np.int64)
    sizes = np.diff(np.r_[begins, len(keys)])
    copied = np.repeat(sizes > 1, sizes)
    first, document = np.repeat(documents[begins], sizes)[copied], documents[copied]
    back = np.lexsort((document, first))
    return first[back], document[back]


def buckets(keys: Keys, texts: Keys, documents: Index) -> tuple[Index, Index]:
    """`(bucket, document)` of every key that two documents with different texts have, sorted; buckets by their first document.

    Of exact copies only the first is in a bucket: a million copies of one page are one document here.
    """
    order = np.argsort(keys)
    same = keys[order[1:]] == keys[order[:-1]]
    order = order[np.r_[same, False] | np.r_[False, same]] if len(order) else order
    order = order[np.lexsort((documents[order], texts[order], keys[order]))]
    if not len(order):
        return documents[:0], documents[:0]
    new_key = np.r_[True, keys[order[1:]] != keys[order[:-1]]]
    new_text = new_key | np.r_[True, texts[order[1:]] != texts[order[:-1]]]
    number = (np.cumsum(new_key) - 1)[new_text]
    document = documents[order[new_text]]
    wanted = np.bincount(number)[number] > 1
    number, document = number[wanted], document[wanted]
    order = np.lexsort((document, number))
    number, document = number[order], document[order]
    begins = np.flatnonzero(np.r_[True, number[1:] != number[:-1]]) if len(number) else number
    sizes = np.diff(np.r_[begins, len(number)])
    lowest = np.repeat(document[begins], sizes)
    order = np.lexsort((document, number, lowest))
    number, document = number[order], document[order]
    return (np.cumsum(np.r_[True, number[1:] != number[:-1]]) - 1 if len(number) else number), document


class CandidateWorker(Worker):
    """Finds the groups or buckets in one range of the keys of all shards.

    The input is the list of the files of keys; its `params`: `starts`, the index of the first document of each.
    """

    def process(self, task: Task) -> Output:
        listed = read_list(self.run, task.inputs[0])
        found = [
            (key, check, row + start)
            for file, start in zip(listed.files, listed.params["starts"], strict=True)
            for key, check, row in [read_keys(self.run, file.path, task.params["part"], task.params["parts"])]
        ]
        keys, check, documents = (np.concatenate(arrays) for arrays in zip(*found)) if found else _NOTHING
        del found
        if task.params["kind"] == BAND_KEYS:
            texts = check if task.params["collapse"] else documents.astype(np.uint64)
            table = pa.table(list(buckets(keys, texts, documents)), schema=BUCKETS)
        else:
            table = pa.table(list(equal_keys(keys, check, documents)), schema=GROUPS)
        return Output({f"{task.key}.parquet": table}, counts={"keys": len(keys), "shared": table.num_rows})


_NOTHING = (np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64))
