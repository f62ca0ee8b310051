"""The index of earlier crawls, with which later crawls are compared. It has an entry for each run.

INDEX/index.json                        the parameters on which signatures, keys and decisions depend
INDEX/<entry>/entry.json                written last: an entry without it does not count
INDEX/<entry>/{signatures,keys,texts}/  the shards of a run, with the same rows in each
INDEX/<entry>/decisions.parquet         whether each document in a cluster stays, and what the run changed for earlier entries
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter

from corpusmill.dedup.cluster_table import read_clusters
from corpusmill.dedup.config import ClusterConfig, DedupConfig, IndexConfig, MeasureConfig
from corpusmill.dedup.corpus import MeasuredShard, files
from corpusmill.dedup.external_sort import keys_bytes, read_keys
from corpusmill.dedup.signatures import parquet_bytes
from corpusmill.pipeline.config import canonical_json, digest, reason_of
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.events import Event
from corpusmill.pipeline.lease import holding
from corpusmill.pipeline.lists import input_paths
from corpusmill.pipeline.manifest import FileRef, TaskRow
from corpusmill.pipeline.names import counted
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import Content, OutputFile, publish, read_table
from corpusmill.pipeline.stage import Output
from corpusmill.pipeline.storage import Storage, is_remote, stays_inside

INDEX_FILE, ENTRY_FILE, DECISIONS_FILE = "index.json", "entry.json", "decisions.parquet"
#: The option that decides which other options must be equal in all runs (see `parameters`).
EARLIER = "dedup.index.earlier"

DECISIONS = pa.schema(
    [
        pa.field("entry", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("kept", pa.bool_(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Entry:
    """A run in the index. The decisions of later entries override those of earlier ones."""

    name: str
    number: int  # counts the entries in their order
    documents: str  # digest of the run's documents, by which it differs from other runs with its name
    columns: list[str]  # the columns that its policies compare
    shards: list[MeasuredShard]
    decisions: FileRef

    def with_refs(self, change: Callable[[FileRef], FileRef]) -> "Entry":
        """Returns the same entry, with `change` applied to the references to its files."""
        shards = [
            replace(
                shard, texts=shard.texts and change(shard.texts), signatures=change(shard.signatures),
                keys={kind: change(ref) for kind, ref in shard.keys.items()},
            )
            for shard in self.shards
        ]  # fmt: skip
        return replace(self, shards=shards, decisions=change(self.decisions))

    def content(self, root: str) -> bytes:
        """Returns the content of `entry.json`. Paths are relative to the index at `root`, so that an index can be moved."""
        inside = self.with_refs(lambda ref: replace(ref, path=ref.path.removeprefix(f"{root}/")))
        return canonical_json(asdict(inside)).encode() + b"\n"


def parameters(config: DedupConfig) -> dict[str, Any]:
    """Returns the options that must be equal in all runs of an index, by their names in a recipe.

    Under `earlier: union` these include the options on which clusters depend. A later run judges the documents of earlier runs again; if it
    had another threshold or policy, the order of the runs would decide which documents the union keeps.
    """
    earlier = config.index.earlier if config.index else None
    part = config.part(ClusterConfig if earlier == "union" else MeasureConfig).model_dump(mode="json", exclude={"by"})
    return {**_flat("dedup", part), EARLIER: earlier}


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {name: leaf for key, inner in value.items() for name, leaf in _flat(f"{prefix}.{key}", inner).items()}


class CrawlIndex:
    """Reads and writes the folder of an index."""

    def __init__(self, path: str):
        self.storage = Storage(path if is_remote(path) else str(Path(path).absolute()))

    def check(self, config: DedupConfig) -> None:
        """Raises InputError if the index was made with other parameters. The message names those that differ."""
        if not self.storage.exists(INDEX_FILE):
            return
        theirs, ours = self.storage.read_json(INDEX_FILE, dict).get("parameters", {}), parameters(config)
        if not isinstance(theirs, dict):
            raise InputError(f"{self.storage.path(INDEX_FILE)}: its parameters are no JSON object.")
        names = {*theirs, *ours} if theirs.get(EARLIER) == ours[EARLIER] else {*theirs} & {*ours}
        differ = [name for name in sorted(names) if theirs.get(name) != ours.get(name)]
        if differ:
            found = "; ".join(f"{name} is {theirs.get(name)!r} there and {ours.get(name)!r} here" for name in differ)
            raise InputError(f"{self.storage.root}: this index was made with other parameters ({found}).")

    def entries(self) -> list[Entry]:
        """Returns all finished entries, the oldest first."""
        names = [path.split("/")[0] for path in self.storage.list_files() if path.count("/") == 1 and path.endswith(f"/{ENTRY_FILE}")]
        return sorted((self._entry(name) for name in names), key=lambda entry: (entry.number, entry.name))

    def has(self, name: str) -> bool:
        return self.storage.exists(f"{name}/{ENTRY_FILE}")

    def write(self, config: DedupConfig, entry: Entry) -> None:
        """Adds an entry to the index. All its other files must be there already."""
        content = {"parameters": parameters(config)}
        self.storage.write_bytes(INDEX_FILE, (json.dumps(content, indent=2) + "\n").encode())
        self.storage.write_bytes(f"{entry.name}/{ENTRY_FILE}", entry.content(self.storage.root))

    def ref(self, output: OutputFile) -> FileRef:
        """Returns a file of the index as an input for tasks."""
        return FileRef(self.storage.path(output.path), output.sha256, output.bytes, output.xxh3)

    def _entry(self, name: str) -> Entry:
        raw = self.storage.read_json(f"{name}/{ENTRY_FILE}", dict)
        try:
            entry = TypeAdapter(Entry).validate_json(json.dumps(raw), strict=True).with_refs(self._located)
            if entry.name != name:
                raise ValueError(f"it is of {entry.name}")
            return entry
        except ValueError as error:
            raise InputError(f"{self.storage.path(name)}/{ENTRY_FILE}: not an entry of an index ({reason_of(error)}).") from error

    def _located(self, ref: FileRef) -> FileRef:
        if not stays_inside(ref.path):
            raise ValueError(f"{ref.path!r} lies outside of the index")
        return replace(ref, path=self.storage.path(ref.path))


def decisions(entries: Sequence[Entry]) -> pa.Table:
    """Returns the latest decision about each document that is or was in a cluster. Documents that are not listed stay."""
    tables = [DECISIONS.empty_table().append_column("number", pa.array([], pa.int64()))]
    for entry in entries:
        table = read_table(*_in_folder(entry.decisions.path))
        if not table.schema.equals(DECISIONS):
            raise InputError(f"{entry.decisions.path}: not the decisions of an index (its columns are {', '.join(table.schema.names)}).")
        tables.append(table.append_column("number", pa.array([entry.number] * table.num_rows, pa.int64())))
    place = ["entry", "shard", "row"]
    table = pa.concat_tables(tables).sort_by([*((name, "ascending") for name in place), ("number", "ascending")])
    last = table.group_by(place, use_threads=False).aggregate([("id", "last"), ("kept", "last")])
    return last.rename_columns({"id_last": "id", "kept_last": "kept"}).select(DECISIONS.names)


def kept_ids(path: str) -> set[str]:
    """Returns the ids of all documents that stay, in all runs of an index together."""
    entries = CrawlIndex(path).entries()
    state = decisions(entries)
    gone = {(row["entry"], row["shard"], row["row"]) for row in state.to_pylist() if not row["kept"]}
    kept: set[str] = set()
    for entry in entries:
        for shard in entry.shards:
            table = read_table(*_in_folder(shard.signatures.path))
            if "id" not in table.schema.names:
                raise InputError(f"{shard.signatures.path}: not the signatures of an index (it has no column id).")
            ids = table["id"].to_pylist()
            kept.update(id_ for row, id_ in enumerate(ids) if (entry.name, shard.name, row) not in gone)
    return kept


def _in_folder(path: str) -> tuple[Storage, str]:
    folder, _, name = path.rpartition("/")
    return Storage(folder), name


# ---- the phases of a run that has an index ---------------------------------------------------------------


CHANGES_TASK, INDEX_TASK = "earlier", "index"
CHANGES_FILE = "earlier/changes.parquet"
#: A copy of the entry's `entry.json` in the run folder.
MARK_FILE = "index/entry.json"
CHANGES = pa.schema(
    [*DECISIONS, pa.field("kept_id", pa.string(), nullable=False), pa.field("kept_in", pa.string())]
)  # `kept`: the new decision; the earlier one was the opposite


@contextmanager
def hold_index(run: StageRun, config: DedupConfig) -> Iterator[Callable[[], None]]:
    """Holds the lease of the index during the block, so that no other run extends the index. Yields the function that checks the lease."""
    if config.index is None or not config.index.extend:
        yield lambda: None
        return

    def log_waiting(sentence: str) -> None:
        run.events.tell(Event("waiting", run.stage.name, message=sentence, level="warning"))

    with holding(CrawlIndex(config.index.path).storage, log_waiting) as lease:
        yield lease.check


def read_entries(run: StageRun, config: DedupConfig, columns: list[str]) -> list[Entry]:
    """Returns the entries of earlier runs in the index. `columns`: the columns that this run's policies compare.

    Raises InputError if the index does not fit this run.
    """
    if config.index is None:
        return []
    index = CrawlIndex(config.index.path)
    index.check(config)
    every, name = index.entries(), entry_name(run.run, config)
    existing = next((entry for entry in every if entry.name == name), None)
    if existing and existing.documents != _documents_digest(run):
        raise InputError(
            f"{index.storage.path(name)}: this entry of the index is of a run with other documents; give this one a dedup.index.name "
            f"of its own, or remove that folder if it is to be replaced."
        )
    # a repeated run sees the same entries as before
    entries = [entry for entry in every if existing is None or entry.number < existing.number]
    for entry in entries:
        missing = [column for column in columns if column not in entry.columns]
        if missing:
            raise InputError(f"{index.storage.path(entry.name)}: this entry has no column {missing[0]!r}, which dedup.keep needs.")
    return entries


def find_changes(run: StageRun, config: DedupConfig, entries: list[Entry], clusters: Sequence[TaskRow]) -> FileRef | None:
    """Runs the phase that finds the changed decisions about documents of earlier runs; returns their table, or None without an index."""
    if config.index is None:
        return None
    tables = files(clusters, "earlier/")
    inputs = [*tables, *(entry.decisions for entry in entries)]
    row = run.once(CHANGES_TASK, inputs, lambda _: changes_output(run.run, entries, [ref.path for ref in tables]))
    return row.ref("dedup", CHANGES_FILE)


def extend_index(
    run: StageRun,
    config: DedupConfig,
    columns: list[str],
    shards: list[MeasuredShard],
    entries: list[Entry],
    clusters: list[FileRef],
    changes: FileRef,
) -> None:
    """Adds the run to the index. `clusters`: for each of the run's shards the file with its rows of the cluster tables."""
    assert config.index is not None
    index, name, number = CrawlIndex(config.index.path), entry_name(run.run, config), 1 + max((e.number for e in entries), default=-1)
    if not index.has(name) and run.storage.exists(MARK_FILE):
        run.storage.remove(MARK_FILE)  # the run was added to an index that is gone
    new = Entry(name, number, _documents_digest(run), columns, shards, changes)
    inputs = [file for shard in shards for file in (shard.texts, shard.signatures, *shard.keys.values()) if file]
    run.once(
        INDEX_TASK,
        [*inputs, *dict.fromkeys(clusters), changes],
        lambda _: entry_output(run.run, config, index, new, clusters, changes.path),
        {"name": name, "number": number},
    )


