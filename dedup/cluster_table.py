"""The table of clusters: a row for each document that has a copy, with the document that stays for it and the evidence."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.dedup.signatures import BY
from corpusmill.pipeline.shards import open_parquet
from corpusmill.pipeline.storage import Storage

Index = npt.NDArray[np.int64]

#: How it is known that a document is a copy of the kept one.
EXACT, URL, JACCARD, CONTAINMENT, ESTIMATE = "exact", "url", "exact_jaccard", "containment", "minhash_estimate"
#: One row for each document of a cluster of two or more, and for those that a full cluster left; by shard and row.
CLUSTERS = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string()),  # or what else the removal is counted by
        pa.field("kept", pa.bool_(), nullable=False),
        pa.field("cluster_size", pa.int64(), nullable=False),
        pa.field("kept_id", pa.string(), nullable=False),  # names the cluster
        pa.field("kept_in", pa.string()),  # the entry of the index that has the kept document; null where this run has it
        # to the kept document, or to that of `full_cluster`; null for the kept one, and where only the URL is the same
        pa.field("similarity", pa.float64()),
        pa.field("verified", pa.string()),  # exact | url | exact_jaccard | containment | minhash_estimate; null for the kept one
        pa.field("full_cluster", pa.string()),  # the kept document of the cluster that had no room for this one
    ]
)
#: What became of documents of earlier runs that are judged again; `entry` is that of the index.
EARLIER = pa.schema([pa.field("entry", pa.string(), nullable=False), *CLUSTERS])


@dataclass(frozen=True)
class Verdicts:
    """Of n documents: the kept one of each (itself where it stays), how similar it is, how that is known, and the kept document of
    the full cluster that it is like (-1: none)."""

    kept: Index
    similarity: npt.NDArray[np.float64]  # NaN where unknown
    verified: npt.NDArray[np.object_]
    full: Index


def cluster_table(
    table: pa.Table, shard: npt.NDArray[np.object_], entry: npt.NDArray[np.object_], verdicts: Verdicts, by_what: str
) -> pa.Table:
    """The rows of `CLUSTERS`, with `entry`, of the documents that are in a cluster of two or more, or left by a full one.

    Of earlier runs all documents have a row: one that stays by itself now may have gone before.
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
    """The rows of some shards (ascending by shard and row) of the cluster tables, each of which is sorted so: other row groups are not
    read."""
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
