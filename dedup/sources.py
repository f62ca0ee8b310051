"""The sixth phase: what each source loses, and what is worth a warning, before anything is removed."""

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.dedup.cluster_table import EXACT, URL
from corpusmill.dedup.config import DedupConfig
from corpusmill.dedup.corpus import Shard, located
from corpusmill.dedup.signatures import BY
from corpusmill.pipeline.shards import iter_tables
from corpusmill.pipeline.stage import Output
from corpusmill.pipeline.storage import Storage

SOURCES_FILE = "clusters/sources.parquet"
SOURCES = pa.schema(
    [
        pa.field("source", pa.string()),  # null: documents without one, where it is counted by something else than crawl files
        pa.field("documents", pa.int64(), nullable=False),
        pa.field("url", pa.int64(), nullable=False),  # removed as captures of one URL
        pa.field("exact", pa.int64(), nullable=False),  # as exact copies
        pa.field("near", pa.int64(), nullable=False),  # as near copies
        pa.field("share", pa.float64(), nullable=False),  # of the documents that is removed
        pa.field("alarm", pa.bool_(), nullable=False),
    ]
)
#: Warnings of one kind that are spelled out.
NAMED = 10


class Findings:
    """What the cluster tables add up to."""

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


def sources_output(
    run: Storage, config: DedupConfig, shards: Sequence[Shard], cluster_files: Sequence[str], more: dict[str, int]
) -> Output:
    """The table of sources, with counts and warnings. `more`: counts of the phases before (`limited`, `apart`)."""
    documents: Counter[str | None] = Counter()
    for shard in shards:
        for table in iter_tables(*located(run, shard.signatures.path), ["source", BY]):
            documents.update(_counts(table["source"] if config.by == "source" else table[BY]))
    found = Findings()
    for path in cluster_files:
        for table in iter_tables(run, path):
            found.add(table)
    table = _table(config, documents, found)
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


def _table(config: DedupConfig, documents: Counter[str | None], found: Findings) -> pa.Table:
    rows = []
    for source, count in sorted(documents.items(), key=lambda pair: (pair[0] is None, pair[0])):
        removed = {name: counts[source] for name, counts in found.removed.items()}
        share = sum(removed.values()) / count
        alarm = share > config.alarm_share and count >= config.alarm_documents
        rows.append({"source": source, "documents": count, **removed, "share": share, "alarm": alarm})
    return pa.Table.from_pylist(rows, schema=SOURCES)


def _warnings(config: DedupConfig, sources: pa.Table, found: Findings, more: dict[str, int]) -> list[str]:
    worst = sources.filter(sources["alarm"]).sort_by([("share", "descending"), ("source", "ascending")])
    what = f"documents without {config.by}"
    warnings = _named(
        [
            f"{row['source'] or what}: loses {row['share']:.1%} of its {row['documents']:,} documents as duplicates"
            for row in worst.to_pylist()
        ]
    )
    full = sorted(found.full.items(), key=lambda pair: (-pair[1], str(pair[0])))
    warnings += _named(
        [f"the cluster of {id_} is full (max_cluster {config.max_cluster:,}): {count:,} more documents like it stay" for id_, count in full]
    )
    if more["limited"]:
        warnings.append(f"{more['limited']:,} times an LSH bucket held more clusters than bucket_limit, so near copies may be left")
    if more["apart"]:
        warnings.append(
            f"{more['apart']:,} candidates were left apart, because what hangs together by candidates exceeds one task's memory"
        )
    return warnings


def _named(warnings: list[str]) -> list[str]:
    more = len(warnings) - NAMED
    return warnings[:NAMED] + ([f"and {more:,} more of these"] if more > 0 else [])
