"""The cluster table: a row for each document that has a copy, with the document that stays in its place and the evidence.

Later phases read from it which documents of a shard stay, and how many documents each source loses."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.dedup.config import DedupConfig
from corpusmill.dedup.corpus import Integers, MeasuredShard, files, first_output, located, shard_key
from corpusmill.dedup.external_sort import neighbours, worth_merging
from corpusmill.dedup.signatures import BY, require_columns
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.lists import input_paths, write_list
from corpusmill.pipeline.manifest import FileRef, TaskRow
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import iter_tables, open_parquet
from corpusmill.pipeline.stage import Output, Task, Worker
from corpusmill.pipeline.storage import Storage

#: The kinds of evidence that a document is a copy of the kept one.
EXACT, URL, JACCARD, CONTAINMENT, ESTIMATE = "exact", "url", "exact_jaccard", "containment", "minhash_estimate"
#: One row for each document of a cluster of two or more, and for each that stays because a cluster was full; sorted by shard and row.
CLUSTERS = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string()),  # or the host or value by which removals are counted
        pa.field("kept", pa.bool_(), nullable=False),
        pa.field("cluster_size", pa.int64(), nullable=False),
        pa.field("kept_id", pa.string(), nullable=False),  # identifies the cluster
        pa.field("kept_in", pa.string()),  # the entry of the index that has the kept document; null where this run has it
        # to the kept document, or to the one in `full_cluster`; null for the kept one, and where only the URL is the same
        pa.field("similarity", pa.float64()),
        pa.field("verified", pa.string()),  # exact | url | exact_jaccard | containment | minhash_estimate; null for the kept one
        pa.field("full_cluster", pa.string()),  # the kept document of the cluster that was full for this one
    ]
)
#: The same rows for documents of earlier runs, which are judged again; `entry` is their entry in the index.
EARLIER = pa.schema([pa.field("entry", pa.string(), nullable=False), *CLUSTERS])


@dataclass(frozen=True)
class ClusterVerdicts:
    """What was decided about n documents: which one stays in place of each, and why. Each array has n values."""

    kept: Integers  # the document that stays in its place; itself if it stays
    similarity: npt.NDArray[np.float64]  # to the kept document, or to the one in `full`; NaN where unknown
    verified: npt.NDArray[np.object_]  # the kind of evidence; None if it stays
    full: Integers  # the kept document of the full cluster because of which it stays, or -1


def cluster_table(
    table: pa.Table, shard: npt.NDArray[np.object_], entry: npt.NDArray[np.object_], verdicts: ClusterVerdicts, by_what: str
) -> pa.Table:
    """Returns the rows of `CLUSTERS`, with `entry`, for documents in a cluster of two or more, and for those that a full cluster did not
    take.

    Each document of an earlier run has a row, because one that stays alone now may have been removed then.
    """
    kept = verdicts.kept
    size = np.bincount(kept, minlength=len(kept))[kept]
    chosen = np.flatnonzero((size > 1) | (verdicts.full >= 0) | (entry != None))  # noqa: E711 - an array of names
    at = pa.array(chosen)
    full = verdicts.full[chosen]
    value = verdicts.similarity[chosen]
    by = table["source"] if by_what == "source" else table[BY]
    columns = {
        "entry": pa.array(entry[chosen], pa.string()),
        "shard": pa.array(shard[chosen], pa.string()),
        "row": table["row"].take(at),
        "id": table["id"].take(at),
        "source": by.take(at),
        "kept": pa.array(kept[chosen] == chosen),
        "cluster_size": pa.array(size[chosen]),
        "kept_id": table["id"].take(pa.array(kept[chosen])),
        "kept_in": pa.array(entry[kept[chosen]], pa.string()),
        "similarity": pa.array(value, mask=np.isnan(value)),
        "verified": pa.array(verdicts.verified[chosen], pa.string()),
        "full_cluster": table["id"].take(pa.array(full, mask=full < 0)),
    }
    schema = pa.schema([pa.field("entry", pa.string()), *CLUSTERS])
    rows = pa.table([columns[name] for name in schema.names], schema=schema)
    return rows.sort_by([("entry", "ascending"), ("shard", "ascending"), ("row", "ascending")])


def read_clusters(run: Storage, paths: Sequence[str], shards: Sequence[str]) -> pa.Table:
    """Reads the rows of some shards from the cluster tables, sorted by shard and row. Skips row groups without these shards."""
    tables, names = [CLUSTERS.empty_table()], pa.array(shards, pa.string())
    first, last = min(shards), max(shards)
    for path in paths:
        with open_parquet(run, path) as file:
            column = CLUSTERS.get_field_index("shard")
            for group in range(file.num_row_groups):
                statistics = file.metadata.row_group(group).column(column).statistics
                if statistics is None or not statistics.has_min_max or (statistics.min <= last and statistics.max >= first):
                    table = file.read_row_group(group, use_threads=False)
                    tables.append(table.filter(pc.is_in(table["shard"], names)))
    found = pa.concat_tables(tables)
    return found if len(paths) == 1 else found.sort_by([("shard", "ascending"), ("row", "ascending")])


def survivors(run: Storage, shard: str, clusters: Sequence[str], columns: list[str]) -> Iterator[tuple[npt.NDArray[np.int64], pa.Table]]:
    """Yields `(rows, table)` for each row group of a shard: the rows (ascending) of documents that stay, and their columns.

    `clusters`: the paths of the cluster tables.
    """
    found = read_clusters(run, clusters, [shard_key(shard)])
    removed = found["row"].filter(pc.invert(found["kept"])).to_numpy()
    begin = 0
    with open_parquet(run, shard) as file:
        require_columns(run.path(shard), file.schema_arrow.names, columns)
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=columns, use_threads=False)
            stays = np.ones(table.num_rows, bool)
            first, last = np.searchsorted(removed, [begin, begin + table.num_rows])
            stays[removed[first:last] - begin] = False
            yield np.flatnonzero(stays) + begin, table if stays.all() else table.filter(pa.array(stays))
            begin += table.num_rows


# ---- the tables by shard ---------------------------------------------------------------------------------


def clusters_by_shard(run: StageRun, shards: Sequence[str], clusters: Sequence[TaskRow]) -> list[FileRef]:
    """Returns for each shard a file with its rows: a table for 64 shards, or the list of all cluster tables if there are few.

    So the task of a shard does not have to open every table for a few rows.
    """
    tables = files(clusters, "clusters/")
    listed = write_list(run, "cluster-tables", tables)
    if not worth_merging(len(shards), len(tables)):
        return [listed] * len(shards)
    blocks = neighbours(shards)
    tasks = [Task(f"merged/clusters-{number:05d}", (listed,), {"shards": list(block)}) for number, block in enumerate(blocks)]
    done = run.map("merged clusters", ShardRowsWorker, tasks, config=Config())
    return [first_output(row) for row, block in zip(done, blocks, strict=True) for _ in block]


class ShardRowsWorker(Worker):
    """Collects the rows of some shards (`shards` of a task) from all cluster tables."""

    def process(self, task: Task) -> Output:
        table = read_clusters(self.run, input_paths(self.run, task.inputs), task.params["shards"])
        return Output({f"{task.key}.parquet": table}, rows_in=table.num_rows)


# ---- the documents that each source loses ----------------------------------------------------------------


SOURCES_TASK = "sources"
SOURCES_FILE = "clusters/sources.parquet"
SOURCES = pa.schema(
    [
        pa.field("source", pa.string()),  # or host or value; null for documents without one
        pa.field("documents", pa.int64(), nullable=False),
        pa.field("url", pa.int64(), nullable=False),  # removed as captures of one URL
        pa.field("exact", pa.int64(), nullable=False),  # removed as exact copies
        pa.field("near", pa.int64(), nullable=False),  # removed as near copies
        pa.field("share", pa.float64(), nullable=False),  # of the source's documents that are removed
        pa.field("alarm", pa.bool_(), nullable=False),
    ]
)
#: Warnings of one kind that are listed; the others are only counted.
NAMED = 10


class SourceLosses:
    """Counts the removed documents and the clusters in all cluster tables."""

    def __init__(self) -> None:
        self.removed: dict[str, Counter[str | None]] = {"url": Counter(), "exact": Counter(), "near": Counter()}
        self.clusters = 0
        self.largest = 0
        self.full: Counter[str | None] = Counter()  # by the kept document of the full cluster

    def add(self, rows: pa.Table) -> None:
        goes = pc.invert(rows["kept"])
        url, exact = pc.equal(rows["verified"], URL), pc.equal(rows["verified"], EXACT)
        for name, which in (("url", url), ("exact", exact), ("near", pc.invert(pc.or_(url, exact)))):
            self.removed[name].update(_counts(rows.filter(pc.and_(goes, which))["source"]))
        heads = rows.filter(pc.and_(rows["kept"], pc.greater(rows["cluster_size"], 1)))
        self.clusters += heads.num_rows
        self.largest = max(self.largest, pc.max(heads["cluster_size"]).as_py() or 0)
        self.full.update(_counts(rows.filter(rows["full_cluster"].is_valid())["full_cluster"]))


def _counts(column: pa.ChunkedArray) -> dict[str | None, int]:
    return {pair["values"]: pair["counts"] for pair in pc.value_counts(column).to_pylist()}


def find_losses(run: StageRun, config: DedupConfig, shards: list[MeasuredShard], clusters: Sequence[TaskRow], groups: TaskRow) -> TaskRow:
    """Runs the phase `sources`: counts how many documents each source loses, and warns of large losses."""
    tables = files(clusters, "clusters/")
    more = {"limited": sum(row.counts["limited"] for row in clusters), "apart": groups.counts["apart"]}
    return run.once(
        SOURCES_TASK,
        [*(shard.signatures for shard in shards), *tables],
        lambda _: sources_output(run.run, config, shards, [ref.path for ref in tables], more),
        more,
    )


def sources_output(
    run: Storage, config: DedupConfig, shards: Sequence[MeasuredShard], cluster_files: Sequence[str], more: dict[str, int]
) -> Output:
    """Returns the output of the phase `sources`. `more`: counts of earlier phases (`limited`, `apart`)."""
    documents: Counter[str | None] = Counter()
    for shard in shards:
        for table in iter_tables(*located(run, shard.signatures.path), ["source", BY]):
            documents.update(_counts(table["source"] if config.by == "source" else table[BY]))
    found = SourceLosses()
    for path in cluster_files:
        for table in iter_tables(run, path):
            found.add(table)
    table = _sources(config, documents, found)
    removed = {name: sum(counts.values()) for name, counts in found.removed.items()}
    total, gone = sum(documents.values()), sum(removed.values())
    counts = {
        **removed,
        "clusters": found.clusters,
        "largest_cluster": found.largest,
        "full_clusters": len(found.full),
        "left_by_full_clusters": sum(found.full.values()),
        "alarms": pc.sum(table["alarm"]).as_py() or 0,
        **more,
    }
    return Output(
        {SOURCES_FILE: table}, rows_in=total, kept=total - gone, dropped=gone, counts=counts, warnings=_warnings(config, table, found, more)
    )


def _sources(config: DedupConfig, documents: Counter[str | None], found: SourceLosses) -> pa.Table:
    rows = []
    for source, count in sorted(documents.items(), key=lambda pair: (pair[0] is None, pair[0])):
        removed = {name: counts[source] for name, counts in found.removed.items()}
        share = sum(removed.values()) / count
        alarm = share > config.alarm_share and count >= config.alarm_documents
        rows.append({"source": source, "documents": count, **removed, "share": share, "alarm": alarm})
    return pa.Table.from_pylist(rows, schema=SOURCES)


def _warnings(config: DedupConfig, sources: pa.Table, found: SourceLosses, more: dict[str, int]) -> list[str]:
    worst = sources.filter(sources["alarm"]).sort_by([("share", "descending"), ("source", "ascending")])
    what = f"documents without {config.by}"
    warnings = _first_warnings(
        [
            f"{row['source'] or what}: loses {row['share']:.1%} of its {row['documents']:,} documents as duplicates"
            for row in worst.to_pylist()
        ]
    )
    full = sorted(found.full.items(), key=lambda pair: (-pair[1], str(pair[0])))
    warnings += _first_warnings(
        [f"the cluster of {id_} is full (max_cluster {config.max_cluster:,}): {count:,} more documents like it stay" for id_, count in full]
    )
    if more["limited"]:
        warnings.append(f"{more['limited']:,} times an LSH bucket held more clusters than bucket_limit, so near copies may be left")
    if more["apart"]:
        warnings.append(
            f"{more['apart']:,} times two candidates were left apart, because the documents that candidates connect exceed a task's memory"
        )
    return warnings


def _first_warnings(warnings: list[str]) -> list[str]:
    more = len(warnings) - NAMED
    return warnings[:NAMED] + ([f"and {more:,} more of these"] if more > 0 else [])
