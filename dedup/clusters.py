# mypy: disallow-untyped-defs=False
"""The phase that decides, within each group of documents: which are copies of which, what proves it, and which one stays.

A single group is read where its documents lie. With several groups, a phase before co-locates the documents of each."""

import math
from collections import namedtuple
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.dedup.candidates import GROUPS_FILE, buckets
from corpusmill.dedup.cluster_table import CONTAINMENT, EARLIER, ESTIMATE, EXACT, JACCARD, URL, ClusterVerdicts, cluster_table
from corpusmill.dedup.config import ClusterConfig, DedupConfig, MeasureConfig
from corpusmill.dedup.corpus import Index, MeasuredShard, located, only, open_batches, read_rows
from corpusmill.dedup.external_sort import GROUP, group_blocks, merge_documents, merged_shards, worth_merging
from corpusmill.dedup.policy import ranks
from corpusmill.dedup.shingles import Shingler, band_keys, band_shape, equal_places
from corpusmill.dedup.signatures import fixed_binary
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.lists import read_list, write_list
from corpusmill.pipeline.manifest import FileRef, TaskRow
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import batches_buffer, open_parquet
from corpusmill.pipeline.stage import Output, Task, Worker
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.text.buffers import text_buffers

#: Standard errors of the estimate below the threshold at which signatures alone decide against a pair.
MARGIN = 3.0


def least_equal(threshold: float, places: int) -> int:
    """In how many places two signatures must agree before their texts are compared."""
    error = math.sqrt(threshold * (1 - threshold) / places)
    return max(0, math.ceil((threshold - MARGIN * error) * places))


def numbered(hashes: npt.NDArray[np.uint64]) -> Index:
    """A number for each of n hashes of 128 bits (n x 2), from 0 on; equal hashes have equal numbers."""
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))
    begins = (hashes[order[1:]] != hashes[order[:-1]]).any(axis=1)
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(np.r_[0, begins])[: len(order)]
    return number


def best_of(group: Index, rank: Index, count: int) -> Index:
    """The member with the lowest rank of each of `count` groups (-1 where there is none); members of group -1 belong to none."""
    best = np.full(count, -1)
    order = np.argsort(-rank)
    order = order[group[order] >= 0]
    best[group[order]] = order  # the last one written is the best
    return best


def find_clusters(run: StageRun, config: DedupConfig, shards: list[MeasuredShard], groups: TaskRow) -> Sequence[TaskRow]:
    """Runs the phase; returns its tasks, one per group."""
    table, count = groups.ref("dedup", GROUPS_FILE), groups.counts["groups"]
    compared = config.minhash.enabled and config.verification == "exact"
    files = [[shard.signatures, shard.texts] if compared and shard.texts else [shard.signatures] for shard in shards]
    params: dict[str, Any] = {"shards": [shard.name for shard in shards], "entries": [shard.entry for shard in shards]}
    if count == 1:
        listed = [ref for refs in files for ref in refs]
        params["files"] = [len(refs) for refs in files]
    else:
        listed = _colocated(run, shards, files, table, count)
    inputs = (write_list(run, "judged", listed, params), table)
    tasks = [Task(f"clusters/part-{group:05d}", inputs, {"group": group}) for group in range(count)]
    bands, rows = band_shape(config.minhash)
    fixed = config.index is not None and config.index.earlier == "fixed"
    return run.map("clusters", ClusterWorker, tasks, {"bands": bands, "rows": rows, "fixed": fixed}, config.part(ClusterConfig))


def _colocated(run: StageRun, shards: list[MeasuredShard], files: list[list[FileRef]], table: FileRef, groups: int) -> list[FileRef]:
    """Co-locates the documents that have a candidate; returns a file per shard, or per 64 neighbours. `table`: the file of groups."""
    names = [f"{shard.entry}/{shard.name}" if shard.entry else shard.name for shard in shards]
    merged = worth_merging(len(shards), groups)
    beside = [{"merged": block} if merged else {} for block in merged_shards(len(shards)) for _ in range(*block)]
    tasks = [
        Task(f"gathered/{name}", (table, *refs), {"shard": n} | more)
        for n, (name, refs, more) in enumerate(zip(names, files, beside, strict=True))
    ]
    gathered = [only(row) for row in run.map("gathered", ColocationWorker, tasks, {"groups": groups}, MeasureConfig())]
    return merge_documents(run, gathered, table, groups) if merged else gathered


