# mypy: disallow-untyped-defs=False
"""The second and third phase: which documents may be copies of each other (candidates), and which of them one task judges (groups).

A *key* is a hash of a document's text, of its URL, or of one band of its signature. The documents with one band key form a *bucket*.
A *star* is the set of documents that share any one key: copies with an equal text or URL, or a bucket. Documents that stars connect,
directly or through other documents, form a *component*. A *group* is some components that one task judges.

Keys are split by range, so that a task holds one range of keys and never a text.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.dedup.config import DedupConfig, MeasureConfig
from corpusmill.dedup.corpus import Integers, MeasuredShard, first_output, located, starts
from corpusmill.dedup.external_sort import BAND_KEYS, MAX_RANGES, Keys, merge_keys, read_keys
from corpusmill.dedup.shingles import band_shape
from corpusmill.dedup.signatures import key_kinds
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.lists import read_list
from corpusmill.pipeline.manifest import FileRef, TaskRow
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import batches_stream, iter_tables, read_table
from corpusmill.pipeline.stage import Output, Task, Worker
from corpusmill.pipeline.storage import Storage

#: Keys that one task sorts, at most. Where all keys are shared, a key takes about 120 bytes.
TASK_KEYS = 2_500_000

GROUPS = pa.schema(
    [
        pa.field("first", pa.int64(), nullable=False),  # the document with the lowest index among those that share the key
        pa.field("document", pa.int64(), nullable=False),
    ]
)
BUCKETS = pa.schema(
    [
        pa.field("bucket", pa.int64(), nullable=False),  # numbered within the file
        pa.field("document", pa.int64(), nullable=False),  # of exact copies only the one with the lowest index
    ]
)


def ranges_for(keys: int) -> int:
    """Returns how many ranges `keys` keys are split into: a power of two. It does not depend on the number of workers."""
    ranges = 1
    while ranges * TASK_KEYS < keys and ranges < MAX_RANGES:
        ranges *= 2
    return ranges


def find_candidates(run: StageRun, config: DedupConfig, shards: list[MeasuredShard]) -> dict[str, list[FileRef]]:
    """Runs the second phase; returns the files of candidates by the kind of their keys."""
    documents, begin = sum(shard.rows for shard in shards), starts(shards)[:-1].tolist()
    kinds = key_kinds(config)
    ranges = {kind: ranges_for(per * documents) for kind, per in kinds.items()}
    listed = merge_keys(run, {kind: [shard.keys[kind] for shard in shards] for kind in kinds}, begin, ranges)
    tasks = {kind: candidate_tasks(kind, listed[kind], ranges[kind], config.exact.enabled) for kind in kinds}
    done = iter(run.map("candidates", CandidateWorker, [task for some in tasks.values() for task in some], None, MeasureConfig()))
    return {kind: [first_output(next(done)) for _ in some] for kind, some in tasks.items()}


def candidate_tasks(kind: str, keys: FileRef, ranges: int, collapse: bool) -> list[Task]:
    """Returns the tasks for one kind of keys, one for each range.

    `keys`: the list of the key files. `collapse`: whether exact copies count as one document in the buckets, as they do where exact copies
    are removed.
    """
    name = "buckets" if kind == BAND_KEYS else kind
    params = {"kind": kind, "parts": ranges, "collapse": collapse}
    return [Task(f"candidates/{name}-{part:05d}", (keys,), {**params, "part": part}) for part in range(ranges)]


def equal_keys(keys: Keys, check: Keys, documents: Integers) -> tuple[Integers, Integers]:
    """Returns `(first, document)` for each document that shares key and check with another one, sorted.

    `first` is the lowest index among the documents that share them.
    """
    # sort, so that the documents with one key and check follow each other, the lowest first
    order = np.lexsort((documents, check, keys))
    keys, check, documents = keys[order], check[order], documents[order]
    begins = np.flatnonzero(np.r_[True, (keys[1:] != keys[:-1]) | (check[1:] != check[:-1])]) if len(keys) else np.zeros(0, np.int64)
    sizes = np.diff(np.r_[begins, len(keys)])
    copied = np.repeat(sizes > 1, sizes)
    first, document = np.repeat(documents[begins], sizes)[copied], documents[copied]
    back = np.lexsort((document, first))
    return first[back], document[back]


def buckets(keys: Keys, texts: Keys, documents: Integers) -> tuple[Integers, Integers]:
    """Makes a bucket of each key that documents with different texts share. Returns two arrays, sorted: the number of a bucket, and a
    document in it. Buckets are numbered in the order of their lowest documents.

    Of exact copies only the lowest document is in a bucket, so a million copies of one page count as one document here.
    """
    # drop keys that only one document has
    order = np.argsort(keys)
    same = keys[order[1:]] == keys[order[:-1]]
    order = order[np.r_[same, False] | np.r_[False, same]] if len(order) else order
    order = order[np.lexsort((documents[order], texts[order], keys[order]))]
    if not len(order):
        return documents[:0], documents[:0]
    # of each text in a bucket, take the lowest document
    new_key = np.r_[True, keys[order[1:]] != keys[order[:-1]]]
    new_text = new_key | np.r_[True, texts[order[1:]] != texts[order[:-1]]]
    number = (np.cumsum(new_key) - 1)[new_text]
    document = documents[order[new_text]]
    # drop buckets of one text
    wanted = np.bincount(number)[number] > 1
    number, document = number[wanted], document[wanted]
    order = np.lexsort((document, number))
    number, document = number[order], document[order]
    # number the buckets by their lowest documents
    begins = np.flatnonzero(np.r_[True, number[1:] != number[:-1]]) if len(number) else number
    sizes = np.diff(np.r_[begins, len(number)])
    lowest = np.repeat(document[begins], sizes)
    order = np.lexsort((document, number, lowest))
    number, document = number[order], document[order]
    return (np.cumsum(np.r_[True, number[1:] != number[:-1]]) - 1 if len(number) else number), document


class CandidateWorker(Worker):
    """Finds the copies (`GROUPS`) or the buckets (`BUCKETS`) in one range of the keys of all shards.

    The input is the list of the key files. Its parameters: `starts`, the index of the first document of each file. `task.params`: `kind`,
    `collapse` (as in `candidate_tasks`), `part` (the range) and `parts` (the number of ranges).
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


