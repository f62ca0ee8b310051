"""`corpusmill takedown`: takes documents, and the copies of them, out of runs and sets of token shards.

The list of what is to stay out (`ingest/takedown.py`) is written first, and everything else follows from it. So a command that was killed
goes on when it is given again. A run's stages up to the tokens are done again as far as their inputs changed; models are not trained again.
`RUN/takedown/00001.parquet` records what was taken out, on whose word, and the files before and after.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from csv import DictWriter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from corpusmill.dedup.config import DedupConfig
from corpusmill.dedup.index import later_entries, withdraw
from corpusmill.ingest.stage import IngestStage
from corpusmill.ingest.takedown import Kind, Takedowns, extend_takedowns, forget, read_takedowns
from corpusmill.pipeline.config import digest, parse_json, reason_of
from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.lease import holding
from corpusmill.pipeline.manifest import MANIFEST, Manifest
from corpusmill.pipeline.names import counted, not_a_run, runs_near
from corpusmill.pipeline.recipe import STAGES, stage_command
from corpusmill.pipeline.run import PARALLEL, REPORT_FILE, RUN_FILE, Plan, describe, former_run, is_run, plan_of_existing, stored_recipe
from corpusmill.pipeline.runner import DATA_STAGES, WORKING, StageRun, remove_unnamed
from corpusmill.pipeline.shards import iter_tables, publish, read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import split_folders
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.report.page.html import write_report
from corpusmill.report.page.page import templates, whole_page
from corpusmill.report.queries.ask import columns
from corpusmill.report.queries.language_model import written_from
from corpusmill.report.query.run import Run
from corpusmill.report.read import TRAINED
from corpusmill.report.tables import cell, number, show_notes, table
from corpusmill.tokenize.export.export import EXPORT_FILE, mark
from corpusmill.tokenize.mask import mask_tokens

FOLDER = "takedown"
#: The record of a takedown: a row for each document. The file's metadata holds RECORD, as JSON.
NAMES = ("id", "url", "why", "crawled", "dropped_by", "characters", "tokens")
SCHEMA = pa.schema([(name, pa.int64() if name in ("characters", "tokens") else pa.string()) for name in NAMES])
RECORD = b"corpusmill.takedown"


@dataclass
class Wanted:
    """What is asked for: entries of the list by kind, texts that a document contains, and who asks why."""

    entries: dict[Kind, list[str]] = field(default_factory=dict)
    contains: list[str] = field(default_factory=list)
    ticket: str = ""
    reason: str = ""
    who: str = ""
    copies: bool = True  # near and exact copies go too


@dataclass
class Taken:
    """What a takedown takes out of one run: its documents (rows of SCHEMA), and how many steps of the pre-training saw them (None: there
    was none)."""

    run: str
    documents: list[dict[str, Any]]
    steps: tuple[int, int] | None = None  # those that saw one of the documents, and all
    models: list[str] = field(default_factory=list)

    @property
    def ids(self) -> set[str]:
        return {row["id"] for row in self.documents}

    @property
    def tokens(self) -> int:
        return sum(row["tokens"] for row in self.documents)

    @property
    def copies(self) -> list[dict[str, Any]]:
        return [row for row in self.documents if row["why"] == "copy"]


# ---- what is to be taken down ------------------------------------------------------------------------------------


def choose(runs: Sequence[str], wanted: Wanted, listed: Takedowns) -> list[Taken]:
    """Finds the documents of each run that are asked for or on the list, and (with `copies`) those with the same text or in a cluster with
    one of them, in any of the runs. Raises InputError for an entry that is none, and for a run without a finished ingest."""
    for kind, values in wanted.entries.items():
        for value in values:
            try:
                listed.add(kind, value, wanted.ticket)
            except ValueError as error:
                raise InputError(f"takedown: {error}.") from error
    opened = [Run(run) for run in runs]
    found: list[dict[str, str]] = [dict(_direct(run, listed, wanted.contains)) for run in opened]
    if wanted.copies:
        for run in opened:
            run.connection.execute("CREATE TEMP TABLE text_of AS SELECT id, md5(text) AS text FROM ingest_documents")
        ids, texts = {id_ for each in found for id_ in each}, set[str]()
        before = -1
        while before != len(ids) + len(texts):
            before = len(ids) + len(texts)
            for run, each in zip(opened, found, strict=True):
                for id_ in _copies(run, ids, texts):
                    each.setdefault(id_, "copy")
                    ids.add(id_)
    for run, each in zip(opened, found, strict=True):
        each.update(dict.fromkeys(written_from(run, set(each)), "rewritten"))
    return [_taken(run, each) for run, each in zip(opened, found, strict=True)]


def _direct(run: Run, listed: Takedowns, contains: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields id and reason of each document in a run that the list has, or that contains one of the texts."""
    storage = run.reader.storage.child("ingest")
    manifest = Manifest(storage, read_only=True)
    if not manifest.complete:
        raise InputError(f"{storage.root}: the stage ingest is not finished; finish it first (corpusmill run {run.folder}).")
    for path in [output.path for row in manifest.rows() for output in row.outputs if output.path.startswith("data/")]:
        for rows in iter_tables(storage, path, ["id", "url", *(["text"] if contains else [])]):
            for id_, url, ticket in zip(rows["id"].to_pylist(), rows["url"].to_pylist(), listed.tickets(rows), strict=True):
                if ticket is not None:
                    yield id_, "id" if id_ in listed.id else "url" if Takedowns(url=listed.url).ticket(None, url) is not None else "domain"
            for text in contains:
                for id_ in rows.filter(pc.match_substring(rows["text"], text))["id"].to_pylist():
                    yield id_, "text"


