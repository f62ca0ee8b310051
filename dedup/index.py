"""What is remembered of earlier crawls, so that later ones are compared with them.

INDEX/index.json                        the parameters that signatures, keys and decisions depend on
INDEX/<entry>/entry.json                written last: an entry without it is none
INDEX/<entry>/{signatures,keys,texts}/  the shards of a run, row by row
INDEX/<entry>/decisions.parquet         which of the documents in clusters stay, those of earlier entries too, as of this entry
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from corpusmill.dedup.config import ClusterConfig, DedupConfig, MeasureConfig
from corpusmill.dedup.corpus import Shard
from corpusmill.pipeline.config import canonical_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.shards import OutputFile, read_table
from corpusmill.pipeline.storage import Storage, is_remote, stays_inside

INDEX_FILE, ENTRY_FILE, DECISIONS_FILE = "index.json", "entry.json", "decisions.parquet"
#: The option on which it depends what else must be equal.
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
    """A run in the index. `number`: how many entries were there before; the decisions of later entries go first."""

    name: str
    number: int
    documents: str  # digest of those that the run had, which tells it from other runs of its name
    columns: list[str]  # that its policies compare
    shards: list[Shard]
    decisions: FileRef

    def content(self, root: str) -> bytes:
        """What `entry.json` of the index at `root` says: paths are relative to it, so that an index can be moved."""

        def below(ref: FileRef) -> FileRef:
            return replace(ref, path=ref.path.removeprefix(f"{root}/"))

        shards = [
            replace(
                shard, texts=shard.texts and below(shard.texts), signatures=below(shard.signatures),
                keys={kind: below(ref) for kind, ref in shard.keys.items()},
            )
            for shard in self.shards
        ]  # fmt: skip
        return canonical_json(asdict(replace(self, shards=shards, decisions=below(self.decisions)))).encode() + b"\n"


def parameters(config: DedupConfig) -> dict[str, Any]:
    """What must be equal in all runs of an index, by the names that a recipe has for it.

    Under `earlier: union` that is how clusters are made, too: a later run judges again what an earlier one has, and if the two had other
    thresholds or policies, what the union keeps would depend on their order.
    """
    earlier = config.index.earlier if config.index else None
    part = config.part(ClusterConfig if earlier == "union" else MeasureConfig).model_dump(mode="json", exclude={"by"})
    return {**_flat("dedup", part), EARLIER: earlier}


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {name: leaf for key, inner in value.items() for name, leaf in _flat(f"{prefix}.{key}", inner).items()}


class CrawlIndex:
    """An index folder as it is now."""

    def __init__(self, path: str):
        self.storage = Storage(path if is_remote(path) else str(Path(path).absolute()))

    def check(self, config: DedupConfig) -> None:
        """Raises InputError where the index was made with other parameters; both are named."""
        if not self.storage.exists(INDEX_FILE):
            return
        theirs, ours = self._json(INDEX_FILE).get("parameters", {}), parameters(config)
        if not isinstance(theirs, dict):
            raise InputError(f"{self.storage.path(INDEX_FILE)}: its parameters are no JSON object.")
        names = {*theirs, *ours} if theirs.get(EARLIER) == ours[EARLIER] else {*theirs} & {*ours}
        differ = [name for name in sorted(names) if theirs.get(name) != ours.get(name)]
        if differ:
            found = "; ".join(f"{name} is {theirs.get(name)!r} there and {ours.get(name)!r} here" for name in differ)
            raise InputError(f"{self.storage.root}: this index was made with other parameters ({found}).")

    def entries(self) -> list[Entry]:
        """All finished entries, the oldest first."""
        names = [path.split("/")[0] for path in self.storage.list_files() if path.count("/") == 1 and path.endswith(f"/{ENTRY_FILE}")]
        return sorted((self._entry(name) for name in names), key=lambda entry: (entry.number, entry.name))

    def has(self, name: str) -> bool:
        return self.storage.exists(f"{name}/{ENTRY_FILE}")

    def write(self, config: DedupConfig, entry: Entry) -> None:
        """Makes an entry whose files are all there part of the index."""
        content = {"parameters": parameters(config)}
        self.storage.write_bytes(INDEX_FILE, (json.dumps(content, indent=2) + "\n").encode())
        self.storage.write_bytes(f"{entry.name}/{ENTRY_FILE}", entry.content(self.storage.root))

    def ref(self, output: OutputFile) -> FileRef:
        """A file of the index as an input of tasks."""
        return FileRef(self.storage.path(output.path), output.sha256, output.bytes)

    def _entry(self, name: str) -> Entry:
        raw = self._json(f"{name}/{ENTRY_FILE}")
        try:
            shards = [
                Shard(
                    s["name"], s["rows"], s["texts"] and self._ref(s["texts"]), self._ref(s["signatures"]),
                    {kind: self._ref(ref) for kind, ref in s["keys"].items()}, s["entry"],
                )
                for s in raw["shards"]
            ]  # fmt: skip
            entry = Entry(raw["name"], raw["number"], raw["documents"], raw["columns"], shards, self._ref(raw["decisions"]))
            if [type(value) for value in vars(entry).values()] != [str, int, str, list, list, FileRef] or entry.name != name:
                raise ValueError("a value is of another kind")
            if not all(type(shard.name) is str and type(shard.rows) is int for shard in shards):
                raise ValueError("a value of a shard is of another kind")
            return entry
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise InputError(f"{self.storage.path(name)}/{ENTRY_FILE}: not an entry of an index ({error}).") from error

    def _ref(self, raw: dict[str, Any]) -> FileRef:
        if not stays_inside(raw["path"]):
            raise ValueError(f"{raw['path']!r} lies outside of the index")
        return FileRef(self.storage.path(raw["path"]), raw["fingerprint"], raw["bytes"])

    def _json(self, path: str) -> dict[str, Any]:
        try:
            value = json.loads(self.storage.read_bytes(path))
        except ValueError as error:
            raise InputError(f"{self.storage.path(path)}: not JSON ({error}).") from error
        if not isinstance(value, dict):
            raise InputError(f"{self.storage.path(path)}: not a JSON object.")
        return value


def decisions(entries: Sequence[Entry]) -> pa.Table:
    """What each document in clusters is as of the latest entry that judged it; documents that are not named are kept."""
    tables = [DECISIONS.empty_table().append_column("number", pa.array([], pa.int64()))]
    for entry in entries:
        table = read_table(*_located(entry.decisions.path))
        if not table.schema.equals(DECISIONS):
            raise InputError(f"{entry.decisions.path}: not the decisions of an index (its columns are {', '.join(table.schema.names)}).")
        tables.append(table.append_column("number", pa.array([entry.number] * table.num_rows, pa.int64())))
    place = ["entry", "shard", "row"]
    table = pa.concat_tables(tables).sort_by([*((name, "ascending") for name in place), ("number", "ascending")])
    last = table.group_by(place, use_threads=False).aggregate([("id", "last"), ("kept", "last")])
    return last.rename_columns({"id_last": "id", "kept_last": "kept"}).select(DECISIONS.names)


def kept_ids(path: str) -> set[str]:
    """The ids of all documents that the union of an index's runs keeps."""
    entries = CrawlIndex(path).entries()
    state = decisions(entries)
    gone = {(row["entry"], row["shard"], row["row"]) for row in state.to_pylist() if not row["kept"]}
    kept: set[str] = set()
    for entry in entries:
        for shard in entry.shards:
            table = read_table(*_located(shard.signatures.path))
            if "id" not in table.schema.names:
                raise InputError(f"{shard.signatures.path}: not the signatures of an index (it has no column id).")
            ids = table["id"].to_pylist()
            kept.update(id_ for row, id_ in enumerate(ids) if (entry.name, shard.name, row) not in gone)
    return kept


def _located(path: str) -> tuple[Storage, str]:
    folder, _, name = path.rpartition("/")
    return Storage(folder), name