# ---- the third phase: groups of documents that are judged together ---------------------------------------
#
# All documents of a component are judged by one task, in a group that fits into its memory. One process finds the components by
# union-find. It holds 13 bytes for each document (21 beyond two billion) and 16 for each component, never a text or a signature.
# A component that is too large for a group is built again, from the smallest buckets to the largest, and stops growing at that size.


GROUPS_FILE = "groups/documents.arrow"
#: The file of groups has a batch for each shard: those of its documents that have a candidate, in the order of their rows.
GROUPED = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("group", pa.int64(), nullable=False),
        pa.field("near", pa.bool_(), nullable=False),  # whether the document is in a bucket, so that its signature and text are needed
        pa.field("words", pa.int64(), nullable=False),  # the memory that the document needs, in 64-bit words
    ]
)

#: How large a group may be: 64-bit words (of signatures, shingles and columns) that one task has in memory at once.
GROUP_WORDS = 16_000_000
#: 64-bit words that a document needs besides its signature and its shingles: id, source, times, counts.
DOCUMENT_WORDS = 32
#: Flags of a document: it has an exact copy (by text or URL); it is in a bucket; its component is too large for a group.
COPY, NEAR, OVERSIZED = 1, 2, 4

#: Stars, as arrays `(star, document)` for each file; can be iterated several times. Documents with one number in `star` (which ascends)
#: form a star.
Stars = Iterable[tuple[Integers, Integers]]


def find_groups(
    run: StageRun, config: DedupConfig, shards: list[MeasuredShard], own_documents: int, candidates: dict[str, list[FileRef]]
) -> TaskRow:
    """Runs the third phase, which puts documents into groups. The first `own_documents` documents of `shards` are this run's.

    The counts of its task: `groups`, and `apart` (how often two candidates were not put together, see `Groups`).
    """
    buckets = [ref.path for ref in candidates.get(BAND_KEYS, [])]
    copies = [ref.path for kind, refs in candidates.items() if kind != BAND_KEYS for ref in refs]
    bands, rows = band_shape(config.minhash)
    words = bands * rows * config.minhash.bits // 64
    inputs = [*(shard.signatures for shard in shards), *(ref for refs in candidates.values() for ref in refs)]
    return run.once(
        "groups",
        inputs,
        lambda _: groups_output(run.run, shards, own_documents, copies, buckets, words),
        {"own_documents": own_documents, "words": words},
        MeasureConfig(),
    )


