# mypy: disallow-untyped-defs=False
"""The phase that judges each group of documents: finds the copies, the evidence for each, and the document that stays.

Exact copies have one *text*. Texts are numbered within the group, and most of the work is done once for each text. A *cluster* is a
document that stays, together with its copies. The terms *bucket* and *group* are defined in `candidates.py`.

Where there is one group, its task reads the shards themselves. Where there are several, a phase before (`colocated`) writes the documents
of each group next to each other."""

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

from corpusmill.dedup.audit import PLANTED
from corpusmill.dedup.candidates import GROUPS_FILE, buckets
from corpusmill.dedup.cluster_table import CONTAINMENT, EARLIER, ESTIMATE, EXACT, JACCARD, URL, ClusterVerdicts, cluster_table
from corpusmill.dedup.config import ClusterConfig, DedupConfig, MeasureConfig
from corpusmill.dedup.corpus import Integers, MeasuredShard, first_output, located, open_batches, read_rows
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
from corpusmill.text.buffers import text_buffers

#: A pair whose estimated similarity lies more than this many standard errors below the threshold is rejected by its signatures alone.
MARGIN = 3.0


def least_equal(threshold: float, places: int) -> int:
    """Returns in how many of `places` minima two signatures must agree for their texts to be compared."""
    error = math.sqrt(threshold * (1 - threshold) / places)
    return max(0, math.ceil((threshold - MARGIN * error) * places))


def numbered(hashes: npt.NDArray[np.uint64]) -> Integers:
    """Returns a number, from 0 on, for each of n hashes of 128 bits (n x 2); equal hashes have equal numbers."""
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))
    begins = (hashes[order[1:]] != hashes[order[:-1]]).any(axis=1)
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(np.r_[0, begins])[: len(order)]
    return number


def best_of(group: Integers, rank: Integers, count: int) -> Integers:
    """Returns the member with the lowest rank of each of `count` sets, or -1 for a set without members.

    `group`: the set of each member, or -1 where it is in none.
    """
    best = np.full(count, -1)
    order = np.argsort(-rank)
    order = order[group[order] >= 0]
    best[group[order]] = order  # the last one written is the best
    return best


def find_clusters(run: StageRun, config: DedupConfig, shards: list[MeasuredShard], groups: TaskRow) -> Sequence[TaskRow]:
    """Runs the phase; returns its tasks, one for each group."""
    table, count = groups.ref("dedup", GROUPS_FILE), groups.counts["groups"]
    compared = config.minhash.enabled and config.verification == "exact"
    files = [[shard.signatures, shard.texts] if compared and shard.texts else [shard.signatures] for shard in shards]
    params: dict[str, Any] = {"shards": [shard.name for shard in shards], "entries": [shard.entry for shard in shards]}
    if count == 1:
        listed = [ref for refs in files for ref in refs]
        params["files"] = [len(refs) for refs in files]
    else:
        listed = _colocated(run, shards, files, table, count)
    inputs = (write_list(run, "cluster-inputs", listed, params), table)
    tasks = [Task(f"clusters/part-{group:05d}", inputs, {"group": group}) for group in range(count)]
    bands, rows = band_shape(config.minhash)
    fixed = config.index is not None and config.index.earlier == "fixed"
    return run.map("clusters", ClusterWorker, tasks, {"bands": bands, "rows": rows, "fixed": fixed}, config.part(ClusterConfig))


def _colocated(run: StageRun, shards: list[MeasuredShard], files: list[list[FileRef]], table: FileRef, groups: int) -> list[FileRef]:
    """Runs the phase that writes the documents of a group next to each other; returns a file for each shard, or for 64 neighbours.

    `files`: for each shard the files to read. `table`: the file of groups.
    """
    names = [f"{shard.entry}/{shard.name}" if shard.entry else shard.name for shard in shards]
    merged = worth_merging(len(shards), groups)
    extra = [{"merged": block} if merged else {} for block in merged_shards(len(shards)) for _ in range(*block)]
    tasks = [
        Task(f"colocated/{name}", (table, *refs), {"shard": n} | more)
        for n, (name, refs, more) in enumerate(zip(names, files, extra, strict=True))
    ]
    colocated = [first_output(row) for row in run.map("colocated", ColocationWorker, tasks, {"groups": groups}, MeasureConfig())]
    return merge_documents(run, colocated, table, groups) if merged else colocated


