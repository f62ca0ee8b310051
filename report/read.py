"""Reads a run folder in any state: finished, half done, or damaged. Memory holds only parts of shards.

Files that can't be read are left out, and `RunReader.warnings` gets a sentence for each, because the report of a broken run has to open.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpusmill.filters.rules import METADATA_KEY
from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.manifest import Manifest, Quarantined, TaskRow
from corpusmill.pipeline.names import instead_of, not_a_run
from corpusmill.pipeline.recipe import STAGES
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.schemas import MEANINGS_KEY, REPORT
from corpusmill.pipeline.shards import open_parquet
from corpusmill.pipeline.storage import UNFINISHED_FORK, Storage, is_remote
from corpusmill.pipeline.watch.log import APPENDED, objects, read_appended
from corpusmill.report.stale import find_stale


class RunFiles:
    """The files of a run. `warnings` has a sentence for each file that can't be read and is left out."""

    def __init__(self, folder: str):
        self.storage = Storage(folder)
        self.warnings: list[str] = []

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        root = self.storage.root
        return (PurePosixPath(root.partition("://")[2]) if is_remote(root) else Path(root).resolve()).name or "corpus"

    def warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def json(self, path: str, kind: type = object) -> Any:
        """Returns the content of a JSON file; None if the file is missing, or (with a warning) is not JSON of the type `kind`."""
        if not self.storage.exists(path):
            return None
        try:
            return self.storage.read_json(path, kind)
        except (CorpusmillError, OSError) as error:
            self.warn(str(error))
            return None

    def has_lines(self, path: str) -> bool:
        """Whether the run has this file of lines. On a store its lines may lie in several objects (pipeline/watch/log.py)."""
        return self.storage.exists(path) or (path in APPENDED and bool(objects(self.storage, path)))

    def _lines(self, path: str) -> Iterator[bytes]:
        if path in APPENDED:
            yield from read_appended(self.storage, path).splitlines()
        elif self.storage.exists(path):
            with self.storage.open_read(path) as file:
                yield from file

    def json_lines(self, path: str) -> list[dict[str, Any]]:
        """Returns the objects of a JSON Lines file. One warning counts the other lines; the last line may be half written."""
        rows, bad = [], 0
        for line in self._lines(path):
            try:
                row = parse_json(line)
            except ValueError:
                row = None
            if isinstance(row, dict):
                rows.append(row)
            elif line.strip():
                bad += 1
        if bad:
            self.warn(f"{path}: {bad} lines are not JSON objects and are left out.")
        return rows


#: The stages whose report has one row for each document, in the order of the run.
DATA_STAGES = ("ingest", "filter", "dedup")
#: The ingest rule for records of the archive that hold no page: requests, and the crawler's own records.
NO_PAGE = "record_type"
#: The stages that train a model.
TRAINED = ("pretrain", "sft", "align")


@dataclass(frozen=True)
class ReportRule:
    """A rule as the stage wrote it beside its report. A document fails where `column comparison threshold` is true (`words < 50`).

    `share` is set for a rule that keeps a share of the corpus, from which its threshold was found: the share, and of which documents.
    "passing": of the documents that pass all rules with a fixed threshold, so the threshold changes when those rules change. "all": of all
    documents. `kind` (`filters.rules.RANGES`): what the column's values are.
    """

    step: str
    rule: str
    column: str
    comparison: str
    threshold: Any
    share: tuple[float, str] | None = None
    kind: str = ""


@dataclass
class StageState:
    """A stage's manifest: its task rows in the order of the plan, or by name where the stage is unfinished."""

    name: str
    status: str  # "complete", "unfinished" or "missing"
    tasks: list[TaskRow] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)  # tasks that were given up

    def outputs(self, prefix: str) -> list[str]:
        return [output.path for task in self.tasks for output in task.outputs if output.path.startswith(prefix)]


@dataclass(frozen=True)
class Place:
    """The place of a row in a stage's table: shard, row group, and row within the group."""

    stage: str
    shard: str
    group: int
    row: int