def _copies(run: Run, ids: set[str], texts: set[str]) -> list[str]:
    """Returns the ids of documents in a run that are copies of `ids`, or whose texts have an MD5 in `texts`. Extends `texts` by
    those of all documents that it finds."""
    ask = run.connection
    ask.register("known_ids", pa.table({"id": pa.array(sorted(ids), pa.string())}))
    clusters = (
        "UNION SELECT id FROM dedup_report WHERE kept_id IN (FROM known_ids) OR kept_id IN (SELECT kept_id FROM dedup_report WHERE id IN "
        "(FROM known_ids))" if "dedup_report" in run.names else ""
    )  # fmt: skip
    near = {id_ for (id_,) in ask.execute(f"SELECT id FROM text_of WHERE id IN (FROM known_ids) {clusters}").fetchall()}
    ask.register("known_ids", pa.table({"id": pa.array(sorted(near), pa.string())}))
    texts.update(text for (text,) in ask.execute("SELECT text FROM text_of WHERE id IN (FROM known_ids)").fetchall())
    ask.register("known_texts", pa.table({"text": pa.array(sorted(texts), pa.string())}))
    return sorted(near | {id_ for (id_,) in ask.execute("SELECT id FROM text_of WHERE text IN (FROM known_texts)").fetchall()})


def _taken(run: Run, found: dict[str, str]) -> Taken:
    ask = run.connection
    ask.register("taken", pa.table({"id": pa.array(sorted(found), pa.string())}))
    splits = [name for name in ("tokens_train", "tokens_validation") if name in run.names]
    counts = " UNION ALL ".join(f"SELECT id, tokens FROM {name} WHERE id IN (FROM taken)" for name in splits)
    tokens = dict(ask.execute(f"SELECT id, sum(tokens)::BIGINT FROM ({counts}) GROUP BY id").fetchall()) if counts else {}
    stages = [name for name in ("filter", "dedup") if f"{name}_report" in run.names]
    why = "SELECT id, '{0}: ' || array_to_string(failed, ', ') FROM {0}_report WHERE NOT kept"
    drops = " UNION ALL ".join(why.format(name) for name in stages)
    dropped = dict(ask.execute(f"FROM ({drops}) WHERE id IN (FROM taken)").fetchall()) if drops else {}
    of_each = "SELECT id, url, timestamp, length(text) AS size FROM"
    written = f"UNION ALL {of_each} filter_documents WHERE rewritten = 1" if "rewritten" in columns(run, "filter_documents") else ""
    rows = ask.execute(
        f"SELECT id, any_value(url), any_value(timestamp), any_value(size) FROM ({of_each} ingest_documents {written}) "
        "WHERE id IN (FROM taken) GROUP BY id ORDER BY 2, id"
    ).fetchall()
    documents = [
        dict(zip(NAMES, (id_, url, found[id_], crawled, dropped.get(id_), size, tokens.get(id_, 0)))) for id_, url, crawled, size in rows
    ]
    taken = Taken(run.folder, documents, models=[name for name in TRAINED if run.reader.stages[name].tasks])
    if documents and "pretrain" in taken.models:
        from corpusmill.train.address import steps_with

        taken.steps = steps_with(run.folder, taken.ids)
    return taken


# ---- taking down -------------------------------------------------------------------------------------------------