def index_summary(run: StageRun) -> dict[str, str]:
    """Returns a line for the terminal, if the run changes decisions about documents of earlier runs."""
    if CHANGES_TASK not in run.plan:
        return {}
    counts = run.manifest.tasks[CHANGES_TASK].counts
    found = f"{counted(counts['replaced'], 'document')} replaced by better copies, {counts['restored']:,} restored"
    return {"earlier runs": found} if counts["replaced"] or counts["restored"] else {}


def entry_name(run: Storage, config: DedupConfig) -> str:
    """Returns the name of a run's entry: `dedup.index.name`, or that of the run's folder. Raises InputError."""
    root = run.root if run.remote else str(Path(run.root).absolute())
    name = (config.index and config.index.name) or PurePosixPath(root).name
    if not name or "/" in name or name.startswith("."):
        raise InputError(f"dedup.index.name: {name!r} can't be the name of a folder.")
    return name


def _documents_digest(run: StageRun) -> str:
    return digest([ref.fingerprint for ref in run.documents()])


def later_entries(run: Storage, config: DedupConfig) -> list[str]:
    """Returns the names of the run's entry and of all that were added after it, in their order; none where the index lacks it."""
    if config.index is None or not config.index.extend:
        return []
    names = [entry.name for entry in CrawlIndex(config.index.path).entries()]
    own = entry_name(run, config)
    return names[names.index(own) :] if own in names else []