#: The column that says of which shard a document is.
NUMBER = "shard_number"


class ColocationWorker(Worker):
    """Copies the documents of a shard that have a candidate: a batch per group, or per block of groups if the file is merged later.

    `inputs`: as `read_members` needs them, the file of groups first. `params`: `groups`, how many there are; of a task: `shard`, its
    number, and `merged`, if it is merged with others: from which shard to which.
    """

    def process(self, task: Task) -> Output:
        groups, signatures, *texts = (ref.path for ref in task.inputs)
        table, group = read_members(self.run, task.params["shard"], groups, signatures, *texts)
        blocks: Any = np.arange(self.params["groups"] + 1)
        if merged := task.params.get("merged"):
            blocks = group_blocks(self.run, groups, merged, self.params["groups"])
            table = table.append_column(GROUP, pa.array(group.astype(np.int32)))
        bounds = np.searchsorted(group, blocks)
        parts = [table.slice(a, b - a) for a, b in pairwise(bounds)]
        return Output({f"{task.key}.arrow": batches_buffer(table.schema, parts, "lz4").to_pybytes()}, rows_in=table.num_rows)


def read_members(run: Storage, shard: int, groups: str, signatures: str, texts: str | None = None) -> tuple[pa.Table, Index]:
    """`(documents, group)`: the documents of a shard that have a candidate, and the group of each (ascending).

    `groups` is the file of groups, in which the shard has the number `shard`. The columns are those of the signatures, with `row`, `near`
    (whether the document is in a bucket) and `text`, null where it is in none or there are no `texts`; and `shard_number`.
    """
    with open_batches(run, groups) as reader:
        members = pa.Table.from_batches([reader.get_batch(shard)])
    rows, near, group = (members[name].to_numpy() for name in ("row", "near", "group"))
    order = np.argsort(group, kind="stable")
    with open_parquet(*located(run, signatures)) as file:
        schema = file.schema_arrow.remove_metadata()
    table = pa.concat_tables([schema.empty_table(), *read_rows(run, signatures, rows, schema.names)])
    table = table.append_column("row", members["row"]).append_column("near", members["near"])
    table = table.append_column(NUMBER, pa.array(np.full(len(rows), shard, np.int32)))
    in_order = (np.diff(order) == 1).all()
    table = table if in_order else table.take(pa.array(order))
    if texts is None:
        return table.append_column("text", pa.nulls(len(rows), pa.large_string())), group[order]
    found = [column for part in read_rows(run, texts, rows[near], ["text"]) for column in part["text"].cast(pa.large_string()).chunks]
    column = pa.chunked_array(found, pa.large_string())
    if not (in_order and near.all()):  # else there is nothing to copy
        column = column.take(pa.array((np.cumsum(near) - 1)[order], mask=~near[order]))
    return table.append_column("text", column), group[order]


