"""The last phase: the documents that stay, edited, and a report row for each that came in."""

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
    """The result of an editor for n texts: the new texts (`large_string`), its measurements (a value per text, named as in the editor's
    `fields`), and for each rule the documents that it drops."""

    texts: pa.Array
    columns: dict[str, pa.Array] = field(default_factory=dict)
    dropped: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)  # for the manifest


class Editor(ABC):
    """Cuts passages from the documents that no copy replaced, or drops documents for what they hold, while the last phase writes them.

    It reads and writes no shards itself: earlier phases have put what it must know of the whole corpus into files. It works in one process
    on one shard after another. The constructor has no side effects.
    """

    #: What it adds to the report; null for documents that an earlier rule dropped. Nullable.
    fields: ClassVar[tuple[pa.Field, ...]] = ()

    def __init__(self, config: DedupConfig, run: Storage):
        self.config = config
        self.run = run

    def open(self, task: Task) -> None:  # noqa: B027 - most editors need nothing of the shard
        """Opens a shard. `task.inputs`: the shard, the list of cluster tables, and the files of the editor's own phases."""

    @abstractmethod
    def edit(self, texts: pa.Array, rows: npt.NDArray[np.int64]) -> Edit:
        """Edits n documents (`texts`: one `large_string` array); `rows` (ascending) are their rows in the shard. Pure."""


#: Why a copy goes, by how it is known to be one.
RULES = {"url_duplicate": [URL], "exact_duplicate": [EXACT], "near_duplicate": [JACCARD, CONTAINMENT, ESTIMATE]}

#: What a document is removed for, by rule.
MEANINGS = {
    "url_duplicate": "another document has the same address",
    "exact_duplicate": "another document has the same text",
    "near_duplicate": "another document has nearly the same text; how alike they are, says `similarity`",
    "only_repeated_lines": "all of its lines also stand in many other documents",
    "mostly_repeated_lines": "most of its lines also stand in many other documents",
    "only_repeated_substrings": "all of its text consists of passages that other documents have, too",
    "contaminated": "it holds a passage of a test set, so that scores on the test would not count",
}

#: Columns that are null for a document outside of all clusters.
OPTIONAL = ("kept_in", "similarity", "verified", "full_cluster")
#: How many copies a document that stays stands for.
SIZE = pa.field("cluster_size", pa.int64(), nullable=False)
#: Documents that stay though they are alike, because their cluster was full, share the id of its kept document; null: like no other.
CLUSTER = pa.field("cluster_id", pa.string())
DEDUP_REPORT = with_columns(
    REPORT,
    [
        SIZE,
        pa.field("kept_id", pa.string(), nullable=False),  # names the cluster; its own id where a document stays
        *(CLUSTERS.field(name) for name in OPTIONAL),
    ],
)


def make_editors(config: DedupConfig, run: Storage) -> list[Editor]:
    """The editors of a configuration, in the order in which they work."""
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
    """Writes one shard without its copies. `inputs`: the shard, the file with its rows of the cluster tables, the files of the editors."""

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
            counts.update({pair["values"]: pair["counts"] for pair in pc.value_counts(pc.list_flatten(report["failed"])).to_pylist()})
            size += pc.sum(pc.binary_length(table["text"])).as_py() or 0
            begin += table.num_rows
        return made.output(task.key, bytes_in=size, counts=dict(counts))

    def _edit(self, column: pa.ChunkedArray, decided: "ShardDecisions", begin: int) -> pa.Array | None:
        """Runs the editors over the documents that stay; returns their texts, or None without editors. Records the rest in `decided`."""
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
    """The decisions about n documents: which stay, which rules the others failed, and further columns of the report."""

    kept: npt.NDArray[np.bool_]
    failed: dict[str, npt.NDArray[np.bool_]]
    columns: dict[str, Any]
    counts: Counter[str] = field(default_factory=Counter)  # of the editors, for the manifest

    def fail(self, rule: str, places: npt.NDArray[np.int64]) -> None:
        self.failed.setdefault(rule, np.zeros(len(self.kept), bool))[places] = True
        self.kept[places] = False


def decide(table: pa.Table, clusters: pa.Table, rows: npt.NDArray[np.int64]) -> ShardDecisions:
    """The decisions of the cluster table about a part of a shard. `rows`: where the rows of `clusters` lie in that part."""
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
    """The report rows of a part of a shard. `texts`: the texts of the documents that stay, if they may have changed."""
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
    """The rules that each document failed, in the order in which they were applied."""
    if not decided.failed:
        return pa.array([[]] * len(decided.kept), pa.list_(pa.string()))
    failed = np.stack(list(decided.failed.values()), axis=1)
    offsets = np.concatenate([[0], np.cumsum(failed.sum(axis=1))]).astype(np.int32)
    rules = pa.array(np.array(list(decided.failed), object)[np.nonzero(failed)[1]], pa.string())
    return pa.ListArray.from_arrays(pa.array(offsets), rules)


def _documents(table: pa.Table, texts: pa.Array | None, report: pa.Table, kept: npt.NDArray[np.bool_], schema: pa.Schema) -> pa.Table:
    """The documents that stay, with `texts` in place of their own if given."""
    columns = {name: table[name] for name in table.column_names if name != "text" or texts is None}
    columns |= {SIZE.name: report[SIZE.name], CLUSTER.name: _cluster(report)}
    stays = pa.table(columns).filter(pa.array(kept))
    return pa.table([texts if name not in columns else stays[name] for name in schema.names], schema=schema)


def _cluster(report: pa.Table) -> pa.ChunkedArray:
    own = pc.if_else(pc.greater(report["cluster_size"], 1), report["kept_id"], pa.scalar(None, pa.string()))
    return pc.coalesce(report["full_cluster"], own)


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """A text column as one `large_string` array."""
    return pa.concat_arrays([chunk.cast(pa.large_string()) for chunk in column.chunks] or [pa.array([], pa.large_string())])


def scatter(values: pa.Array, places: npt.NDArray[np.int64], count: int) -> pa.Array:
    """`count` values: those of `values` at `places`, null elsewhere."""
    at = np.full(count, -1)
    at[places] = np.arange(len(places))
    return values.take(pa.array(at, mask=at < 0))