def groups_output(
    run: Storage, shards: list[MeasuredShard], own_documents: int, copies: Sequence[str], buckets: Sequence[str], words: int
) -> Output:
    """Returns the output of the third phase, the file of groups.

    `copies`, `buckets`: the files of candidates. `words`: 64-bit words of a signature.
    """
    weight = np.concatenate([np.zeros(0, np.uint32), *(_shingles(run, shard) for shard in shards)])
    weight += np.uint32(words)
    groups = group_documents(weight, CandidateStars(run, copies, "first"), CandidateStars(run, buckets, "bucket"), own_documents)
    bounds = starts(shards)
    tables = (groups.table(int(a), int(b)) for a, b in pairwise(bounds))
    counts = {"groups": max(groups.count, 1) if shards else 0, "apart": groups.apart}
    return Output({GROUPS_FILE: batches_stream(GROUPED, tables, "lz4")}, counts=counts)


def _shingles(run: Storage, shard: MeasuredShard) -> npt.NDArray[np.uint32]:
    tables = iter_tables(*located(run, shard.signatures.path), ["shingles"])
    return np.concatenate([np.zeros(0, np.uint32), *(table["shingles"].to_numpy().astype(np.uint32) for table in tables)])


class CandidateStars:
    """Reads the stars of some files of candidates, anew for each iteration; `star` is the name of the column with the star's number."""

    def __init__(self, run: Storage, files: Sequence[str], star: str):
        self.run, self.files, self.star = run, files, star

    def __iter__(self) -> Iterator[tuple[Integers, Integers]]:
        for path in self.files:
            table = read_table(self.run, path, [self.star, "document"])
            yield table[self.star].to_numpy(), table["document"].to_numpy()


@dataclass(frozen=True)
class Groups:
    """The groups of n documents.

    `flags`, `component`, `weight` (64-bit words of memory): one value for each document. `group`: one value for each component that is
    judged; components are numbered in the order of their first documents. `apart`: how often two candidates were left apart, because
    their components together would exceed the size of a group.
    """

    flags: npt.NDArray[np.uint8]
    component: npt.NDArray[np.integer]
    weight: npt.NDArray[np.uint32]
    group: Integers
    apart: int

    @property
    def count(self) -> int:
        return int(self.group[-1]) + 1 if len(self.group) else 0

    def table(self, begin: int, end: int) -> pa.Table:
        """Returns the rows of `GROUPED` for the documents from `begin` to `end`."""
        rows = np.flatnonzero((self.flags[begin:end] > 0) & (self.component[begin:end] < len(self.group)))
        at = rows + begin
        near = self.flags[at] & NEAR > 0
        return pa.table([rows, self.group[self.component[at]], near, self.weight[at].astype(np.int64)], schema=GROUPED)


def group_documents(weight: npt.NDArray[np.uint32], copies: Stars, candidates: Stars, own_documents: int) -> Groups:
    """Puts each document of a star into a group.

    Components with none of the first `own_documents` documents are left out, because earlier runs have judged them. `copies` are the stars
    of equal texts and URLs, `candidates` the buckets. `weight` (n): the further memory (64-bit words) that each document needs if it is in
    a bucket. It is overwritten with all the memory that the document needs.
    """
    parent, flags = connect(len(weight), copies, candidates)
    weight *= flags & NEAR > 0
    weight += np.uint32(DOCUMENT_WORDS)
    component, total = _weigh(parent, flags, weight)
    heaviest = max((int(weight[a:b][flags[a:b] > 0].max(initial=0)) for a, b in _blocks(len(weight))), default=0)
    limit = max(GROUP_WORDS, 2 * heaviest)  # so that even the longest document can be compared with another one
    apart = 0
    if (total > limit).any():
        apart = part_oversized(parent, flags, weight, component, total > limit, copies, candidates, limit)
        component, total = _weigh(parent, flags, weight)
    judged = _number(parent[:own_documents], flags, component)  # the components that begin with a document of this run
    return Groups(flags, component, weight, pack(total[:judged]), apart)


def connect(documents: int, copies: Stars, candidates: Stars) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.uint8]]:
    """Returns `(root, flags)` for each document: the lowest document of its component, and COPY and NEAR."""
    parent = np.arange(documents, dtype=np.int32 if documents < 1 << 31 else np.int64)
    flags = np.zeros(documents, np.uint8)
    for bit, stars in ((COPY, copies), (NEAR, candidates)):
        for star, document in stars:
            join_stars(parent, flags, star, document, bit)
    return roots(parent), flags


