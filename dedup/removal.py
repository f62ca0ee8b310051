"""The last phase: writes the documents that stay, edited, and a report row for each document that came in."""

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.dedup.cluster_table import CLUSTERS, CONTAINMENT, ESTIMATE, EXACT, JACCARD, URL, read_clusters
from corpusmill.dedup.config import DedupConfig
from corpusmill.dedup.corpus import shard_key
from corpusmill.dedup.signatures import require_columns
from corpusmill.pipeline.lists import input_paths
from corpusmill.pipeline.schemas import REPORT, meanings_metadata, with_columns
from corpusmill.pipeline.shards import iter_tables, open_parquet
from corpusmill.pipeline.stage import DocumentFiles, Output, Task, Worker
from corpusmill.pipeline.storage import Storage


@dataclass(frozen=True)
class Edit:
    """The result of an editor for n texts."""

    texts: pa.Array  # the new texts, `large_string`
    columns: dict[str, pa.Array] = field(default_factory=dict)  # measurements: a value for each text, named as in the editor's `fields`
    dropped: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)  # by rule: which documents it drops
    counts: dict[str, int] = field(default_factory=dict)  # for the manifest


class Editor(ABC):
    """Cuts passages from the documents that stay, or drops documents because of their content, while the last phase writes them.

    An editor reads and writes no shards itself. Earlier phases have written files with the facts that it needs about the whole corpus. It
    works in one process on one shard after another. The constructor has no side effects.
    """

    #: The columns that the editor adds to the report. They are null for documents that an earlier rule dropped.
    fields: ClassVar[tuple[pa.Field, ...]] = ()

    def __init__(self, config: DedupConfig, run: Storage):
        self.config = config
        self.run = run

    def open(self, task: Task) -> None:  # noqa: B027 - most editors need nothing of the shard
        """Opens a shard. `task.inputs`: the shard, the file with its rows of the cluster tables, and the files of the editors' phases."""

    @abstractmethod
    def edit(self, texts: pa.Array, rows: npt.NDArray[np.int64]) -> Edit:
        """Edits n documents (`texts`: one `large_string` array); `rows` (ascending) are their rows in the shard. Pure."""


#: The rules that remove copies, each with its kinds of evidence.
RULES = {"url_duplicate": [URL], "exact_duplicate": [EXACT], "near_duplicate": [JACCARD, CONTAINMENT, ESTIMATE]}

#: The reason for which each rule removes a document.
MEANINGS = {
    "url_duplicate": "another document has the same address",
    "exact_duplicate": "another document has the same text",
    "near_duplicate": "another document has nearly the same text; `similarity` tells how similar",
    "only_repeated_lines": "all of its lines also stand in many other documents",
    "mostly_repeated_lines": "most of its lines also stand in many other documents",
    "only_repeated_substrings": "all of its text consists of passages that other documents have, too",
    "contaminated": "it holds a passage of a test set, so that scores on the test would not count",
}

#: Columns that are null for a document that has no copies.
OPTIONAL = ("kept_in", "similarity", "verified", "full_cluster")
#: The number of documents in a document's cluster: 1 for a document without copies.
SIZE = pa.field("cluster_size", pa.int64(), nullable=False)
#: The cluster's id, which is the id of its kept document; also for a document that stays only because that cluster was full. Null for a
#: document without copies.
CLUSTER = pa.field("cluster_id", pa.string())
DEDUP_REPORT = with_columns(
    REPORT,
    [
        SIZE,
        pa.field("kept_id", pa.string(), nullable=False),  # identifies the cluster; for a document that stays, its own id
        *(CLUSTERS.field(name) for name in OPTIONAL),
    ],
)


def make_editors(config: DedupConfig, run: Storage) -> list[Editor]:
    """Returns the editors that a configuration needs, in the order in which they work."""
    editors: list[Editor] = []
    if config.lines:
        from corpusmill.dedup.inside.lines import LineEditor

        editors.append(LineEditor(config, run))
    if config.substrings:
        from corpusmill.dedup.inside.passages import SubstringEditor

        editors.append(SubstringEditor(config, run))
    if config.contamination:
        from corpusmill.dedup.contamination.editor import ContaminationEditor

        editors.append(ContaminationEditor(config, run))
    return editors


class RemovalWorker(Worker):
    """Writes one shard without its copies. Inputs: the shard, the file with its rows of the cluster tables, the files of the editors."""

    by_parts = True
    config: DedupConfig

    def setup(self) -> None:
        self.editors = make_editors(self.config, self.run)
        schema = with_columns(DEDUP_REPORT, [field for editor in self.editors for field in editor.fields])
        self.schema = schema.with_metadata(meanings_metadata(MEANINGS))

    def process(self, task: Task) -> Output:
        path = task.inputs[0].path
        tables = input_paths(self.run, task.inputs[1:2])
        clusters = read_clusters(self.run, tables, [shard_key(path)])
        for editor in self.editors:
            editor.open(task)
        rows = clusters["row"].to_numpy()
        size = begin = 0
        counts: Counter[str] = Counter()
        with open_parquet(self.run, path) as file:
            require_columns(self.run.path(path), file.schema_arrow.names, ["id", "url", "text"])
            schema = with_columns(file.schema_arrow.remove_metadata(), [SIZE, CLUSTER])
        made = DocumentFiles(schema, self.schema)
        for table in iter_tables(self.run, path, parts=self.parts):
            first, last = np.searchsorted(rows, [begin, begin + table.num_rows])
            decided = decide(table, clusters.slice(first, last - first), rows[first:last] - begin)
            texts = self._edit(table["text"], decided, begin)
            report = report_rows(table, decided, texts, self.schema)
            made.add(_documents(table, texts, report, decided.kept, schema), report)
            counts.update(decided.counts)
            size += pc.sum(pc.binary_length(table["text"])).as_py() or 0
            begin += table.num_rows
        return made.output(task.key, bytes_in=size, counts=dict(counts))

    def _edit(self, column: pa.ChunkedArray, decided: "ShardDecisions", begin: int) -> pa.Array | None:
        """Runs the editors over the documents that stay; returns the texts of those that still stay, or None if there are no editors.

        Records in `decided` which documents the editors drop, their measurements and their counts.
        """
        if not self.editors:
            return None
        places = np.flatnonzero(decided.kept)
        texts = one_array(column.filter(pa.array(decided.kept)))
        for editor in self.editors:
            edit = editor.edit(texts, places + begin)
            decided.counts.update(edit.counts)
            for name, values in edit.columns.items():
                decided.columns[name] = scatter(values, places, len(decided.kept))
            stays = np.ones(len(places), bool)
            for rule, dropped in edit.dropped.items():
                decided.fail(rule, places[dropped])
                stays &= ~dropped
            texts, places = edit.texts.filter(pa.array(stays)), places[stays]
        return texts