#: The column with the number of a document's shard.
NUMBER = "shard_number"


class ColocationWorker(Worker):
    """Copies the documents of a shard that have a candidate: a batch for each group, or for each block of groups if a merge follows.

    Inputs: the file of groups, the shard's signatures, and its texts if they are compared. `params`: `groups`, the number of groups.
    `task.params`: `shard`, the number of the shard; if a merge follows, also `merged`: the first shard of the merged file, and its last
    plus 1.
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


def read_members(run: Storage, shard: int, groups: str, signatures: str, texts: str | None = None) -> tuple[pa.Table, Integers]:
    """Returns `(documents, group)`: the documents of a shard that have a candidate, and the group of each (ascending).

    `groups` is the file of groups; its batch number `shard` belongs to this shard. The table has the columns of the signatures, and `row`,
    `near` (whether the document is in a bucket), `shard_number` and `text`. `signature` and `text`, which take most of the memory, are
    null if `near` is false; `text` also where `texts` is not given.
    """
    with open_batches(run, groups) as reader:
        members = pa.Table.from_batches([reader.get_batch(shard)])
    rows, near, group = (members[name].to_numpy() for name in ("row", "near", "group"))
    order = np.argsort(group, kind="stable")
    with open_parquet(*located(run, signatures)) as file:
        schema = file.schema_arrow.remove_metadata()
    has_signatures = "signature" in schema.names
    if has_signatures:
        schema = schema.remove(schema.get_field_index("signature"))
    table = pa.concat_tables([schema.empty_table(), *read_rows(run, signatures, rows, schema.names)])
    table = table.append_column("row", members["row"]).append_column("near", members["near"])
    table = table.append_column(NUMBER, pa.array(np.full(len(rows), shard, np.int32)))
    in_order = (np.diff(order) == 1).all()
    table = table if in_order else table.take(pa.array(order))

    def column_of_near(path: str, name: str, kind: pa.DataType) -> pa.ChunkedArray:
        found = [column for part in read_rows(run, path, rows[near], [name]) for column in part[name].cast(kind).chunks]
        column = pa.chunked_array(found, kind)
        if in_order and near.all():
            return column
        return column.take(pa.array((np.cumsum(near) - 1)[order], mask=~near[order]))

    if has_signatures:  # not of fixed size, where a null would take as much memory as a signature
        table = table.append_column("signature", column_of_near(signatures, "signature", pa.large_binary()))
    text = pa.nulls(len(rows), pa.large_string()) if texts is None else column_of_near(texts, "text", pa.large_string())
    return table.append_column("text", text), group[order]


class ClusterWorker(Worker):
    """Judges one group; writes its rows of the cluster table.

    Inputs: a list of files (those of the phase `colocated`; with a single group, the signatures and texts of every shard), and the file of
    groups. `params`: `bands`, `rows` (minima in a band), `fixed` (whether documents of earlier runs always stay). `task.params`: `group`.
    The parameters of the list have one value for each shard: `shards` (its name), `entries` (its entry in the index, or null), and with a
    single group `files` (how many files of the list belong to the shard).
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
        indexed = any(read_list(self.run, task.inputs[0]).params["entries"])
        earlier = rows["entry"].is_valid()
        own = rows.filter(pc.invert(earlier)) if indexed else rows  # no copy of all rows where none is earlier
        files = {}
        planted = pc.equal(own["shard"], PLANTED)
        if pc.any(planted).as_py():
            files[f"{task.key.replace('clusters', 'audit')}.parquet"] = own.filter(planted).drop_columns(["entry"])
            own = own.filter(pc.invert(planted))
        files = {f"{task.key}.parquet": own.drop_columns(["entry"])} | files
        if indexed:
            files[f"{task.key.replace('clusters', 'earlier')}.parquet"] = rows.filter(earlier).cast(EARLIER)
        return Output(files, rows_in=table.num_rows, counts={"limited": int(limited)})

    def _read(self, task: Task) -> tuple[pa.Table, npt.NDArray[np.object_], npt.NDArray[np.object_]]:
        """Returns the documents of the task's group, and for each its shard and its entry in the index (or None)."""
        listed, groups = read_list(self.run, task.inputs[0]), task.inputs[1].path
        paths, params = iter(ref.path for ref in listed.files), listed.params
        if "files" in params:
            tables = [read_members(self.run, n, groups, *islice(paths, count))[0] for n, count in enumerate(params["files"])]
        else:
            tables = [self._colocated(path, task.params["group"]) for path in paths]
        # entries of an index may have further columns, which the policies of their runs needed
        table = pa.concat_tables(tables, promote_options="permissive")
        number = table[NUMBER].to_numpy()
        shards, entries = (np.array(params[name], object)[number] for name in ("shards", "entries"))
        return table, shards, entries

    def _colocated(self, path: str, group: int) -> pa.Table:
        with open_batches(self.run, path) as reader:
            return pa.Table.from_batches([reader.get_batch(group)])

    def _judge(self, table: pa.Table, later: npt.NDArray[np.bool_]) -> tuple[ClusterVerdicts, int]:
        """Returns the verdicts about the documents of a group, and how often `bucket_limit` was met.

        `later`: the documents that rank after all others.
        """
        config = self.config
        rank = _after(ranks(table, config.keep, config.sources), later)
        # 1. URL: of the documents with one URL, the best-ranked one stays alive. `by_url`: for each document, the one that stays.
        by_url = np.arange(table.num_rows)
        if config.url.enabled:
            by_url = same_url(table["url"], _after(ranks(table, config.url.keep, config.sources), later))
        alive = by_url == np.arange(table.num_rows)
        # 2. Exact copies: number the texts. `best`: for each text, the best-ranked of its documents that are alive (-1: none is).
        text = self._texts_of(table)
        best = best_of(np.where(alive, text, -1), rank, int(text.max(initial=-1)) + 1)
        # 3. Near copies: choose a representative for each text, which is again a text: itself where the text stays.
        representative, similarity, known, full, limited = self._near(table, text, best, rank, later)
        # 4. From texts to documents. `kept`: for each document, the one that stays in its place: the best one with the representative's
        # text or, where the cluster was full, with its own text. A document that lost to another one with its URL takes that one's `kept`.
        kept = best[np.where(full, np.arange(len(best)), representative)[text]]
        kept[~alive] = kept[by_url[~alive]]
        # 5. Evidence: an exact copy where the kept document has the same text (`same_text`), else what `_near` found, or the URL. Documents
        # that stay have none.
        same_text = np.where(full[text], True, representative[text] == text)
        verified = np.where(same_text, EXACT, known[text]).astype(object)
        values = np.where(same_text, 1.0, similarity[text])
        verified[~alive], values[~alive] = URL, np.nan
        mine = kept == np.arange(len(kept))
        verified[mine], values[mine] = None, np.nan
        # 6. A document that stays because its cluster is full: the document kept in that cluster, and its similarity to that one.
        over = np.where(full[text] & mine, best[representative][text], -1)
        values[over >= 0] = similarity[text][over >= 0]
        return ClusterVerdicts(kept, values, verified, over), limited

    def _texts_of(self, table: pa.Table) -> Integers:
        """Returns the number of each document's text; documents with equal numbers are exact copies."""
        if not self.config.exact.enabled:
            return np.arange(table.num_rows)
        return numbered(fixed_binary(table["exact"], np.dtype(np.uint64)))

    def _rows_of(self, table: pa.Table, text: Integers, count: int) -> Integers:
        """Returns for each of `count` texts the row whose signature stands for it, or -1 where none of its documents is in a bucket.

        Where exact copies may differ in their shingles, this is the row with the lowest signature, so that the order of the input does not
        matter.
        """
        row = np.full(count, -1)
        if not self.config.minhash.enabled:
            return row
        near = np.flatnonzero(table["near"].to_numpy())
        if not self.config.copies_share_shingles:
            order = pc.sort_indices(table["signature"].take(pa.array(near)).cast(pa.binary())).to_numpy()
            near = near[order[::-1]]
        row[text[near]] = near  # if a text has several rows, the last one stays
        return row

    def _near(
        self, table: pa.Table, text: Integers, best: Integers, rank: Integers, later: npt.NDArray[np.bool_]
    ) -> tuple[Integers, npt.NDArray[np.float64], npt.NDArray[np.object_], npt.NDArray[np.bool_], int]:
        """Returns `(representative, similarity, known, full, limited)`.

        For each text: its representative (itself where the text stays), how similar the two are, the kind of evidence, and whether the text
        stays only because its representative's cluster is full. `limited`: how often `bucket_limit` was met.
        """
        # at first, each text represents itself
        count = len(best)
        representative, similarity = np.arange(count), np.ones(count)
        known, full = np.full(count, None, object), np.zeros(count, bool)
        # `nodes`: the texts that are compared, those with a signature and a document that is alive; below, text i is `nodes[i]`
        row = self._rows_of(table, text, count)
        nodes = np.flatnonzero((row >= 0) & (best >= 0))
        if not len(nodes):
            return representative, similarity, known, full, 0
        order = np.argsort(rank[best[nodes]])
        forced = int((~later[best[nodes]]).sum()) if self.params["fixed"] else 0
        places, width = self.params["bands"] * self.params["rows"], self.config.minhash.bits // 8
        taken = table["signature"].take(pa.array(row[nodes])).cast(pa.binary(places * width))
        signatures = fixed_binary(taken, np.dtype(f"u{width}"))
        fewest = 0 if self.config.similarity == "containment" else least_equal(self.config.threshold, signatures.shape[1])
        sets = ShingleSets(self.shingler, table["text"], row[nodes])
        found = find_representatives(self.config, self.params["bands"], self.params["rows"], signatures, sets, order, forced, fewest)
        representative[nodes], similarity[nodes], full[nodes] = nodes[found.representative], found.similarity, found.full
        by_sets = CONTAINMENT if self.config.similarity == "containment" else JACCARD
        known[nodes] = np.where(found.exactly, by_sets, ESTIMATE)
        return representative, similarity, known, full, found.limited