@dataclass
class Takedown:
    """A takedown of what is `wanted` from runs and from sets of token shards, in the order in which their crawls were indexed. Exports are
    marked as stale, since other programs own their formats. Nothing is written before `write`. Raises InputError for a folder that is
    none of these, for an entry that is none, and where a run can't be changed."""

    folders: Sequence[str]
    wanted: Wanted
    list_path: str
    mask: bool = False  # token shards of runs are masked as those of sets are, and not made again

    def __post_init__(self) -> None:
        if "://" not in self.list_path:
            self.list_path = str(Path(self.list_path).absolute())
        runs = [folder for folder in self.folders if is_run(folder)]
        self.exports = [folder for folder in self.folders if folder not in runs and Storage(folder).exists(EXPORT_FILE)]
        self.sets = [folder for folder in self.folders if folder not in (*runs, *self.exports)]
        for folder in self.sets:
            if not split_folders(Storage(folder)):
                raise InputError(not_a_run(folder, "run, set of token shards or export"))
        self.plans = [plan_of_existing(run, [f"ingest.takedown={json.dumps(self.list_path)}"]) for run in runs]
        self.later = {plan.folder: _later(plan) for plan in self.plans}
        self.plans.sort(key=lambda plan: -len(self.later[plan.folder]))
        folder, _, name = self.list_path.rpartition("/")
        self.listed = read_takedowns(self.list_path) if Storage(folder).exists(name) else Takedowns()
        self.known = Takedowns(dict(self.listed.id), dict(self.listed.url), dict(self.listed.domain))
        self.taken = choose([plan.folder for plan in self.plans], self.wanted, self.listed)
        ids = self.wanted.entries.get("id", [])
        if ids and not any(id_ in self.known.id or any(id_ in each.ids for each in self.taken) for id_ in ids):
            raise InputError(f"takedown: no document of these runs has the id {ids[0]}; an id is given whole (corpusmill why shows it).")
        for each in self.taken:
            each.documents += [row for row in _begun(each.run).documents if row["id"] not in each.ids]
        own = {names[0] for names in self.later.values() if names}
        for plan, each in zip(self.plans, self.taken, strict=True):
            if each.documents and (others := [name for name in self.later[plan.folder] if name not in own]):
                raise InputError(
                    f"{plan.folder}: its dedup.index has later entries ({', '.join(others)}), which were compared with this one; give "
                    f"their runs as well."
                )

    def write(self, execute: Callable[[Plan], Any], note: Callable[[str], None]) -> None:
        """Writes the list, then takes everything on it out of the runs and sets. `execute` does the stages of a plan; `note` tells the user
        a sentence."""
        ids = {row["id"] for each in self.taken for row in each.documents if row["why"] in ("text", "copy")}
        for id_ in sorted(ids):
            self.listed.add("id", id_, self.wanted.ticket)
        extend_takedowns(self.list_path, self.listed.beyond(self.known))
        affected = [(plan, each) for plan, each in zip(self.plans, self.taken, strict=True) if each.documents]
        for plan, _ in affected:
            if self.later[plan.folder]:
                withdraw(_dedup(plan), _later(plan))
        for plan, each in affected:
            self._from_run(plan, each, execute, note)
        for folder in self.sets:
            note(f"{folder}: {mask_tokens(folder, self.listed.tickets, note):,} tokens are masked.")
        for folder in self.exports if affected else ():
            mark(folder, f"documents were taken down ({self.wanted.ticket or _now()[:10]}); export again.")

    def _from_run(self, plan: Plan, taken: Taken, execute: Callable[[Plan], Any], note: Callable[[str], None]) -> None:
        storage = Storage(plan.folder)
        with holding(storage, note) as lease:
            record = _begin_record(storage, taken, self.wanted)
            run = StageRun(IngestStage(plan.sections["ingest"]), storage, dict(plan.sections), plan.inputs, InlineEngine(), Progress())
            run.hold(lease)
            storage.write_bytes(RUN_FILE, describe(plan, former_run(storage), list(plan.sections)))
            forget(run, self.listed)
            named = (output.path for row in run.manifest.rows() for output in row.outputs)
            remove_unnamed(run.storage, chain([MANIFEST], named), WORKING)
        left = ("tokenizer", "tokens") if self.mask else ()
        stages = [name for name in PARALLEL[1:] if name in plan.sections and name not in left and Manifest(storage.child(name)).tasks]
        if stages:
            execute(replace(plan, first=stages[0], last=stages[-1]))
        if self.mask and split_folders(storage):
            note(f"{plan.folder}: {mask_tokens(plan.folder, self.listed.tickets, note):,} tokens are masked.")
        if storage.exists(REPORT_FILE):
            write_report(plan.folder)
        _end_record(storage, record)