class RunReader(RunFiles):
    """Reads a run folder. Raises InputError if the folder is not a run."""

    def __init__(self, folder: str):
        super().__init__(folder)
        self.stages = {name: self._state(name) for name in STAGES}
        begun = any(s.status != "missing" for s in self.stages.values()) and not self.storage.exists(UNFINISHED_FORK)
        if not self.storage.exists("run.json") and not begun:
            raise InputError(not_a_run(folder))
        self.description: dict[str, Any] = self.json("run.json", dict) or {}
        recipe = self.description.get("recipe")
        #: The stale stages, which every view names first.
        self.stale = find_stale(self.stages, recipe if isinstance(recipe, dict) else self.present(STAGES), self.storage.root)

    def _state(self, name: str) -> StageState:
        try:
            manifest = Manifest(self.storage.child(name), read_only=True)
        except (CorpusmillError, OSError, ValueError) as error:
            self.warn(f"{name}: its manifest can't be read: {error}")
            return StageState(name, "unfinished")
        given_up = list(manifest.quarantined.values())
        if not manifest.tasks:
            return StageState(name, "complete" if manifest.complete else "unfinished" if given_up else "missing", [], given_up)
        if manifest.complete:
            return StageState(name, "complete", list(manifest.rows()), given_up)
        return StageState(name, "unfinished", [manifest.tasks[task] for task in sorted(manifest.tasks)], given_up)

    def present(self, names: Iterable[str] = DATA_STAGES) -> list[str]:
        """Returns the stages among `names` that have at least one task or a finished manifest."""
        return [name for name in names if self.stages[name].status != "missing"]

    def models(self) -> list[str]:
        """Returns the finished stages that have a model, in their order. Raises InputError if there is none."""
        found = [name for name in TRAINED if self.stages[name].status == "complete" and self.storage.exists(f"{name}/model/config.json")]
        if not found:
            raise InputError(f"{self.storage.root}: no stage has finished that trains a model ({', '.join(TRAINED)}).")
        return found

    def require_report(self, stage: str | None, present: Collection[str]) -> None:
        """Raises InputError if no stage has a report, or `stage` has none. `present`: the stages that have one."""
        if not present:
            raise InputError(f"{self.storage.root}: no stage of this run has a report yet.")
        if stage is not None and stage not in present:
            raise InputError(f"{self.storage.root}: the stage '{safe_line(stage, 80)}' has no report{instead_of(stage, present)}.")

    # ---- tables -------------------------------------------------------------------------------------

    def _open(self, stage: str, shard: str) -> pq.ParquetFile | None:
        try:
            return open_parquet(self.storage.child(stage), shard)
        except (CorpusmillError, OSError, ValueError) as error:
            self.warn(f"{stage}: a shard is left out: {error}")
            return None

    def groups(
        self, stage: str, kind: str, columns: Iterable[str] | None = None, only: Collection[tuple[str, int]] | None = None
    ) -> Iterator[tuple[Place, pa.Table]]:
        """Yields the row groups of a stage's `report` or `data` table, with those of `columns` that the shard has.

        `only`: the row groups (shard, number) to read. A damaged shard is left out with a warning.
        """
        wanted = None if columns is None else list(columns)
        for shard in self.stages[stage].outputs(f"{kind}/"):
            chosen = None if only is None else {group for name, group in only if name == shard}
            file = self._open(stage, shard) if shard.endswith(".parquet") and (chosen is None or chosen) else None
            if file is None:
                continue
            with file:
                names = set() if wanted is None else set(file.schema_arrow.names)  # schema_arrow is built anew at each call
                have = None if wanted is None else [name for name in wanted if name in names]
                for group in range(file.num_row_groups) if chosen is None else sorted(chosen):
                    table = self._group(file, stage, shard, group, have)
                    if table is not None:
                        yield Place(stage, shard, group, 0), table

    def _group(self, file: pq.ParquetFile, stage: str, shard: str, group: int, columns: list[str] | None) -> pa.Table | None:
        """Returns a row group; None, with a warning, where it is damaged."""
        try:
            table = file.read_row_group(group, columns=columns, use_threads=False)
            table.validate(full=True)  # text that is not UTF-8 would raise where it is used; 20 ms for a million URLs
            return table
        except (pa.ArrowException, OSError) as error:
            self.warn(f"{self.storage.path(f'{stage}/{shard}')}: row group {group} can't be read: {error}")
            return None

    def schema(self, stage: str, kind: str) -> pa.Schema | None:
        """Returns the schema of a stage's first readable shard; None without any."""
        for shard in self.stages[stage].outputs(f"{kind}/"):
            file = self._open(stage, shard) if shard.endswith(".parquet") else None
            if file is not None:
                with file:
                    return file.schema_arrow
        return None

    def is_report(self, stage: str) -> bool:
        """Whether the stage's report has the first columns of this version's reports."""
        schema = self.schema(stage, "report")
        if schema is None:
            return False
        missing = [name for name in REPORT.names if name not in schema.names]
        if missing:
            self.warn(f"{stage}: its report is of another version (no column {missing[0]!r}), so its decisions are left out.")
        return not missing

    def rules(self, stage: str) -> list[ReportRule]:
        """Returns the rules that the stage applied, from the metadata of its report."""
        schema = self.schema(stage, "report")
        raw = ((schema.metadata if schema is not None else None) or {}).get(METADATA_KEY)
        if raw is None:
            return []
        try:
            rows = parse_json(raw)
            return [
                ReportRule(
                    str(r.get("step", "")),
                    str(r["rule"]),
                    str(r.get("column", "")),
                    str(r.get("comparison", "")),
                    r.get("threshold"),
                    share,
                    str(r.get("kind", "")),
                )
                for r in rows
                for share in [(float(r["kept"]["share"]), str(r["kept"]["of"])) if r.get("kept") else None]
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.warn(f"{stage}: the rules beside its report can't be read ({error}).")
            return []

    # ---- documents ----------------------------------------------------------------------------------

    def find(self, stage: str, kind: str, column: str, values: Iterable[str]) -> list[Place]:
        """Returns the places of all rows whose `column` is one of `values`."""
        wanted = pa.array(sorted(set(values)), pa.string())
        places = []
        for place, table in self.groups(stage, kind, [column]):
            if column in table.column_names:
                hits = pc.indices_nonzero(pc.is_in(table[column].cast(pa.string()), wanted)).to_pylist()
                places += [Place(stage, place.shard, place.group, row) for row in hits]
        return places

    def row(self, place: Place, columns: Iterable[str] | None = None) -> dict[str, Any]:
        """Returns one row as Python values."""
        return next(iter(self.rows([place], columns)), {})

    def rows(self, places: Iterable[Place], columns: Iterable[str] | None = None) -> list[dict[str, Any]]:
        """Returns rows in the order of `places`. Consecutive places in one row group read it once."""
        found: list[dict[str, Any]] = []
        last: tuple[str, str, int] | None = None
        table: pa.Table | None = None
        for place in places:
            if (place.stage, place.shard, place.group) != last:
                last, table = (place.stage, place.shard, place.group), None
                file = self._open(place.stage, place.shard)
                if file is not None:
                    with file:
                        have = None if columns is None else [c for c in columns if c in file.schema_arrow.names]
                        table = self._group(file, place.stage, place.shard, place.group, have)
            if table is not None:
                found.append(table.slice(place.row, 1).to_pylist()[0])
        return found

    def texts(self, stage: str, ids: Iterable[str], limit: int) -> dict[str, str]:
        """Returns the first `limit` characters of documents by id, from a stage's data. If an id occurs several times, its first row is
        used."""
        places = self.find(stage, "data", "id", ids)
        found: dict[str, str] = {}
        for row in self.rows(places, ["id", "text"]):
            found.setdefault(row["id"], (row.get("text") or "")[:limit])
        return found

    def urls(self, stage: str, ids: Iterable[str]) -> dict[str, str]:
        """Returns the URLs of a stage's input documents by id. If an id occurs several times, its first row is used. A document without a
        URL is left out."""
        rows = self.rows(self.find(stage, "report", "id", ids), ["id", "url"])
        return {row["id"]: row["url"] for row in reversed(rows) if row.get("url")}

    def settings(self, stage: str) -> dict[str, Any]:
        """Returns the stage's section of the resolved recipe; empty where run.json lacks it."""
        recipe = self.description.get("recipe")
        section = recipe.get(stage) if isinstance(recipe, dict) else None
        return section if isinstance(section, dict) else {}

    def steps(self) -> list[tuple[str, dict[str, Any]]]:
        """Returns the filter stage's steps by their kinds, in order, each with its options."""
        steps = self.settings("filter").get("steps")
        items = [item for step in steps if isinstance(step, dict) for item in step.items()] if isinstance(steps, list) else []
        return [(str(kind), options if isinstance(options, dict) else {}) for kind, options in items]

    def inputs(self, stage: str) -> dict[str, str]:
        """Returns the paths of the document shards that a stage has read (`filter/data/part-00042.parquet`), by name (`part-00042`)."""
        paths = [ref.path for task in self.stages[stage].tasks for ref in task.inputs]
        shards = [PurePosixPath(path) for path in paths if path.endswith(".parquet")]
        return {shard.stem: str(shard) for shard in shards if len(shard.parts) == 3 and shard.parts[1] == "data"}

    def at(self, path: str, rows: list[int], columns: list[str]) -> dict[int, dict[str, Any]]:
        """Returns some rows of one of the run's shards by number. Reads only the row groups that hold one of them. Damage is a warning."""
        stage, _, shard = path.partition("/")
        file = self._open(stage, shard)
        if file is None:
            return {}
        with file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        found: dict[int, dict[str, Any]] = {}
        begin = 0
        for group, size in enumerate(sizes):
            here = sorted(row for row in set(rows) if begin <= row < begin + size)
            places = [Place(stage, shard, group, row - begin) for row in here]
            found.update(zip(here, self.rows(places, columns), strict=False))
            begin += size
        return found


def read_meanings(reader: RunReader, stage: str) -> dict[str, str]:
    """Returns the meaning of rules as phrases ("fewer than 50 words"), by rule. Rules without a description are missing, and reports of
    older versions have none."""
    schema = reader.schema(stage, "report")
    raw = ((schema.metadata if schema is not None else None) or {}).get(MEANINGS_KEY)
    if raw is None:
        return {}
    try:
        return {str(rule): str(phrase) for rule, phrase in parse_json(raw).items()}
    except (ValueError, AttributeError) as error:
        reader.warn(f"{stage}: the meanings of its rules can't be read ({error}).")
        return {}