def withdraw(config: DedupConfig, names: Sequence[str]) -> None:
    """Removes entries from an index; their runs add them again when `dedup` is done again."""
    assert config.index is not None
    index = CrawlIndex(config.index.path)
    with holding(index.storage, lambda _: None) as lease:
        for name in reversed(names):  # the last one first: the index is whole at any time
            lease.check()
            index.storage.remove(f"{name}/{ENTRY_FILE}")
            index.storage.remove_folder(name)


# ---- the entry of a run ----------------------------------------------------------------------------------


def changes_output(run: Storage, entries: Sequence[Entry], earlier_files: Sequence[str]) -> Output:
    """Returns the output of the phase `earlier`: a table of the documents of earlier runs that a better copy now replaces, and of those
    that stay again because their replacement is gone.

    Its counts: `replaced`, `restored`.
    """
    before = decisions(entries).select(["entry", "shard", "row", "kept"]).rename_columns(["entry", "shard", "row", "before"])
    found = [CHANGES.empty_table(), *(read_table(run, path, CHANGES.names) for path in earlier_files)]
    now = pa.concat_tables([table.select(CHANGES.names).cast(CHANGES) for table in found])
    both = now.join(before, ["entry", "shard", "row"], join_type="left outer", use_threads=False)
    changed = both.filter(pc.not_equal(both["kept"], pc.fill_null(both["before"], True)))
    table = changed.select(CHANGES.names).cast(CHANGES).sort_by([("entry", "ascending"), ("shard", "ascending"), ("row", "ascending")])
    restored = pc.sum(table["kept"]).as_py() or 0
    return Output({CHANGES_FILE: table}, counts={"replaced": table.num_rows - restored, "restored": restored})