@dataclass
class ShardDecisions:
    """The decisions about n documents."""

    kept: npt.NDArray[np.bool_]
    failed: dict[str, npt.NDArray[np.bool_]]  # by rule: which documents failed it
    columns: dict[str, Any]  # further columns of the report
    counts: Counter[str] = field(default_factory=Counter)  # of the editors, for the manifest

    def fail(self, rule: str, places: npt.NDArray[np.int64]) -> None:
        self.failed.setdefault(rule, np.zeros(len(self.kept), bool))[places] = True
        self.kept[places] = False


def decide(table: pa.Table, clusters: pa.Table, rows: npt.NDArray[np.int64]) -> ShardDecisions:
    """Returns the decisions of the cluster table about a part of a shard.

    `table`: the documents of the part. `clusters`: their rows of the cluster table. `rows`: the row in `table` of each row of `clusters`.
    """
    at = np.full(table.num_rows, -1)
    at[rows] = np.arange(len(rows))
    place = pa.array(at, mask=at < 0)
    found = {name: clusters[name].take(place) for name in ("kept", "cluster_size", "kept_id", *OPTIONAL)}
    decided = ShardDecisions(np.ones(table.num_rows, bool), {}, {})
    removed = ~pc.fill_null(found["kept"], True).to_numpy()
    for rule, verified in RULES.items():
        here = np.flatnonzero(removed & pc.fill_null(pc.is_in(found["verified"], pa.array(verified)), False).to_numpy())
        if len(here):
            decided.fail(rule, here)
    decided.columns = {
        "cluster_size": pc.fill_null(found["cluster_size"], 1),
        "kept_id": pc.coalesce(found["kept_id"], table["id"]),
        **{name: found[name] for name in OPTIONAL},
    }
    return decided


def report_rows(table: pa.Table, decided: ShardDecisions, texts: pa.Array | None, schema: pa.Schema) -> pa.Table:
    """Returns the report rows of a part of a shard. `texts`: the texts of the documents that stay, or None if there are no editors."""
    before = pc.utf8_length(table["text"]).cast(pa.int64())
    kept = pa.array(decided.kept)
    after = pc.if_else(kept, before, 0)
    if texts is not None:
        after = pc.fill_null(scatter(pc.utf8_length(texts).cast(pa.int64()), np.flatnonzero(decided.kept), table.num_rows), 0)
    columns = {"id": table["id"], "url": table["url"], "kept": kept, "failed": _failed(decided), "chars_in": before, "chars_out": after}
    columns |= decided.columns
    missing = pa.nulls(table.num_rows)
    return pa.table([columns.get(field.name, missing).cast(field.type) for field in schema], schema=schema)


def _failed(decided: ShardDecisions) -> pa.Array:
    """Returns a list for each document: the rules that it failed, in the order in which they were applied."""
    if not decided.failed:
        return pa.array([[]] * len(decided.kept), pa.list_(pa.string()))
    failed = np.stack(list(decided.failed.values()), axis=1)
    offsets = np.concatenate([[0], np.cumsum(failed.sum(axis=1))]).astype(np.int32)
    rules = pa.array(np.array(list(decided.failed), object)[np.nonzero(failed)[1]], pa.string())
    return pa.ListArray.from_arrays(pa.array(offsets), rules)


def _documents(table: pa.Table, texts: pa.Array | None, report: pa.Table, kept: npt.NDArray[np.bool_], schema: pa.Schema) -> pa.Table:
    """Returns the documents that stay, with `texts` as their texts if these are given."""
    columns = {name: table[name] for name in table.column_names if name != "text" or texts is None}
    columns |= {SIZE.name: report[SIZE.name], CLUSTER.name: _cluster(report)}
    stays = pa.table(columns).filter(pa.array(kept))
    return pa.table([texts if name not in columns else stays[name] for name in schema.names], schema=schema)


def _cluster(report: pa.Table) -> pa.ChunkedArray:
    cluster = pc.if_else(pc.greater(report["cluster_size"], 1), report["kept_id"], pa.scalar(None, pa.string()))
    return pc.coalesce(report["full_cluster"], cluster)


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """Returns a text column as one `large_string` array."""
    return pa.concat_arrays([chunk.cast(pa.large_string()) for chunk in column.chunks] or [pa.array([], pa.large_string())])


def scatter(values: pa.Array, places: npt.NDArray[np.int64], count: int) -> pa.Array:
    """Returns `count` values: value i of `values` at index `places[i]`, and null elsewhere."""
    at = np.full(count, -1)
    at[places] = np.arange(len(places))
    return values.take(pa.array(at, mask=at < 0))