class ClusterWorker(Worker):
    """Decides about one group; writes its rows of the cluster table.

    Inputs: the list of the co-located files (with a single group: of each shard's signatures and texts), and the file of groups.
    `params`: `bands`, `rows` (of a band); of a task: `group`; of the list, for each shard: `shards` (its name), `entries` (of the index,
    or null), and with a single group `files` (how many of the files are the shard's).
    """

    config: ClusterConfig

    def setup(self) -> None:
        self.shingler = Shingler(self.config.minhash)
        if self.config.minhash.enabled and self.config.verification == "exact":
            self.shingler.setup()

    def process(self, task: Task) -> Output:
        table, shard, entry = self._read(task)
        new = entry == None if self.params["fixed"] else np.zeros(len(entry), bool)  # noqa: E711 - an array of names
        verdicts, limited = self._judge(table, new)
        rows = cluster_table(table, shard, entry, verdicts, self.config.by)
        earlier = rows["entry"].is_valid()
        files = {f"{task.key}.parquet": rows.filter(pc.invert(earlier)).drop_columns(["entry"])}
        if any(read_list(self.run, task.inputs[0]).params["entries"]):
            files[f"{task.key.replace('clusters', 'earlier')}.parquet"] = rows.filter(earlier).cast(EARLIER)
        return Output(files, rows_in=table.num_rows, counts={"limited": int(limited)})

    def _read(self, task: Task) -> tuple[pa.Table, npt.NDArray[np.object_], npt.NDArray[np.object_]]:
        """The group's documents with the shard and the entry of each."""
        listed, groups = read_list(self.run, task.inputs[0]), task.inputs[1].path
        paths, params = iter(ref.path for ref in listed.files), listed.params
        if "files" in params:
            tables = [read_members(self.run, n, groups, *islice(paths, count))[0] for n, count in enumerate(params["files"])]
        else:
            tables = [self._colocated(path, task.params["group"]) for path in paths]
        # entries of an index may have columns that other policies needed
        table = pa.concat_tables(tables, promote_options="permissive")
        number = table[NUMBER].to_numpy()
        shards, entries = (np.array(params[name], object)[number] for name in ("shards", "entries"))
        return table, shards, entries

    def _colocated(self, path: str, group: int) -> pa.Table:
        with open_batches(self.run, path) as reader:
            return pa.Table.from_batches([reader.get_batch(group)])

    def _judge(self, table: pa.Table, later: npt.NDArray[np.bool_]) -> tuple[ClusterVerdicts, int]:
        """The decisions about a group, and how often `bucket_limit` was met. `later`: documents that yield to all others."""
        config = self.config
        rank = _after(ranks(table, config.keep, config.sources), later)
        by_url = np.arange(table.num_rows)
        if config.url.enabled:
            by_url = same_url(table["url"], _after(ranks(table, config.url.keep, config.sources), later))
        alive = by_url == np.arange(table.num_rows)
        text = self._texts_of(table)
        best = best_of(np.where(alive, text, -1), rank, int(text.max(initial=-1)) + 1)
        representative, similarity, known, full, limited = self._near(table, text, best, rank, later)
        kept = best[np.where(full, np.arange(len(best)), representative)[text]]
        kept[~alive] = kept[by_url[~alive]]
        own = np.where(full[text], True, representative[text] == text)
        verified = np.where(own, EXACT, known[text]).astype(object)
        values = np.where(own, 1.0, similarity[text])
        verified[~alive], values[~alive] = URL, np.nan
        mine = kept == np.arange(len(kept))
        verified[mine], values[mine] = None, np.nan
        over = np.where(full[text] & mine, best[representative][text], -1)
        values[over >= 0] = similarity[text][over >= 0]
        return ClusterVerdicts(kept, values, verified, over), limited

    def _texts_of(self, table: pa.Table) -> Index:
        """The number of each document's text; documents with equal numbers are exact copies."""
        if not self.config.exact.enabled:
            return np.arange(table.num_rows)
        return numbered(fixed_binary(table["exact"], np.dtype(np.uint64)))

    def _rows_of(self, table: pa.Table, text: Index, count: int) -> Index:
        """For each of `count` texts the row that has its signature, or -1. Where exact copies differ in their shingles it is the one
        with the lowest signature: whichever came first in the input plays no part."""
        row = np.full(count, -1)
        if not self.config.minhash.enabled:
            return row
        near = np.flatnonzero(table["near"].to_numpy())
        if not self.config.copies_share_shingles:
            order = pc.sort_indices(table["signature"].take(pa.array(near)).cast(pa.binary())).to_numpy()
            near = near[order[::-1]]
        row[text[near]] = near  # of several the last one counts
        return row

    def _near(
        self, table: pa.Table, text: Index, best: Index, rank: Index, later: npt.NDArray[np.bool_]
    ) -> tuple[Index, npt.NDArray[np.float64], npt.NDArray[np.object_], npt.NDArray[np.bool_], int]:
        """For each text its representative, how similar they are, what proves it, whether that cluster is full; and `limited`."""
        count = len(best)
        representative, similarity = np.arange(count), np.ones(count)
        known, full = np.full(count, None, object), np.zeros(count, bool)
        row = self._rows_of(table, text, count)
        nodes = np.flatnonzero((row >= 0) & (best >= 0))
        if not len(nodes):
            return representative, similarity, known, full, 0
        order = np.argsort(rank[best[nodes]])
        forced = int((~later[best[nodes]]).sum()) if self.params["fixed"] else 0
        signatures = fixed_binary(table["signature"], np.dtype(f"u{self.config.minhash.bits // 8}"))[row[nodes]]
        fewest = 0 if self.config.similarity == "containment" else least_equal(self.config.threshold, signatures.shape[1])
        sets = ShingleSets(self.shingler, table["text"], row[nodes])
        found = find_representatives(self.config, self.params["bands"], self.params["rows"], signatures, sets, order, forced, fewest)
        representative[nodes], similarity[nodes], full[nodes] = nodes[found.representative], found.similarity, found.full
        by_sets = CONTAINMENT if self.config.similarity == "containment" else JACCARD
        known[nodes] = np.where(found.exactly, by_sets, ESTIMATE)
        return representative, similarity, known, full, found.limited