def _after(rank: Integers, later: npt.NDArray[np.bool_]) -> Integers:
    """Returns the ranks, changed so that the documents of `later` rank after all others."""
    return rank + np.where(later, len(rank), 0)


def same_url(urls: pa.ChunkedArray, rank: Integers) -> Integers:
    """Returns for each document the best-ranked one with the same URL; the document itself where it has no URL."""
    have = np.flatnonzero(urls.is_valid().to_numpy())
    chosen = np.arange(len(urls))
    if len(have):
        group = numbered(fixed_binary(urls.take(pa.array(have)), np.dtype(np.uint64)))
        chosen[have] = have[best_of(group, rank[have], int(group.max()) + 1)[group]]
    return chosen


# ---- clusters in which every member is similar to the document that stays --------------------------------
#
# Documents are taken in the policy's order. Each one is compared with the representatives of the clusters that have a member in one of its
# LSH buckets. It joins the best-ranked cluster whose representative is similar; if there is none, it stays and represents a new cluster.
# So there are no chains: if b is similar to a, and c is similar to b but not to a, then c stays.


@kernel(error_model="numpy")
def shared(a, b):
    """Returns how many values two ascending arrays without repeats have in common."""
    i = j = common = 0
    while i < len(a) and j < len(b):  # no branch on x < y: the processor could not predict it
        x, y = a[i], b[j]
        common += int(x == y)
        i += int(x <= y)
        j += int(y <= x)
    return common


