"""The third phase: which documents are copies of which, how that is known, and which one stays."""

from collections import Counter

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.dedup.config import DedupConfig
from corpusmill.dedup.corpus import Corpus
from corpusmill.dedup.policy import RANKED, ranks
from corpusmill.dedup.verify import Nodes, find_leaders
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.stage import Output

Index = npt.NDArray[np.int64]

CLUSTERS_FILE = "clusters/clusters.parquet"
SOURCES_FILE = "clusters/sources.parquet"
EXACT, JACCARD, ESTIMATE = "exact", "exact_jaccard", "minhash_estimate"

#: One row for each document of a cluster of two or more, by shard and row.
CLUSTERS = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("kept", pa.bool_(), nullable=False),
        pa.field("cluster", pa.int64(), nullable=False),  # numbered in the policy's order of the kept documents
        pa.field("cluster_size", pa.int64(), nullable=False),
        pa.field("kept_id", pa.string(), nullable=False),
        pa.field("similarity", pa.float64()),  # Jaccard similarity to the kept document; null for itself
        pa.field("verified", pa.string()),  # exact | exact_jaccard | minhash_estimate; null for the kept document
    ]
)
SOURCES = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("documents", pa.int64(), nullable=False),
        pa.field("exact", pa.int64(), nullable=False),  # removed as exact copies
        pa.field("near", pa.int64(), nullable=False),  # removed as near copies
        pa.field("share", pa.float64(), nullable=False),  # of the documents that is removed
    ]
)
#: Warnings of one kind that are spelled out.
NAMED = 10


def cluster_output(corpus: Corpus, config: DedupConfig, places: int, exact_files: list[str], bucket_files: list[str]) -> Output:
    """The cluster table and the table of what each crawl file loses, with counts and warnings."""
    copies = _load(corpus, exact_files, ["document", "first"])
    members = _load_buckets(corpus, bucket_files)
    involved = np.unique(np.concatenate([copies[0], members[1]]))
    limited = 0
    clusters = CLUSTERS.empty_table()
    if len(involved):
        clusters, limited = _clusters(corpus, config, places, involved, copies, members)
    sources = _sources(corpus, clusters)
    counts, warnings = _findings(config, clusters, sources, limited)
    return Output(
        {CLUSTERS_FILE: clusters, SOURCES_FILE: sources},
        rows_in=int(corpus.starts[-1]),
        kept=int(corpus.starts[-1]) - counts["exact"] - counts["near"],
        dropped=counts["exact"] + counts["near"],
        counts=counts,
        warnings=warnings,
    )


def _load(corpus: Corpus, files: list[str], columns: list[str]) -> list[Index]:
    tables = [read_table(corpus.run, file, columns) for file in files]
    return [np.concatenate([np.zeros(0, np.int64), *(table[name].to_numpy() for table in tables)]) for name in columns]


def _load_buckets(corpus: Corpus, files: list[str]) -> tuple[Index, Index]:
    """`(bucket, document)` of all files, the buckets numbered through."""
    found: list[Index] = [np.zeros(0, np.int64)]
    documents: list[Index] = [np.zeros(0, np.int64)]
    before = 0
    for file in files:
        bucket, document = _load(corpus, [file], ["bucket", "document"])
        found.append(bucket + before)
        documents.append(document)
        before += int(bucket[-1]) + 1 if len(bucket) else 0
    return np.concatenate(found), np.concatenate(documents)


def _clusters(
    corpus: Corpus, config: DedupConfig, places: int, involved: Index, copies: list[Index], members: tuple[Index, Index]
) -> tuple[pa.Table, int]:
    """The cluster table of the documents `involved` (ascending), and how often `bucket_limit` was met."""
    table = corpus.read_signatures(involved, [*RANKED, "words"])
    rank = ranks(table, config.keep)
    first = np.arange(len(involved))  # of each document's exact copies the one that stands for all
    first[np.searchsorted(involved, copies[0])] = np.searchsorted(involved, copies[1])
    by_rank = np.argsort(rank)
    heads, at = np.unique(first[by_rank], return_index=True)
    best = np.full(len(involved), -1)
    best[heads] = by_rank[at]  # of its exact copies the best

    bucket, document = members
    near, node = np.unique(np.searchsorted(involved, document), return_inverse=True)
    nodes = Nodes(involved[near], rank[best[near]], table["words"].to_numpy()[near])
    found = find_leaders(corpus, config, places, nodes, bucket, node)
    leader, similarity = np.arange(len(involved)), np.ones(len(involved))
    leader[near], similarity[near] = near[found.leader], found.similarity
    how = JACCARD if config.verification == "exact" else ESTIMATE
    return _cluster_table(corpus, involved, table, rank, best[leader[first]], similarity[first], leader[first] == first, how), found.limited