def _after(rank: Index, later: npt.NDArray[np.bool_]) -> Index:
    """The ranks with those of `later` behind all others."""
    return rank + np.where(later, len(rank), 0)


def same_url(urls: pa.ChunkedArray, rank: Index) -> Index:
    """For each document the best-ranked one with its URL; itself where it has none."""
    have = np.flatnonzero(urls.is_valid().to_numpy())
    chosen = np.arange(len(urls))
    if len(have):
        group = numbered(fixed_binary(urls.take(pa.array(have)), np.dtype(np.uint64)))
        chosen[have] = have[best_of(group, rank[have], int(group.max()) + 1)[group]]
    return chosen


# ---- clusters in which every member is similar to the document that stays --------------------------------
#
# Documents are taken in the policy's order. Each goes to the best-ranked cluster whose representative it is similar to; else it stays and
# represents a cluster of its own. Compared are the clusters that have a member in one of the document's LSH buckets. Chains end here:
# if b is like a, and c like b but not like a, then c stays.


@kernel(error_model="numpy")
def shared(a, b):
    """|a & b| of two ascending arrays without repeats."""
    i = j = common = 0
    while i < len(a) and j < len(b):  # which array is behind can't be predicted, so there is no branch on it
        x, y = a[i], b[j]
        common += int(x == y)
        i += int(x <= y)
        j += int(y <= x)
    return common


#: How two of n documents are compared. `signatures`: n x places. `hashes`, `bounds` (n x 2): the shingle set of document d is
#: `hashes[bounds[d, 0]:bounds[d, 1]]` where `made[d]`. Where both are `comparable` their sets decide; as long as one is not made, both
#: are `wanted` and the signatures stand in. `least_equal`: signatures that agree in fewer places decide against.
#: `containment`: whether the share of the first one's shingles counts, not Jaccard's.
Evidence = namedtuple("Evidence", "signatures hashes bounds comparable made wanted least_equal threshold containment")


@kernel(error_model="numpy")
def similarity(a, b, evidence):
    """The verified similarity of document a to document b, or -1 where they are not similar."""
    equal = equal_places(evidence.signatures[a], evidence.signatures[b])
    if equal < evidence.least_equal:
        return -1.0
    if not (evidence.comparable[a] and evidence.comparable[b]):
        value = equal / evidence.signatures.shape[1]
    elif not (evidence.made[a] and evidence.made[b]):
        evidence.wanted[a] |= not evidence.made[a]
        evidence.wanted[b] |= not evidence.made[b]
        value = equal / evidence.signatures.shape[1]
    else:
        bounds = evidence.bounds
        first, second = evidence.hashes[bounds[a, 0] : bounds[a, 1]], evidence.hashes[bounds[b, 0] : bounds[b, 1]]
        common = shared(first, second)
        value = common / (len(first) if evidence.containment else len(first) + len(second) - common)
    return value if value >= evidence.threshold else -1.0


@kernel(error_model="numpy")
def choose_representatives(order, buckets_of, first_bucket, bucket_count, bucket_limit, cluster_limit, forced, evidence):
    """`(representative, similarity, full, limited)`: for each document the kept document of its cluster (itself where it is kept), how
    similar the two are (1 for itself), whether it stays only because `cluster_limit` others have left for that one, and how often a bucket
    held more than `bucket_limit` clusters and the rest was not compared.

    `order` lists the documents, the best first, of which the first `forced` are kept whatever they are like; the buckets of document d
    are `buckets_of[first_bucket[d]:first_bucket[d + 1]]`.
    """
    count = len(first_bucket) - 1
    representative, value, full = np.arange(count), np.ones(count), np.zeros(count, np.bool_)
    head, tail = np.full(bucket_count, -1), np.full(bucket_count, -1)
    entry_next, entry_cluster = np.empty(len(buckets_of), np.int64), np.empty(len(buckets_of), np.int64)
    entries = clusters = limited = 0
    cluster_representative, cluster_members = np.empty(count, np.int64), np.zeros(count, np.int64)
    cluster_seen = np.full(count, -1)  # the last document that was compared with a cluster
    for place in range(len(order)):
        document = order[place]
        best, best_value = clusters, 1.0
        for b in range(first_bucket[document], first_bucket[document + 1]):
            entry, compared = head[buckets_of[b]] if place >= forced else -1, 0
            while entry >= 0 and compared < bucket_limit:
                cluster = entry_cluster[entry]
                if cluster < best and cluster_seen[cluster] != document:
                    cluster_seen[cluster] = document
                    found = similarity(document, cluster_representative[cluster], evidence)
                    if found >= 0:
                        best, best_value = cluster, found
                entry = entry_next[entry]
                compared += 1
            limited += entry >= 0
        if best == clusters:
            cluster_representative[clusters] = document
            clusters += 1
        representative[document], value[document] = cluster_representative[best], best_value
        full[document] = cluster_members[best] > cluster_limit
        cluster_members[best] += not full[document]
        for b in range(first_bucket[document], first_bucket[document + 1]):
            bucket = buckets_of[b]
            if not _holds(head[bucket], entry_next, entry_cluster, best, bucket_limit):
                entry_cluster[entries], entry_next[entries] = best, -1
                if tail[bucket] < 0:
                    head[bucket] = entries
                else:
                    entry_next[tail[bucket]] = entries
                tail[bucket] = entries
                entries += 1
    return representative, value, full, limited