def entry_output(run: Storage, config: DedupConfig, index: CrawlIndex, new: Entry, clusters: Sequence[FileRef], changed: str) -> Output:
    """Puts an entry into the index; returns the output with a copy of its `entry.json`.

    `new`: the entry, with the run's own shards. `clusters`: for each shard the file with its rows of the cluster tables. `changed`: the
    path of the run's table of changes.
    """
    assert config.index is not None

    def put(path: str, content: Content) -> FileRef:
        return index.ref(publish(index.storage, f"{new.name}/{path}", content))

    shards, decisions = [], [DECISIONS.empty_table()]
    for shard, ref in zip(new.shards, clusters, strict=True):
        rows = read_clusters(run, input_paths(run, [ref]), [shard.name])
        shards.append(_indexed_shard(run, config.index, new.name, shard, rows, put))
        if config.index.earlier == "union":
            named = rows.select(["shard", "row", "id", "kept"])
            decisions.append(named.add_column(0, "entry", pa.array([new.name] * rows.num_rows, pa.string())).cast(DECISIONS))
    table = pa.concat_tables([*decisions, read_table(run, changed).select(DECISIONS.names).cast(DECISIONS)])
    entry = replace(new, shards=shards, decisions=put(DECISIONS_FILE, table))
    index.write(config, entry)
    return Output({MARK_FILE: entry.content(index.storage.root)}, rows_in=sum(shard.rows for shard in shards))


def _indexed_shard(
    run: Storage, options: IndexConfig, entry: str, shard: MeasuredShard, clusters: pa.Table, put: Callable[[str, Content], FileRef]
) -> MeasuredShard:
    """Writes a shard of the run into the index; under `earlier: fixed` only the documents that stay."""
    kept = np.ones(shard.rows, bool)
    if options.earlier == "fixed":
        kept[clusters["row"].to_numpy()[~clusters["kept"].to_numpy()]] = False
    signatures = read_table(run, shard.signatures.path).filter(pa.array(kept))
    row = np.cumsum(kept) - 1
    keys = {}
    for kind, ref in shard.keys.items():
        key, check, rows = read_keys(run, ref.path, 0, 1)
        stays = kept[rows]
        content = keys_bytes(key[stays], check[stays], row[rows[stays]].astype(np.uint32))
        keys[kind] = put(f"keys/{shard.name}.{kind}.arrow", content)
    texts = None
    if options.texts and shard.texts is not None:
        table = read_table(run, shard.texts.path, ["text"]).filter(pa.array(kept))
        near = pc.greater(signatures["shingles"], 0)
        table = pa.table({"text": pc.if_else(near, table["text"].cast(pa.large_string()), "")})  # texts without shingles are never compared
        texts = put(f"texts/{shard.name}.parquet", table)
    written = put(f"signatures/{shard.name}.parquet", parquet_bytes(signatures.replace_schema_metadata(None)))
    return replace(shard, rows=int(kept.sum()), texts=texts, keys=keys, entry=entry, signatures=written)