def _dedup(plan: Plan) -> DedupConfig:
    section = plan.sections.get("dedup")
    return section if isinstance(section, DedupConfig) else DedupConfig()


def _later(plan: Plan) -> list[str]:
    return later_entries(Storage(plan.folder), _dedup(plan))


# ---- the record --------------------------------------------------------------------------------------------------


def files_digest(run: Storage) -> dict[str, str]:
    """Returns, by stage, a sha256 over the paths and sha256 of its files, as its manifest has them."""
    manifests = {name: Manifest(run.child(name), read_only=True) for name in STAGES if run.exists(f"{name}/{MANIFEST}") or run.remote}
    return {
        name: digest(sorted((output.path, output.sha256) for row in manifest.rows() for output in row.outputs))
        for name, manifest in manifests.items()
        if manifest.complete
    }


@dataclass
class Record:
    """What `RUN/takedown/00001.parquet` says: `about` has who, ticket, reason, begun, ended, and digests of the stages before and after."""

    name: str
    documents: list[dict[str, Any]]
    about: dict[str, Any]

    @property
    def ended(self) -> bool:
        return bool(self.about.get("ended"))

    def write(self, run: Storage) -> None:
        rows = pa.Table.from_pylist(self.documents, SCHEMA)
        publish(run, self.name, rows.replace_schema_metadata({RECORD: json.dumps(self.about, ensure_ascii=False)}))


def records(run: Storage) -> list[Record]:
    """Returns the records of a run, the oldest first. Raises InputError for a file that is none."""
    found = []
    for name in sorted(path for path in run.list_files(FOLDER) if path.endswith(".parquet")):
        rows = read_table(run, name)
        try:
            found.append(Record(name, rows.select(SCHEMA.names).to_pylist(), parse_json((rows.schema.metadata or {})[RECORD])))
        except (KeyError, ValueError) as error:
            raise InputError(f"{run.path(name)}: not the record of a takedown ({reason_of(error)}).") from error
    return found


def _begun(folder: str) -> Record:
    """Returns the record of a takedown that was not ended, or a new one."""
    found = records(Storage(folder))
    return found[-1] if found and not found[-1].ended else Record(f"{FOLDER}/{len(found) + 1:05d}.parquet", [], {})


def _begin_record(run: Storage, taken: Taken, wanted: Wanted) -> Record:
    record = _begun(run.root)
    record.documents = taken.documents
    if not record.about:
        record.about = {
            "ticket": wanted.ticket, "reason": wanted.reason, "who": wanted.who, "begun": _now(), "before": files_digest(run),
            "models": taken.models, "steps": taken.steps,
        }  # fmt: skip
    record.write(run)
    return record


def _end_record(run: Storage, record: Record) -> None:
    record.about |= {"after": files_digest(run), "ended": _now()}
    record.write(run)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def faults(run: Storage) -> Iterator[str]:
    """Yields a sentence for each takedown that is not finished, and for each shard that has a document which was taken down."""
    found = records(run)
    for record in found:
        if not record.ended:
            yield f"{run.path(record.name)}: this takedown is not finished; give its command again."
    gone = pa.array(sorted({row["id"] for record in found if record.ended for row in record.documents}), pa.string())
    for stage in DATA_STAGES if len(gone) else ():
        for output in (output for row in Manifest(run.child(stage), read_only=True).rows() for output in row.outputs):
            if output.path.startswith("data/"):
                ids = read_table(run, f"{stage}/{output.path}", ["id"])["id"]
                if count := pc.sum(pc.is_in(ids, gone)).as_py():
                    yield f"{run.path(f'{stage}/{output.path}')}: it has {counted(count, 'document')} that were taken down."


# ---- what a person sees ------------------------------------------------------------------------------------------

#: Documents that the table lists of each run, and entries that a page repeats.
SHOWN, ASKS = 10, 100


def default_list(folders: Sequence[str]) -> str:
    """Returns the list that the first run with one names, else `takedown.jsonl` in the folder of the first run."""
    runs = [folder for folder in folders if is_run(folder)]
    named = [section["takedown"] for run in runs if (section := stored_recipe(run)[0].get("ingest")) and section.get("takedown")]
    first = (runs or list(folders))[0].rstrip("/")
    return named[0] if named else f"{first.rpartition('/')[0] or '.'}/takedown.jsonl"