#: The data by which two of n documents are compared. `signatures`: n x places. `hashes`, `bounds` (n x 2): the shingle set of document d
#: is `hashes[bounds[d, 0]:bounds[d, 1]]` where `made[d]`. If both documents are `comparable`, their sets decide; while one set is not yet
#: made, it is marked as `wanted`, and the signatures decide for now. `least_equal`: a pair whose signatures agree in fewer places is
#: rejected. `containment`: whether similarity is the share of the first document's shingles that the second has, not Jaccard's.
Evidence = namedtuple("Evidence", "signatures hashes bounds comparable made wanted least_equal threshold containment")


@kernel(error_model="numpy")
def similarity(a, b, evidence):
    """Returns the similarity of document a to document b, or -1 where it is below the threshold."""
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
    """Returns `(representative, similarity, full, limited)`.

    For each document: the representative of its cluster (itself where it stays), how similar the two are (1 to itself), and whether it
    stays only because the cluster already has `cluster_limit` members that were removed. `limited`: how often a bucket held more than
    `bucket_limit` clusters, of which the last ones were not compared.

    `order` lists the documents, the best first; the first `forced` of them stay in any case. The buckets of document d are
    `buckets_of[first_bucket[d]:first_bucket[d + 1]]`.
    """
    # each bucket is a linked list of clusters: `head` and `tail` (entries by bucket), `entry_next` and `entry_cluster` (by entry)
    count = len(first_bucket) - 1
    representative, value, full = np.arange(count), np.ones(count), np.zeros(count, np.bool_)
    head, tail = np.full(bucket_count, -1), np.full(bucket_count, -1)
    entry_next, entry_cluster = np.empty(len(buckets_of), np.int64), np.empty(len(buckets_of), np.int64)
    entries = clusters = limited = 0
    cluster_representative, cluster_members = np.empty(count, np.int64), np.zeros(count, np.int64)
    cluster_seen = np.full(count, -1)  # for each cluster, the last document that was compared with it
    for place in range(len(order)):
        document = order[place]
        # compare the document with the clusters of its buckets, the best-ranked first
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
        # join the best-ranked similar cluster, or begin a new one
        if best == clusters:
            cluster_representative[clusters] = document
            clusters += 1
        representative[document], value[document] = cluster_representative[best], best_value
        full[document] = cluster_members[best] > cluster_limit
        cluster_members[best] += not full[document]
        # list the cluster in each of the document's buckets
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
    """Whether `cluster` is among the first `limit` entries of a bucket, whose first entry is `entry`."""
    while entry >= 0 and limit > 0:
        if entry_cluster[entry] == cluster:
            return True
        entry = entry_next[entry]
        limit -= 1
    return False


