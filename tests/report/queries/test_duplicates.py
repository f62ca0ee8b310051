"""Compares queries on the cluster tables with plain Python over all of their rows."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
from printing import printed

from corpusmill.pipeline.manifest import FileRef, Manifest, TaskRow
from corpusmill.pipeline.shards import publish
from corpusmill.pipeline.storage import Storage
from corpusmill.report.answers.clusters import find
from corpusmill.report.queries.duplicates import LISTS, choose_clusters, read_clusters, read_members, read_sources
from corpusmill.report.query.run import Run

Rows = list[dict[str, Any]]
SCHEMA = pa.schema(
    [
        ("shard", pa.string()), ("row", pa.int64()), ("id", pa.string()), ("source", pa.string()), ("kept", pa.bool_()),
        ("cluster_size", pa.int64()), ("kept_id", pa.string()), ("similarity", pa.float64()), ("verified", pa.string()),
        ("kept_in", pa.string()),
    ]
)  # fmt: skip


def tables(seed: int, parts: int, earlier: float, size: int = 400) -> list[Rows]:
    """Makes random cluster tables, each cluster whole in one table, as the stage writes them; an earlier run keeps some."""
    draw = random.Random(seed)
    made: list[Rows] = []
    for part in range(parts):
        rows: Rows = []
        for number in range(draw.randrange(size)):
            count, kept_in = 1 + min(draw.randrange(1, 6) ** 2 // 3 + 1, 9), "old" if draw.random() < earlier else None
            kept_id = f"{part:02x}{number:030x}"
            for member in range(count):
                kept = member == 0
                if kept and kept_in:
                    continue
                how = draw.choice(["exact", "exact_jaccard", "minhash_estimate", "containment", "url"])
                similar = {"exact": 1.0, "url": None}.get(how, round(draw.uniform(0.7, 1), 2))
                rows.append(
                    {"shard": f"part-{draw.randrange(3):05d}", "id": kept_id if kept else f"{part:02x}{member:x}{number:029x}",
                     "source": "c", "kept": kept, "cluster_size": count, "kept_id": kept_id, "similarity": None if kept else similar,
                     "verified": None if kept else how, "kept_in": kept_in, "row": draw.randrange(10**9)}
                )  # fmt: skip
        made.append(sorted(rows, key=lambda r: (r["shard"], r["row"])))
    return made


def write(folder: Path, parts: list[Rows], schema: pa.Schema = SCHEMA, sources: Rows | None = None) -> Run:
    storage = Storage(str(folder))
    manifest = Manifest(storage.child("dedup"))
    for number, rows in enumerate(parts):
        table = pa.Table.from_pylist(rows, schema=schema)
        outputs = [publish(storage.child("dedup"), f"clusters/part-{number:05d}.parquet", table)]
        manifest.append(TaskRow(f"c{number}", "", [], "", "", 0, 0, 0, 0, outputs))
    if sources is not None:
        outputs = [publish(storage.child("dedup"), "clusters/sources.parquet", pa.Table.from_pylist(sources))]
        manifest.append(TaskRow("sources", "", [FileRef("filter/data/part-00000.parquet", "")], "", "", 0, 0, 0, 0, outputs))
    manifest.finish(list(manifest.tasks))
    return Run(str(folder))


def test_the_lists_are_those_of_all_rows(tmp_path: Path) -> None:
    parts = tables(1, 3, earlier=0.3)
    rows = [row for part in parts for row in part]
    run = write(tmp_path, parts)
    found = read_clusters(run)
    assert found is not None and found.documents == len(rows)
    by_name: dict[str, Rows] = {}
    for row in rows:
        by_name.setdefault(row["kept_id"], []).append(row)
    assert found.sizes == Counter(members[0]["cluster_size"] for members in by_name.values())
    removed = [row for row in rows if not row["kept"]]
    assert found.verified == Counter(row["verified"] for row in removed)
    near = [row for row in removed if row["verified"] not in ("exact", "url")]
    assert (found.near, found.exact + found.url) == (len(near), len(removed) - len(near))
    assert found.similarities == [sum(min(round(row["similarity"] * 100), 99) == bar for row in near) for bar in range(100)]
    assert found.count == len(by_name)
    largest, doubtful, drawn = (choose_clusters(run, name, 7) for name in LISTS)
    assert largest == sorted(by_name, key=lambda name: (-by_name[name][0]["cluster_size"], name))[:7]
    lowest = {name: min(r["similarity"] for r in near if r["kept_id"] == name) for name in {r["kept_id"] for r in near}}
    assert doubtful == sorted(lowest, key=lambda name: (lowest[name], name))[:7]
    assert len(set(drawn)) == len(drawn) == min(7, len(by_name)) and drawn == choose_clusters(run, "random", 7)
    assert drawn != choose_clusters(run, "random", 7, seed=1)


def test_members_are_the_least_similar_ones(tmp_path: Path) -> None:
    parts = tables(9, 3, earlier=0.3)
    run = write(tmp_path, parts)
    ids = list(dict.fromkeys([*choose_clusters(run, "largest", 10), *choose_clusters(run, "random", 10)]))
    clusters_, _ = read_members(run, {"largest": ids}, 3)["largest"]
    assert [cluster.kept_id for cluster in clusters_] == ids
    for cluster in clusters_:
        rows = [row for part in parts for row in part if row["kept_id"] == cluster.kept_id]
        removed = [row for row in rows if not row["kept"]]
        assert (cluster.size, cluster.kept_in, cluster.copies) == (rows[0]["cluster_size"], rows[0]["kept_in"], len(removed))
        assert (cluster.kept.id if cluster.kept else None) == (None if cluster.kept_in else cluster.kept_id)
        removed.sort(key=lambda r: (2 if r["similarity"] is None else r["similarity"], r["shard"], r["row"]))
        assert [member.id for member, _ in cluster.removed] == [row["id"] for row in removed[:3]]


def test_sources_have_alarms_first_and_columns_as_they_come(tmp_path: Path) -> None:
    rows = [
        {"source": "s3://b/x/1", "documents": 100, "exact": 10, "url": 5, "near": 5, "share": 0.2},
        {"source": "s3://b/x/2", "documents": 2, "exact": 2, "url": 0, "near": 0, "share": 1.0},
        {"source": "s3://b/y", "documents": 50, "exact": 40, "url": 0, "near": 0, "share": 0.8},
    ]
    write(tmp_path, [], sources=rows)
    Storage(str(tmp_path)).write_bytes("run.json", b'{"recipe": {"dedup": {"alarm_share": 0.6, "alarm_documents": 20}}}')
    found = read_sources(Run(str(tmp_path)))
    assert found.names == ("exact", "url", "near") and found.folder == "s3://b/"
    assert [(row["source"], row["documents"], tuple(row[name] for name in found.names), row["alarm"]) for row in found.rows] == [
        ("s3://b/y", 50, (40, 0, 0), True), ("s3://b/x/2", 2, (2, 0, 0), False), ("s3://b/x/1", 100, (10, 5, 5), False),
    ]  # fmt: skip
    assert read_sources(write(tmp_path / "none", [])).rows == []


def test_a_document_that_an_earlier_run_keeps(tmp_path: Path) -> None:
    rows = [row for row in tables(7, 1, earlier=1)[0] if row["kept_id"] == f"{0:032x}"]
    write(tmp_path, [rows])
    lines = printed(find(str(tmp_path), None, None, 0, "0" * 32).show).splitlines()
    assert f"Cluster 1: {len(rows) + 1} documents" in lines and f"   kept    id {'0' * 32}, in the earlier run old" in lines
    assert sum(line.startswith("   removed ") for line in lines) == len(rows)