def part_oversized(parent, flags, weight, component, oversized, copies: Stars, candidates: Stars, limit: int) -> int:
    """Splits the components that are `oversized` (in `parent`); returns how often two candidates were left apart.

    Joins their documents again: all `copies`, then the stars of `candidates` from the smallest to the largest, unless the result would
    exceed `limit`. Small stars come first, because their documents share more. Among stars of one size the first ones win, so the split
    depends on the order of the documents.
    """
    for begin, end in _blocks(len(parent)):
        again = begin + np.flatnonzero(flags[begin:end] > 0)
        again = again[oversized[component[again]]]
        flags[again] |= np.uint8(OVERSIZED)
        parent[again] = again
    for star, document in copies:
        again = flags[document] & OVERSIZED > 0
        join_stars(parent, flags, star[again], document[again], OVERSIZED)
    of_root = np.zeros(len(parent), np.int64)  # takes memory only for the pages that are written
    _add_weights(parent, flags, weight, of_root)
    apart, smallest, largest = 0, 2, 2
    while largest >= smallest:
        for star, document in candidates:
            left, seen = join_up_to(parent, of_root, flags, star, document, limit, smallest)
            apart, largest = apart + int(left), max(largest, int(seen))
        smallest *= 2
    roots(parent)
    return apart


def pack(words: Integers) -> Integers:
    """Returns the group of each component, given the words of each. Groups are filled one after the other, up to about GROUP_WORDS."""
    full = np.cumsum(words) // GROUP_WORDS
    return np.cumsum(np.diff(full, prepend=-1) > 0) - 1


def _blocks(count: int) -> Iterator[tuple[int, int]]:
    return ((begin, min(begin + (1 << 20), count)) for begin in range(0, count, 1 << 20))


def _weigh(parent, flags, weight) -> tuple[npt.NDArray[np.integer], Integers]:
    """Returns `(component, total)`: the number of each document's component, and the weight of each component.

    Components are numbered in the order of their first documents.
    """
    component = np.zeros_like(parent)
    count = _number(parent, flags, component)
    total = np.zeros(count, np.int64)
    _total(component, flags, weight, total)
    return component, total


# ---- kernels for union-find: following `parent` (n) from a document leads to the root, the lowest document of its component -----


@kernel
def find_root(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@kernel
def roots(parent):
    for i in range(len(parent)):
        parent[i] = find_root(parent, i)
    return parent


@kernel
def join_stars(parent, flags, star, document, flag):
    """Joins the documents of each star (`star` ascends), and sets `flag` for all of them."""
    for i in range(len(star)):
        flags[document[i]] |= flag
        if i and star[i] == star[i - 1]:
            a, b = find_root(parent, document[i - 1]), find_root(parent, document[i])
            parent[max(a, b)] = min(a, b)


@kernel
def join_up_to(parent, weight, flags, star, document, limit, smallest):
    """Joins the documents of each oversized star (`star` ascends) that has `smallest` to `2 * smallest - 1` documents, into components of
    at most `limit` words. Returns how often two documents were left apart, and the size of the largest oversized star.

    Where two components are too large together, the next documents of the star join the lighter one, so that a million near copies end up
    in a few components. `weight` holds the weight of each root.
    """
    apart, begin, largest = 0, 0, 0
    while begin < len(star):
        end = begin
        while end < len(star) and star[end] == star[begin]:
            end += 1
        if flags[document[begin]] & OVERSIZED:
            largest = max(largest, end - begin)
            if smallest <= end - begin < 2 * smallest:
                target = document[begin]
                for i in range(begin + 1, end):
                    a, b = find_root(parent, target), find_root(parent, document[i])
                    if a == b:
                        continue
                    if weight[a] + weight[b] > limit:
                        apart += 1
                        if weight[b] <= weight[a]:
                            target = b
                        continue
                    weight[min(a, b)] = weight[a] + weight[b]
                    parent[max(a, b)] = min(a, b)
        begin = end
    return apart, largest


@kernel
def _number(parent, flags, component):
    count = 0
    for i in range(len(parent)):
        if flags[i]:
            if parent[i] == i:
                component[i] = count
                count += 1
            else:
                component[i] = component[parent[i]]  # the root is lower, so it already has its number
    return count


@kernel
def _total(component, flags, weight, total):
    for i in range(len(component)):
        if flags[i]:
            total[component[i]] += weight[i]


@kernel
def _add_weights(parent, flags, weight, of_root):
    for i in range(len(parent)):
        if flags[i] & OVERSIZED:
            of_root[find_root(parent, i)] += weight[i]