# ---- the choice for the texts of a group ---------------------------------------------------------------


@dataclass(frozen=True)
class Representatives:
    """The representatives of n texts."""

    representative: Integers  # itself where the text stays
    similarity: npt.NDArray[np.float64]  # to the representative
    exactly: npt.NDArray[np.bool_]  # whether it was computed from their shingles; else from their signatures
    full: npt.NDArray[np.bool_]  # whether the text stays only because its representative's cluster is full
    limited: int  # how often `bucket_limit` was met


class ShingleSets:
    """The shingle sets of n texts, of which `make` computes some. Text i is row `rows[i]` of `texts` (`large_string`, null if it is
    missing)."""

    def __init__(self, shingler: Shingler, texts: pa.ChunkedArray, rows: Integers):
        self.shingler, self.texts, self.rows = shingler, texts, rows
        self.there = texts.is_valid().to_numpy()[rows]
        self.hashes = np.zeros(0, np.uint64)
        self.bounds = np.zeros((len(rows), 2), np.int64)
        self.made = np.zeros(len(rows), bool)

    def make(self, which: Integers) -> None:
        hashes, bounds = self.shingler.sets(*text_buffers(self.texts.take(pa.array(self.rows[which]))))
        self.bounds[which, 0], self.bounds[which, 1] = bounds[:-1] + len(self.hashes), bounds[1:] + len(self.hashes)
        self.hashes = np.concatenate([self.hashes, hashes]) if len(self.hashes) else hashes
        self.made[which] = True


def find_representatives(
    config: ClusterConfig, bands: int, rows: int, signatures: npt.NDArray, sets: ShingleSets, order: Integers, forced: int, fewest: int
) -> Representatives:
    """Chooses a representative for each of n texts.

    `order` lists the texts, the best first; the first `forced` stay in any case. `fewest`: in how many places two signatures must agree for
    their texts to be compared.

    Signatures reject most pairs, so most texts need no shingle set. A choice notes which missing sets it needs. These sets are made, and
    the choice is repeated until it needs no others. The result is the same as with the sets of all texts.
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
