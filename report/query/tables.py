"""Finds a run's tables and their files.

A table's name is the stage and the folder of its shards (`filter_report`, `dedup_clusters`), with `documents` for `data`. A file with its
own name is a table of its own (`dedup_clusters_sources`). Numbered files with such a name are a table of parts
(`tokenizer_judged_judge_parts`).
"""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pyarrow as pa

from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.shards import OutputFile, open_parquet
from corpusmill.pipeline.storage import Storage
from corpusmill.report.query.sql import place, quoted
from corpusmill.report.read import TRAINED, RunReader

if TYPE_CHECKING:
    import duckdb

#: The name before a shard's number. The names `part` and `tokens` add nothing to the folder's name.
_NUMBERED = re.compile(r"(\w+)-\d+.*")
_PLAIN = ("part", "tokens")


@dataclass(frozen=True)
class Table:
    """The shards of a table in the order of the stage's plan, as in the manifest.

    `mixed`: tasks of different versions or configurations have written the shards, so their columns may differ. Only then are all footers
    read before a query.
    """

    name: str
    stage: str
    shards: tuple[OutputFile, ...]
    mixed: bool

    @property
    def files(self) -> tuple[str, ...]:
        """The shards' paths, relative to the run."""
        return tuple(f"{self.stage}/{shard.path}" for shard in self.shards)

    def scan(self, storage: Storage) -> str:
        """Returns the SQL expression that reads the files. It adds the virtual columns `filename` and `file_row_number`."""
        folder = place(storage, self.stage)
        paths = ", ".join(quoted(f"{folder}/{shard.path}") for shard in self.shards)
        return f"read_parquet([{paths}]{', union_by_name = true' if self.mixed else ''})"


def find_tables(reader: RunReader) -> dict[str, Table]:
    """Returns all Parquet tables that the run's manifests name, by name, in the order of the stages."""
    found: dict[str, Table] = {}
    for stage in reader.stages.values():
        shards: dict[str, list[OutputFile]] = {}
        versions: dict[str, set[tuple[str, str]]] = {}
        for task in stage.tasks:
            for output in task.outputs:
                if output.path.endswith(".parquet"):
                    name = _name(stage.name, PurePosixPath(output.path))
                    shards.setdefault(name, []).append(output)
                    versions.setdefault(name, set()).add((task.config, task.code))
        found |= {name: Table(name, stage.name, tuple(files), len(versions[name]) > 1) for name, files in shards.items()}
    return found


def _name(stage: str, path: PurePosixPath) -> str:
    folders = ["documents" if part == "data" else part for part in path.parts[:-1]]
    shard = _NUMBERED.fullmatch(path.stem)
    parts = [path.stem] if shard is None else [] if shard[1] in _PLAIN else [shard[1], "parts"]
    return re.sub(r"\W", "_", "_".join([stage, *folders, *parts]))


#: JSON files that the page reads from fixed places, whether or not a manifest names them.
OTHERS = (
    "run.json", "metrics.jsonl", "tokenizer/quality.json", "tokens/plan.json", "tokens/train/shards.json",
    "tokens/validation/shards.json", *(f"{stage}/logs/{name}.jsonl" for stage in TRAINED for name in ("train", "speed", "samples")),
    *(f"{stage}/metrics.json" for stage in TRAINED), "evaluate/scores.json", "evaluate/samples.json",
)  # fmt: skip


def find_files(reader: RunReader) -> dict[str, str]:
    """Returns the run's JSON files (relative to the run), by the name of their view."""
    named = [f"{stage.name}/{path}" for stage in reader.stages.values() for path in stage.outputs("") if path.endswith((".json", ".jsonl"))]
    others = [path for path in OTHERS if path not in named and reader.storage.exists(path)]
    whole = (path for path in (*named, *others) if reader.storage.remote or reader.storage.size(path) >= 0)  # DuckDB would wait for a FIFO
    return {view_name(path): path for path in whole}


def view_name(path: str) -> str:
    """Returns the name of a JSON file's view: `json_tokens_train_shards` for `tokens/train/shards.json`."""
    stage, _, rest = path.rpartition(".")[0].partition("/")
    return "_".join(["json", stage, re.sub(r"\W", "_", rest)]).rstrip("_")


