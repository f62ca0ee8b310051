"""The cluster tables of the dedup stage (`RUN/dedup/clusters/`): counts, and the clusters that deserve a look.

They are there after a dry run too, before any document is written. One pass over the columns that choose reads them in row groups and
keeps a few clusters; a second reads the members of those alone. A table holds whole clusters; only one row group is in memory.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from heapq import nsmallest
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.report.facts.passages import COMPARED
from corpusmill.report.read import Place, RunReader

EXACT, URL = "exact", "url"
#: Bars of the histogram of similarities between 0 and 1.
BARS = 100
#: What chooses clusters, and what a member is shown with. `kept_in` is missing from runs that have no index.
CHOOSING = ("kept", "cluster_size", "kept_id", "similarity", "verified", "kept_in")
SHOWN = (*CHOOSING, "id", "source", "shard", "row")
NEEDED = {"kept", "cluster_size", "kept_id", "similarity", "verified", "id", "source", "shard", "row"}

Index = npt.NDArray[np.int64]


@dataclass
class Member:
    """A document of a cluster and where it lies: `row` of the shard `shard` that the stage read. What the shard says of it comes later."""

    id: str
    source: str
    shard: str
    row: int
    similarity: float | None = None
    verified: str | None = None
    url: str | None = None
    characters: int | None = None  # None where the shard is not there any more
    text: str | None = None


@dataclass
class Cluster:
    """`kept` is None where the kept document is one of the earlier run `kept_in`; `removed` are some of its copies."""

    kept_id: str
    size: int
    kept_in: str | None = None
    kept: Member | None = None
    removed: list[Member] = field(default_factory=list)
    copies: int = 0  # all that were removed


@dataclass(frozen=True, order=True)
class Choice:
    """A cluster by its rank in a list; the lowest comes first."""

    rank: float
    place: int  # in the order of the tables
    kept_id: str = field(compare=False)


@dataclass
class Clusters:
    """Counts over all cluster tables. `sizes` counts clusters by size, `verified` removals by how they are known to be copies;
    `similarities` are those of removed documents that are no exact copies, in `BARS` bars from 0 to 1 (1 in the last)."""

    documents: int = 0
    sizes: Counter[int] = field(default_factory=Counter)
    verified: Counter[str] = field(default_factory=Counter)
    similarities: Index = field(default_factory=lambda: np.zeros(BARS, np.int64))
    largest: list[Choice] = field(default_factory=list)
    doubtful: list[Choice] = field(default_factory=list)
    random: list[Choice] = field(default_factory=list)
    indexed: bool = False  # the tables say which documents earlier runs keep

    @property
    def exact(self) -> int:
        return self.verified[EXACT]

    @property
    def url(self) -> int:
        return self.verified[URL]

    @property
    def near(self) -> int:
        return self.verified.total() - self.exact - self.url


def read_clusters(reader: RunReader, limit: int, seed: int = 0) -> Clusters | None:
    """Counts, and `limit` clusters for each list: the largest, those with the least similar removal, random ones. Ties go by place in the
    tables. None where the stage has written no cluster table."""
    found: Clusters | None = None
    file, earlier = "", set[str]()  # the clusters of this table whose kept document is of an earlier run
    ordinal = 0
    for place, table in _tables(reader, CHOOSING):
        if found is None:
            found = Clusters()
        if place.shard != file:
            file, earlier = place.shard, set()
        heads = _heads(table, earlier)
        _count(found, table, heads)
        names, number = table["kept_id"], np.arange(ordinal, ordinal + table.num_rows)
        sizes = table["cluster_size"].to_numpy()
        for best, rank in ((found.largest, -sizes[heads]), (found.random, mixed(number[heads], seed))):
            rows = np.argsort(rank, kind="stable")[:limit]
            ranked = [Choice(float(rank[r]), int(number[heads[r]]), names[int(heads[r])].as_py()) for r in rows]
            best[:] = nsmallest(limit, [*best, *ranked])
        _doubt(found.doubtful, limit, table, number)
        ordinal += table.num_rows
    return found


def _tables(reader: RunReader, columns: tuple[str, ...], only: set[tuple[str, int]] | None = None) -> Iterator[tuple[Place, pa.Table]]:
    """The row groups of the cluster tables: of those files below `clusters/` that have their columns."""
    needed = NEEDED & set(columns)
    for place, table in reader.groups("dedup", "clusters", columns, only=only):
        if needed <= set(table.column_names):
            yield place, table


def _heads(table: pa.Table, earlier: set[str]) -> Index:
    """One row of each cluster that begins here: its kept document, or its first copy where that is in an earlier run."""
    head = table["kept"].to_numpy() & (table["cluster_size"].to_numpy() > 1)  # one alone was left by a full cluster
    if "kept_in" in table.column_names:
        for row in np.flatnonzero(table["kept_in"].is_valid().to_numpy()).tolist():
            name = table["kept_id"][row].as_py()
            head[row] = name not in earlier
            earlier.add(name)
    return np.flatnonzero(head)


def _count(found: Clusters, table: pa.Table, heads: Index) -> None:
    found.documents += table.num_rows
    found.indexed |= "kept_in" in table.column_names
    sizes, counts = np.unique(table["cluster_size"].to_numpy()[heads], return_counts=True)
    found.sizes.update(dict(zip(sizes.tolist(), counts.tolist(), strict=True)))
    removed = table.filter(pc.invert(table["kept"]))
    found.verified.update({str(pair["values"]): pair["counts"] for pair in pc.value_counts(removed["verified"]).to_pylist()})
    similar = removed.filter(pc.not_equal(removed["verified"], EXACT))["similarity"].drop_null().to_numpy()
    bars = np.clip((similar * BARS + 1e-9).astype(np.int64), 0, BARS - 1)
    found.similarities += np.bincount(bars, minlength=BARS)


def mixed(numbers: Index, seed: int) -> npt.NDArray[np.uint64]:
    """A pseudo-random number of each number (SplitMix64, Steele et al., 2014): the same everywhere and for ever."""
    with np.errstate(over="ignore"):
        x = numbers.astype(np.uint64) + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed_: npt.NDArray[np.uint64] = x ^ (x >> np.uint64(31))
    return mixed_


def _doubt(best: list[Choice], limit: int, table: pa.Table, number: Index) -> None:
    """Merges the removals of a row group into the clusters with the least similar removal, each once."""
    similar = table["similarity"].to_numpy(zero_copy_only=False)
    near = ~table["kept"].to_numpy() & pc.fill_null(pc.not_equal(table["verified"], EXACT), False).to_numpy() & ~np.isnan(similar)
    rows = np.flatnonzero(near)
    by_name = {choice.kept_id: choice for choice in best}
    worst = best[-1].rank if len(best) == limit else np.inf
    for row in rows[np.argsort(similar[rows], kind="stable")].tolist():
        if similar[row] >= worst:
            break
        choice = Choice(float(similar[row]), int(number[row]), table["kept_id"][row].as_py())
        by_name[choice.kept_id] = min(choice, by_name.get(choice.kept_id, choice))
        if len(by_name) > 2 * limit:
            by_name = {c.kept_id: c for c in nsmallest(limit, by_name.values())}
            worst = max(c.rank for c in by_name.values())
    best[:] = nsmallest(limit, by_name.values())


def find_clusters(reader: RunReader, ids: set[str]) -> list[Choice]:
    """The clusters that hold a document with one of these ids, or that keep it."""
    wanted, found = pa.array(sorted(ids), pa.string()), dict[str, Choice]()
    for _, table in _tables(reader, ("id", "kept_id")):
        hits = pc.or_(pc.is_in(table["id"], wanted), pc.is_in(table["kept_id"], wanted))
        for name in pc.unique(table.filter(hits)["kept_id"]).to_pylist():
            found.setdefault(name, Choice(0, len(found), name))
    return list(found.values())


def read_members(reader: RunReader, choices: list[Choice], limit: int, compared: int, asked: Collection[str] = ()) -> dict[str, Cluster]:
    """The chosen clusters by kept id, each with up to `limit` removed documents: those whose ids are `asked` for, then the least alike.
    The kept document and the `compared` first removed ones have their text."""
    found = {choice.kept_id: Cluster(choice.kept_id, 0) for choice in choices}
    wanted = pa.array(list(found), pa.string())
    hits = {(p.shard, p.group) for p, table in _tables(reader, ("kept_id",)) if pc.any(pc.is_in(table["kept_id"], wanted)).as_py()}
    for _, table in _tables(reader, SHOWN, hits):
        rows = table.filter(pc.is_in(table["kept_id"], wanted))
        for name in pc.unique(rows["kept_id"]).to_pylist():
            _gather(found[name], rows.filter(pc.equal(rows["kept_id"], name)), limit, asked)
    _read_documents(reader, list(found.values()), compared)
    return found


def _gather(cluster: Cluster, rows: pa.Table, limit: int, asked: Collection[str]) -> None:
    """Adds the rows of a cluster in one row group."""
    removed = rows.filter(pc.invert(rows["kept"]))
    for row in rows.filter(rows["kept"]).to_pylist():
        cluster.kept = _member(row)
    cluster.size = rows["cluster_size"][0].as_py()
    cluster.kept_in = rows["kept_in"][0].as_py() if "kept_in" in rows.column_names else None
    cluster.copies += removed.num_rows
    keys = [("similarity", "ascending"), ("shard", "ascending"), ("row", "ascending")]
    named = pc.is_in(removed["id"], pa.array(sorted(asked), pa.string()))
    for some in (removed.filter(named), removed.filter(pc.invert(named))):
        cluster.removed += [_member(row) for row in some.take(pc.select_k_unstable(some, limit, keys)).to_pylist()]

    def order(member: Member) -> tuple[bool, float, str, int]:
        return member.id not in asked, 2.0 if member.similarity is None else member.similarity, member.shard, member.row

    cluster.removed = sorted(cluster.removed, key=order)[:limit]


def _member(row: dict[str, Any]) -> Member:
    return Member(row["id"], row["source"], row["shard"], row["row"], row["similarity"], row["verified"])


def _read_documents(reader: RunReader, clusters: list[Cluster], compared: int) -> None:
    """URL, length and (for what is compared) text of the members, from the shards that the stage read."""
    paths = reader.inputs("dedup")
    members: dict[str, list[tuple[Member, bool]]] = {}
    for cluster in clusters:
        for place, member in enumerate([cluster.kept, *cluster.removed]):
            if member is not None:
                members.setdefault(member.shard, []).append((member, place <= compared))
    for shard in sorted(members.keys() & paths.keys()):
        rows = reader.at(paths[shard], [member.row for member, _ in members[shard]], ["id", "url", "text"])
        for member, with_text in members[shard]:
            row = rows.get(member.row)
            if row is not None and row.get("id") == member.id:
                member.url, member.characters = row["url"], len(row["text"])
                member.text = row["text"][: COMPARED + 1] if with_text else None
