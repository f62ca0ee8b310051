"""The last phase of a run with an index: what the run measured goes into it, and what it changed about earlier runs is written down."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.dedup.cluster_table import read_clusters
from corpusmill.dedup.config import DedupConfig
from corpusmill.dedup.corpus import Shard
from corpusmill.dedup.index import DECISIONS, DECISIONS_FILE, CrawlIndex, Entry, decisions
from corpusmill.dedup.keys import keys_bytes, read_keys
from corpusmill.dedup.signatures import parquet_bytes
from corpusmill.pipeline.lists import input_paths
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.shards import Content, publish, read_table
from corpusmill.pipeline.stage import Output
from corpusmill.pipeline.storage import Storage

CHANGES_FILE = "earlier/changes.parquet"
#: What the run's folder has of its entry.
MARK_FILE = "index/entry.json"
CHANGES = pa.schema(
    [*DECISIONS, pa.field("kept_id", pa.string(), nullable=False), pa.field("kept_in", pa.string())]
)  # `kept`: what it is now, which it was not before


def changes_output(run: Storage, entries: Sequence[Entry], earlier_files: Sequence[str]) -> Output:
    """The table of changes; counts: `replaced`, `restored`."""
    table = changes(run, entries, earlier_files)
    restored = pc.sum(table["kept"]).as_py() or 0
    return Output({CHANGES_FILE: table}, counts={"replaced": table.num_rows - restored, "restored": restored})


def changes(run: Storage, entries: Sequence[Entry], earlier_files: Sequence[str]) -> pa.Table:
    """Documents of earlier runs that a better copy replaces, or that stay again because what replaced them is gone."""
    before = decisions(entries).select(["entry", "shard", "row", "kept"]).rename_columns(["entry", "shard", "row", "before"])
    found = [CHANGES.empty_table(), *(read_table(run, path, CHANGES.names) for path in earlier_files)]
    now = pa.concat_tables([table.select(CHANGES.names).cast(CHANGES) for table in found])
    both = now.join(before, ["entry", "shard", "row"], join_type="left outer", use_threads=False)
    changed = both.filter(pc.not_equal(both["kept"], pc.fill_null(both["before"], True)))
    return changed.select(CHANGES.names).cast(CHANGES).sort_by([("entry", "ascending"), ("shard", "ascending"), ("row", "ascending")])


def entry_output(run: Storage, config: DedupConfig, index: CrawlIndex, new: Entry, clusters: Sequence[FileRef], changed: str) -> Output:
    """Puts an entry into the index; `new` has the run's own shards, `clusters` for each of them what has its rows of the cluster tables.
    The output is what the index says of it."""
    earlier = read_table(run, changed)
    entry = EntryWriter(run, config, index, new.name).write(new, clusters, earlier)
    return Output({MARK_FILE: entry.content(index.storage.root)}, rows_in=sum(shard.rows for shard in entry.shards))


class EntryWriter:
    """Writes the shards of a run into the index. Under `earlier: fixed` only the documents that stay."""

    def __init__(self, run: Storage, config: DedupConfig, index: CrawlIndex, name: str):
        assert config.index is not None
        self.run, self.config, self.index, self.name = run, config, index, name
        self.options = config.index

    def write(self, new: Entry, clusters: Sequence[FileRef], earlier: pa.Table) -> Entry:
        """`new` with its shards in the index. `clusters`: for each what has its rows of the cluster tables; `earlier`: the run's
        `changes`."""
        written, own = [], [DECISIONS.empty_table()]
        for shard, ref in zip(new.shards, clusters, strict=True):
            rows = read_clusters(self.run, input_paths(self.run, [ref]), [shard.name])
            written.append(self._shard(shard, rows))
            if self.options.earlier == "union":
                named = rows.select(["shard", "row", "id", "kept"]).add_column(
                    0, "entry", pa.array([self.name] * rows.num_rows, pa.string())
                )
                own.append(named.cast(DECISIONS))
        table = pa.concat_tables([*own, earlier.select(DECISIONS.names).cast(DECISIONS)])
        entry = replace(new, shards=written, decisions=self._put(DECISIONS_FILE, table))
        self.index.write(self.config, entry)
        return entry

    def _shard(self, shard: Shard, clusters: pa.Table) -> Shard:
        kept = np.ones(shard.rows, bool)
        if self.options.earlier == "fixed":
            kept[clusters["row"].to_numpy()[~clusters["kept"].to_numpy()]] = False
        signatures = read_table(self.run, shard.signatures.path).filter(pa.array(kept))
        row = np.cumsum(kept) - 1
        keys = {}
        for kind, ref in shard.keys.items():
            key, check, rows = read_keys(self.run, ref.path, 0, 1)
            stays = kept[rows]
            content = keys_bytes(key[stays], check[stays], row[rows[stays]].astype(np.uint32))
            keys[kind] = self._put(f"keys/{shard.name}.{kind}.arrow", content)
        texts = None
        if self.options.texts and shard.texts is not None:
            table = read_table(self.run, shard.texts.path, ["text"]).filter(pa.array(kept))
            near = pc.greater(signatures["shingles"], 0)
            table = pa.table({"text": pc.if_else(near, table["text"].cast(pa.large_string()), "")})  # the others are never compared
            texts = self._put(f"texts/{shard.name}.parquet", table)
        content = parquet_bytes(signatures.replace_schema_metadata(None))
        return replace(
            shard, rows=int(kept.sum()), texts=texts, keys=keys, entry=self.name,
            signatures=self._put(f"signatures/{shard.name}.parquet", content),
        )  # fmt: skip

    def _put(self, path: str, content: Content) -> FileRef:
        return self.index.ref(publish(self.index.storage, f"{self.name}/{path}", content))