def add_views(connection: "duckdb.DuckDBPyConnection", reader: RunReader) -> None:
    """Adds the views of JSON files. A file is read when a query uses it; a file that is not JSON makes only that query fail."""
    for name, path in find_files(reader).items():
        file = quoted(place(reader.storage, path))
        query = f"SELECT content::JSON AS content FROM read_text({file})"
        if path.endswith(".jsonl"):
            lines = f"SELECT row_number() OVER () AS line, json AS content FROM read_ndjson_objects({file}, ignore_errors=true)"
            query = f"SELECT * FROM ({lines}) WHERE json_type(content) = 'OBJECT'"
        connection.execute(f"CREATE VIEW {name} AS {query}")


THREADS = 4
_SHA256 = 64  # hex digits; a run made by hand may have no hash


def without_torn(reader: RunReader, table: Table) -> Table:
    """Returns the table without files that are missing or cut short, and warns of each."""
    storage = reader.storage.child(table.stage)
    return _without(
        reader,
        table,
        {shard.path: problem for shard in _of_another_size(storage, table.shards) if (problem := _unreadable(storage, shard))},
    )


def without_damaged(reader: RunReader, table: Table) -> Table:
    """Reads all files and returns the table without those that differ from what the stage wrote. Warns of each."""
    storage = reader.storage.child(table.stage)
    with ThreadPoolExecutor(THREADS) as pool:
        problems = zip(table.shards, pool.map(lambda shard: _changed(storage, shard), table.shards), strict=True)
        return _without(reader, table, {shard.path: why for shard, why in problems if why})


def without_unreadable(reader: RunReader, table: Table) -> Table:
    """Returns the table without files that can't be read to their end. A file with the recorded sha256 is not opened."""
    storage = reader.storage.child(table.stage)

    def why(shard: OutputFile) -> str:
        return _changed(storage, shard, hashed=True) and _spoiled(storage, shard)

    with ThreadPoolExecutor(THREADS) as pool:
        problems = zip(table.shards, pool.map(why, table.shards), strict=True)
        return _without(reader, table, {shard.path: sentence for shard, sentence in problems if sentence})


def _without(reader: RunReader, table: Table, damaged: dict[str, str]) -> Table:
    for why in damaged.values():
        reader.warn(f"{table.stage}: a shard is left out: {why}")
    return replace(table, shards=tuple(shard for shard in table.shards if shard.path not in damaged))


def _of_another_size(storage: Storage, shards: tuple[OutputFile, ...]) -> Iterator[OutputFile]:
    """Yields the files whose size differs from the manifest's. Each folder is listed once."""
    for folder, files in groupby(shards, key=lambda shard: shard.path.rpartition("/")[0]):
        sizes = storage.listing(folder)
        yield from (shard for shard in files if sizes.get(PurePosixPath(shard.path).name, -1) != shard.bytes)


def _unreadable(storage: Storage, shard: OutputFile) -> str:
    """Returns a sentence on why a file can't be opened; empty where it can (it may be from a later attempt than the manifest's)."""
    try:
        open_parquet(storage, shard.path).close()
    except (CorpusmillError, OSError, ValueError) as error:
        return str(error)
    return ""


def _changed(storage: Storage, shard: OutputFile, hashed: bool = False) -> str:
    """Returns a sentence on damage in a file; empty without any. `hashed`: a file with the recorded sha256 is not opened."""
    path = storage.path(shard.path)
    try:
        sha256 = storage.sha256(shard.path) if len(shard.sha256) == _SHA256 else ""
    except (CorpusmillError, OSError) as error:
        return str(error)
    if sha256 and sha256 != shard.sha256:
        return f"{path}: damaged: it does not hold what the stage wrote (its sha256 is another)."
    if sha256:
        return "" if hashed else _unreadable(storage, shard)
    return _spoiled(storage, shard)


def _spoiled(storage: Storage, shard: OutputFile) -> str:
    """Reads a file's row groups one by one and returns a sentence on why one can't be read; empty where all can."""
    path, what = storage.path(shard.path), "it"
    try:
        with open_parquet(storage, shard.path) as opened:
            for group in range(opened.num_row_groups):
                what = f"row group {group}"
                opened.read_row_group(group, use_threads=False).validate(full=True)  # text that is not UTF-8 would stop a query
    except (CorpusmillError, OSError, ValueError, pa.ArrowException) as error:
        return str(error) if path in str(error) else f"{path}: {what} can't be read: {error}"
    return ""