@kernel
def _holds(entry, entry_next, entry_cluster, cluster, limit):
    """Whether one of a bucket's first `limit` entries is `cluster`."""
    while entry >= 0 and limit > 0:
        if entry_cluster[entry] == cluster:
            return True
        entry = entry_next[entry]
        limit -= 1
    return False


# ---- the choice for texts that are judged together ---------------------------------------------------


@dataclass(frozen=True)
class Representatives:
    """Of n texts: the one that represents each (itself where it stays), how similar the two are, whether that is by their shingles (or by
    signatures alone), whether the representative's cluster had no room, and how often `bucket_limit` was met."""

    representative: Index
    similarity: npt.NDArray[np.float64]
    exactly: npt.NDArray[np.bool_]
    full: npt.NDArray[np.bool_]
    limited: int


class ShingleSets:
    """The shingle sets of n texts, each made when it is asked for: text i is row `rows[i]` of `texts` (`large_string`), null where there
    is none."""

    def __init__(self, shingler: Shingler, texts: pa.ChunkedArray, rows: Index):
        self.shingler, self.texts, self.rows = shingler, texts, rows
        self.there = texts.is_valid().to_numpy()[rows]
        self.hashes = np.zeros(0, np.uint64)
        self.bounds = np.zeros((len(rows), 2), np.int64)
        self.made = np.zeros(len(rows), bool)

    def make(self, which: Index) -> None:
        hashes, bounds = self.shingler.sets(*text_buffers(self.texts.take(pa.array(self.rows[which]))))
        self.bounds[which, 0], self.bounds[which, 1] = bounds[:-1] + len(self.hashes), bounds[1:] + len(self.hashes)
        self.hashes = np.concatenate([self.hashes, hashes]) if len(self.hashes) else hashes
        self.made[which] = True


def find_representatives(
    config: ClusterConfig, bands: int, rows: int, signatures: npt.NDArray, sets: ShingleSets, order: Index, forced: int, fewest: int
) -> Representatives:
    """`order` lists the n texts, the best first; the first `forced` stay whatever they are like. `fewest`: in how many places
    signatures must agree for the texts to be compared.

    Most pairs are decided by signatures far below the threshold, and their sets are never made: the choice is made again with the sets that
    it asked for until it asks for no more, and so is the one that all sets would give.
    """
    keys = band_keys(signatures, bands, rows).reshape(-1)
    node = np.tile(np.arange(len(order)), bands)
    bucket, member = buckets(keys, node.astype(np.uint64), node)
    by_member = np.lexsort((bucket, member))
    first = np.searchsorted(member[by_member], np.arange(len(order) + 1))
    count = int(bucket.max(initial=-1)) + 1
    comparable = sets.there & (config.verification == "exact")
    while True:
        wanted = np.zeros(len(order), bool)
        evidence = Evidence(
            signatures,
            sets.hashes,
            sets.bounds,
            comparable,
            sets.made,
            wanted,
            fewest,
            config.threshold,
            config.similarity == "containment",
        )
        representative, similarity, full, limited = choose_representatives(
            order, bucket[by_member], first, count, config.bucket_limit, config.max_cluster, forced, evidence
        )
        if not wanted.any():
            return Representatives(representative, similarity, comparable & comparable[representative], full, int(limited))
        sets.make(np.flatnonzero(wanted))