def elsewhere(made: Takedown) -> Iterator[str]:
    """Yields a sentence that names the other runs beside the given ones which have some of the documents; nothing where none has."""
    ids = pa.array(sorted({id_ for each in made.taken for id_ in each.ids}), pa.string())
    given = {Path(plan.folder).absolute() for plan in made.plans}
    near = dict.fromkeys(other for run in given for other in runs_near(str(run.parent)))
    having = []
    for other in near if len(ids) else ():
        if Path(other).absolute() not in given:
            storage = Storage(other).child("ingest")
            tasks = Manifest(storage, read_only=True).rows()
            paths = [output.path for row in tasks for output in row.outputs if output.path.startswith("data/")]
            count = sum(pc.sum(pc.is_in(rows["id"], ids)).as_py() or 0 for path in paths for rows in iter_tables(storage, path, ["id"]))
            if count:
                having.append(f"{other} ({count:,})")
    if having:
        more = f" and {counted(len(having) - SHOWN, 'more run')}" if len(having) > SHOWN else ""
        yield f"documents of these are also in {', '.join(having[:SHOWN])}{more}; give {'them' if len(having) > 1 else 'it'} as well."


def as_csv(made: Takedown) -> str:
    """Returns the documents as CSV, a line each, with their run."""
    lines = StringIO()
    writer = DictWriter(lines, ("run", *NAMES))
    writer.writeheader()
    writer.writerows({"run": each.run, **row} for each in made.taken for row in each.documents)
    return lines.getvalue()


def as_page(made: Takedown) -> str:
    """Returns a page with all documents, to send to who asks."""
    asks = [value for values in made.wanted.entries.values() for value in values] + made.wanted.contains
    values = {"runs": made.taken, "wanted": made.wanted, "asks": asks[:ASKS], "today": _now()[:10]}
    return whole_page("Documents found", templates().get_template("takedown.html.jinja").render(values), [])


def as_json(made: Takedown, others: Sequence[str]) -> dict[str, Any]:
    """Returns the takedown as JSON: for each run its documents with reason, characters and tokens, and its models."""
    runs = [{"run": each.run, "documents": each.documents, "models": each.models, "steps": each.steps} for each in made.taken]
    return {"list": made.list_path, "runs": runs, "sets": made.sets, "exports": made.exports, "notes": list(others)}


def show(made: Takedown, others: Sequence[str], writes: bool, console: Console) -> None:
    """Prints what is taken out of each run, copies first, and what becomes of its models."""
    for each in made.taken:
        asked = len(each.documents) - len(each.copies)
        console.print(
            f"{each.run}: {counted(asked, 'document')} and {len(each.copies):,} copies of them, {each.tokens:,} tokens.", markup=False
        )
        if each.documents:
            made_table = table("", "document", "why", "crawled", "characters", "tokens", "dropped by", "URL")
            for row in sorted(each.documents, key=lambda row: row["why"] != "copy")[:SHOWN]:
                numbers = number(row["characters"]), number(row["tokens"])
                crawled = (row["crawled"] or "")[:10]
                made_table.add_row(row["id"], row["why"], crawled, *numbers, row["dropped_by"] or "", cell(row["url"] or "", 100))
            console.print(made_table)
            if len(each.documents) > SHOWN:
                console.print(f"... and {len(each.documents) - SHOWN:,} more (--csv lists all).", markup=False)
        if each.models and each.documents:
            seen = f"{each.steps[0]:,} of {each.steps[1]:,} steps of pretrain saw them; " if each.steps else ""
            console.print(
                f"Models: {', '.join(each.models)}. {seen}they become stale, and their weights and logs may still hold the texts, until "
                f"they are trained again ({stage_command(each.run, each.models[0], each.models[-1])}).",
                markup=False,
            )  # fmt: skip
    for folder in made.sets:
        console.print(f"{folder}: the tokens of these documents become <|endoftext|>.", markup=False)
    for folder in made.exports:
        console.print(f"{folder}: this export is marked as stale; make it anew from a run.", markup=False)
    show_notes(others, console)
    if not any(each.documents for each in made.taken) and not made.sets:
        chosen = made.wanted.contains or any(made.wanted.entries.values())
        nothing = "" if chosen else " Choose documents by --urls, --domains, --ids or --contains; this was the list alone."
        console.print(f"Nothing to take down here.{nothing}", markup=False)
    elif not writes:
        console.print("Nothing is written yet; --write takes them out, and keeps them out of later runs by this list:", markup=False)
    console.print(f"The list: {made.list_path}", markup=False)
