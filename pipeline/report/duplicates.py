"""The clusters that deduplication found: the largest ones, and the removals with the weakest evidence."""

import heapq
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.report.read import RunReader

LARGEST = 6
WEAKEST = 6
MEMBERS = 3
TEXT = 400


@dataclass
class Member:
    """A document of a cluster with the beginning of its text."""

    id: str
    url: str
    kept: bool
    similarity: float | None
    text: str = ""


@dataclass
class Cluster:
    name: Any
    size: int
    members: list[Member] = field(default_factory=list)


@dataclass
class Duplicates:
    """`sizes` counts clusters by size; `weakest` are pairs (removed document, kept copy) by ascending similarity."""

    clusters: int = 0
    in_clusters: int = 0
    sizes: Counter[int] = field(default_factory=Counter)
    exact: int = 0
    near: int = 0
    largest: list[Cluster] = field(default_factory=list)
    weakest: list[tuple[Member, Member]] = field(default_factory=list)


COLUMNS = ("id", "url", "kept", "failed", "cluster", "cluster_size", "kept_id", "similarity", "verified")


def read_duplicates(reader: RunReader, texts: bool = True) -> Duplicates | None:
    """What the dedup stage's report says; None where there is none with clusters in it. `texts`: with members and their texts."""
    schema = reader.schema("dedup", "report")
    if schema is None or not {"cluster", "cluster_size", "kept_id"} <= set(schema.names) or not reader.is_report("dedup"):
        return None
    found = Duplicates()
    largest: dict[Any, int] = {}
    weakest: list[tuple[float, str, str, str]] = []
    for table in reader.tables("dedup", "report", COLUMNS):
        largest = _count(found, largest, table)
        weakest = heapq.nsmallest(WEAKEST, weakest + _removals(table))
    for size, documents in found.sizes.items():
        found.clusters += documents // size if size else 0
        found.in_clusters += documents
    found.sizes = Counter({size: documents // size for size, documents in found.sizes.items() if size})
    if not texts:
        return found
    found.largest = _members(reader, largest)
    found.weakest = [(Member(id_, url, False, similarity), Member(kept_id, "", True, None)) for similarity, id_, kept_id, url in weakest]
    _add_texts(reader, found)
    return found


def _count(found: Duplicates, largest: dict[Any, int], table: pa.Table) -> dict[Any, int]:
    clustered = table.filter(pc.greater(pc.fill_null(table["cluster_size"], 1), 1))
    sizes, counts = np.unique(clustered["cluster_size"].to_numpy(), return_counts=True)
    found.sizes.update({int(size): int(count) for size, count in zip(sizes, counts, strict=True)})
    for pair in pc.value_counts(pc.list_flatten(table["failed"])).to_pylist():
        if "exact" in str(pair["values"]):
            found.exact += pair["counts"]
        elif "near" in str(pair["values"]):
            found.near += pair["counts"]
    pairs = clustered.select(["cluster", "cluster_size"]).group_by(["cluster", "cluster_size"]).aggregate([]).to_pylist()
    for pair in pairs:
        largest[pair["cluster"]] = pair["cluster_size"]
    return dict(sorted(largest.items(), key=lambda item: (-item[1], str(item[0])))[:LARGEST])


def _removals(table: pa.Table) -> list[tuple[float, str, str, str]]:
    """(similarity, id, kept id, URL) of the removed documents of a batch with the lowest similarity."""
    if "similarity" not in table.column_names:
        return []
    removed = table.filter(pc.and_(pc.invert(table["kept"]), pc.is_valid(table["similarity"])))
    removed = removed.filter(pc.is_valid(removed["kept_id"]))
    if removed.num_rows == 0:
        return []
    order = pc.select_k_unstable(removed, WEAKEST, [("similarity", "ascending"), ("id", "ascending")])
    rows = removed.take(order).to_pylist()
    return [(float(r["similarity"]), r["id"], str(r["kept_id"]), r["url"] or "") for r in rows]


def _members(reader: RunReader, largest: dict[Any, int]) -> list[Cluster]:
    clusters = {name: Cluster(name, size) for name, size in largest.items()}
    for table in reader.tables("dedup", "report", COLUMNS):
        wanted = pa.array(list(clusters), table["cluster"].type)
        for row in table.filter(pc.is_in(table["cluster"], wanted)).to_pylist():
            members = clusters[row["cluster"]].members
            member = Member(row["id"], row["url"] or "", row["kept"], row.get("similarity"))
            if member.kept:
                members.insert(0, member)
            elif len(members) < MEMBERS:
                members.append(member)
            del members[MEMBERS + 1 :]
    return list(clusters.values())


def _add_texts(reader: RunReader, found: Duplicates) -> None:
    before = next((stage for stage in ("filter", "ingest") if reader.stages[stage].status != "missing"), None)
    if before is None:
        return
    members = [m for cluster in found.largest for m in cluster.members] + [m for pair in found.weakest for m in pair]
    texts = reader.texts(before, {m.id for m in members}, TEXT)
    for member in members:
        member.text = texts.get(member.id, "")