def _cluster_table(
    corpus: Corpus,
    involved: Index,
    table: pa.Table,
    rank: Index,
    kept: Index,
    similarity: npt.NDArray[np.float64],
    copy: npt.NDArray[np.bool_],
    how: str,
) -> pa.Table:
    """`kept`: the place among `involved` of each one's kept document; `copy`: whether that has the same text."""
    size = np.bincount(kept, minlength=len(kept))[kept]
    chosen = np.flatnonzero(size > 1)
    mine = kept[chosen] == chosen
    _, number = np.unique(rank[kept[chosen]], return_inverse=True)
    shard, row = corpus.address(involved[chosen])
    columns = {
        "shard": shard,
        "row": pa.array(row),
        "id": table["id"].take(pa.array(chosen)),
        "source": table["source"].take(pa.array(chosen)),
        "kept": pa.array(mine),
        "cluster": pa.array(number.astype(np.int64)),
        "cluster_size": pa.array(size[chosen]),
        "kept_id": table["id"].take(pa.array(kept[chosen])),
        "similarity": pa.array(similarity[chosen], mask=mine),
        "verified": pa.array(np.where(copy[chosen], EXACT, how), pa.string(), mask=mine),
    }
    return pa.table([columns[name] for name in CLUSTERS.names], schema=CLUSTERS).sort_by([("shard", "ascending"), ("row", "ascending")])


def _sources(corpus: Corpus, clusters: pa.Table) -> pa.Table:
    """What each crawl file has and loses, by name."""
    documents: Counter[str] = Counter()
    for path in corpus.signatures:
        for pair in pc.value_counts(read_table(corpus.run, path, ["source"])["source"]).to_pylist():
            documents[pair["values"]] += pair["counts"]
    removed: dict[bool, Counter[str]] = {}
    for exact in (True, False):
        rows = clusters.filter(pc.and_(pc.invert(clusters["kept"]), pc.equal(pc.equal(clusters["verified"], EXACT), exact)))
        removed[exact] = Counter({pair["values"]: pair["counts"] for pair in pc.value_counts(rows["source"]).to_pylist()})
    rows = [
        {
            "source": source,
            "documents": count,
            "exact": removed[True][source],
            "near": removed[False][source],
            "share": (removed[True][source] + removed[False][source]) / count,
        }
        for source, count in sorted(documents.items())
    ]
    return pa.Table.from_pylist(rows, schema=SOURCES)


def _findings(config: DedupConfig, clusters: pa.Table, sources: pa.Table, limited: int) -> tuple[dict[str, int], list[str]]:
    kept = clusters.filter(clusters["kept"]).sort_by([("cluster_size", "descending"), ("cluster", "ascending")])
    giants = [row for row in kept.select(["kept_id", "cluster_size"]).to_pylist() if row["cluster_size"] > config.max_cluster]
    alarms = [
        row
        for row in sources.to_pylist()
        if row["share"] > config.alarm_share and row["documents"] >= config.alarm_documents
    ]  # fmt: skip
    counts = {
        "exact": int(pc.sum(sources["exact"]).as_py() or 0),
        "near": int(pc.sum(sources["near"]).as_py() or 0),
        "clusters": kept.num_rows,
        "largest_cluster": int(kept["cluster_size"][0].as_py()) if kept.num_rows else 0,
        "giant_clusters": len(giants),
        "limited": limited,
        "alarms": len(alarms),
    }
    warnings = _named([f"{a['source']}: loses {a['share']:.1%} of its {a['documents']:,} documents as duplicates" for a in alarms])
    warnings += _named([f"cluster of {g['kept_id']}: {g['cluster_size']:,} documents, more than max_cluster" for g in giants])
    if limited:
        warnings.append(f"{limited:,} times an LSH bucket held more clusters than bucket_limit, so near copies may be left")
    return counts, warnings


def _named(warnings: list[str]) -> list[str]:
    more = len(warnings) - NAMED
    return warnings[:NAMED] + ([f"and {more:,} more of these"] if more > 0 else [])
