"""Checks a run against its manifests: the size and hash of every file, every row, and the ids' path through all stages. Or token shards.

It does not stop at the first fault; each gives a sentence. If somebody changes a file and its manifest too, the next stage shows it: its
tasks recorded the hashes of their inputs.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from corpusmill.pipeline.config import parse_json, stored_digest
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.failures import sentence_of
from corpusmill.pipeline.lists import is_list, read_list
from corpusmill.pipeline.manifest import MANIFEST, FileRef, Manifest, Quarantined, TaskRow
from corpusmill.pipeline.recipe import STAGES, stage_class
from corpusmill.pipeline.run import RUN_FILE, stored_recipe
from corpusmill.pipeline.runner import DATA_STAGES, WORKING
from corpusmill.pipeline.shards import OutputFile, iter_tables
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import SHARDS_FILE, split_folders
from corpusmill.pipeline.watch.log import LOG, read_appended
from corpusmill.pipeline.watch.progress_file import PROGRESS
from corpusmill.report.read import RunFiles
from corpusmill.report.stale import changed_inputs, written_files
from corpusmill.report.tables import cell, number, show, show_notes, table
from corpusmill.report.takedown import FOLDER as TAKEDOWN
from corpusmill.report.takedown import faults as takedown_faults
from corpusmill.report.tokens import verify as shards
from corpusmill.report.whole.rows import TUNED, example_faults, row_faults, token_faults


def shard_faults(run: Storage, stage: str, documents: list[str], tasks: Sequence[TaskRow], without: Sequence[Quarantined]) -> Iterator[str]:
    """Yields input shards that no task, or more than one, has read. `documents`: the shards (paths from the run) of the stage before.
    `without`: the tasks that were given up."""
    read = {ref.path for task in tasks for ref in task.inputs}
    given_up = {ref.path for task in without for ref in task.inputs}
    reported = Counter(path for task in tasks if _reports(task) for path in {ref.path for ref in task.inputs})
    for path in documents:
        if path not in read and path not in given_up:
            yield f"{run.path(path)}: no task of {stage} has read these documents."
        elif reported[path] > 1:
            yield f"{run.path(path)}: {reported[path]} tasks of {stage} have read these documents, so they are there more than once."


def record_faults(run: Storage, stage: str, tasks: Sequence[TaskRow]) -> Iterator[str]:
    """Yields records that two ingest tasks have both read, or one has read twice, judged by their offsets in the file."""
    stretches: list[tuple[str, int, int, str]] = []  # a crawl file, the offsets of its first and last record in a report, the report
    for path in [path for task in tasks for path in _reports(task)]:
        found: dict[str, tuple[int, int]] = {}
        try:
            for table in iter_tables(run.child(stage), path, ["source", "offset"]):
                doubled = _take(table, found)
                if doubled:
                    yield f"{run.path(f'{stage}/{path}')}: it has records of {doubled} twice, or not in their order."
        except (InputError, pa.ArrowException, OSError, KeyError):
            continue  # another check reports that it can't be read
        stretches += [(source, first, last, path) for source, (first, last) in found.items()]
    stretches.sort()
    for before, after in pairwise(stretches):
        if before[0] == after[0] and after[1] <= before[2]:
            yield f"{run.path(f'{stage}/{after[3]}')}: it has records of {before[0]} that are in {before[3]} too."


def _reports(task: TaskRow) -> list[str]:
    return [output.path for output in task.outputs if output.path.startswith("report/")]


def _take(table: pa.Table, found: dict[str, tuple[int, int]]) -> str:
    """Extends the range of offsets of each file by the rows of the table. Returns the first file whose offsets do not ascend; empty without
    any."""
    wrong = ""
    sources, offsets = table["source"].combine_chunks().dictionary_encode(), table["offset"].combine_chunks()
    codes, valid = np.asarray(sources.indices.fill_null(-1)), np.asarray(offsets.is_valid())
    places = np.asarray(offsets.fill_null(-1))
    for code, source in enumerate(sources.dictionary.to_pylist()):
        here = places[(codes == code) & valid]
        if not len(here):
            continue
        first, last = found.get(source, (int(here[0]), -1))
        if here[0] <= last or (np.diff(here) <= 0).any():
            wrong = wrong or source
        found[source] = (min(first, int(here.min())), max(last, int(here.max())))
    return wrong


THREADS = 2
#: Inputs that a sentence about a task names.
SHOWN = 3


@dataclass
class StageCheck:
    """The result of checking one stage: counts, and a sentence for each fault. `notes` are not faults."""

    name: str
    tasks: int = 0
    files: int = 0
    bytes: int = 0
    rows: int = 0
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)  # a sentence for each task that was given up: the run lacks its documents


def verify(folder: str, every: bool = False) -> list[StageCheck]:
    """Checks every stage that a run has; of a set, or of one folder of token shards, the shards. `every`: compares the tokens of all
    documents with their texts, else those of some in each shard. Raises InputError if `folder` is none of these."""
    run = Storage(folder)
    if not run.exists(RUN_FILE) and (run.exists(SHARDS_FILE) or split_folders(run)):
        found_shards = shards.verify(folder, every=every)
        return [StageCheck(c.folder.rpartition("/")[2], 0, c.shards, c.bytes, c.documents, c.faults, c.notes) for c in found_shards]
    recipe, *_ = stored_recipe(folder)
    manifests: dict[str, Manifest] = {}
    broken: set[str] = set()
    checks = [StageCheck(name) for name in STAGES]
    found = {check.name: _manifest(run.child(check.name), check) for check in checks}
    readers = {  # by stage, the last one that has read its files
        ref.path.partition("/")[0]: name
        for name, manifest in found.items()
        for task in (manifest.tasks.values() if manifest else ())
        for ref in task.inputs
        if not ref.path.startswith(f"{name}/")
    }
    events = _last_events(run)
    for check in list(checks):
        name, manifest = check.name, found[check.name]
        if manifest is not None and not manifest.complete and not manifest.reopened:
            check.faults += _lost_rows(run.child(name), manifest, readers.get(name), events.get(name))
        if manifest is not None and manifest.tasks:
            manifests[name] = manifest
            broken |= _check_stage(run, name, manifests, broken, check, every)
            wanted = stored_digest(stage_class(name).Config, recipe[name]) if name in recipe else None
            if manifest.complete and wanted is not None and all(task.config != wanted for task in manifest.rows()):
                check.faults.append(f"{run.path('run.json')}: its section {name} is not the one that the stage was finished with.")
        elif not check.faults:
            if name in recipe:
                check.notes.append("has not run yet.")
            else:
                checks.remove(check)
    if run.list_files(TAKEDOWN):
        checks.append(StageCheck(TAKEDOWN, faults=list(takedown_faults(run))))
    return checks


def _manifest(storage: Storage, check: StageCheck) -> Manifest | None:
    try:
        return Manifest(storage, read_only=True)
    except (CorpusmillError, OSError, ValueError, KeyError, TypeError) as error:
        check.faults.append(f"{storage.path(MANIFEST)}: can't be read: {error}")
        return None


def _last_events(run: Storage) -> dict[str, str]:
    """Returns the last event of each stage in the log, `stage_begin` or `stage_end`. Of a stage that the log lacks, `progress.json` may say
    that the last command has ended it."""
    progress = RunFiles(run.root).json(PROGRESS, dict) or {}
    ended = progress.get("stages") if progress.get("ended") and not progress.get("failure") else None
    found = {name: "stage_end" for name in STAGES if isinstance(ended, list) and name in ended}
    for line in read_appended(run, LOG).splitlines():
        if b'"event":"stage_' in line:
            with suppress(ValueError, KeyError, TypeError):  # a damaged line
                row = parse_json(line)
                found[row["stage"]] = row["event"]
    return found


def _lost_rows(storage: Storage, manifest: Manifest, reader: str | None, event: str | None) -> Iterator[str]:
    """Yields a fault where a manifest that was complete no longer is. `reader`: a later stage that has read this one's files. `event`: the
    last one of this stage (`_last_events`). Where there is neither, a file that no row names is the fault."""
    path = storage.path(MANIFEST)
    if reader or event == "stage_end":
        known = f"{reader} has read its files" if reader else "the run's log or progress.json says that it is"
        yield f"{path}: it does not say that the stage is finished, but {known}, so rows are lost."
    elif event is None and (unnamed := next(_unnamed(storage, manifest), None)):
        yield f"{path}: rows are lost, since none names {unnamed}."


def _check_stage(run: Storage, name: str, manifests: dict[str, Manifest], before: set[str], check: StageCheck, every: bool) -> set[str]:
    """Checks one stage. `before`: the damaged files of earlier stages. Returns the damaged files of this stage; their tables are not
    read."""
    storage, manifest = run.child(name), manifests[name]
    tasks = manifest.rows() if manifest.complete else [manifest.tasks[task] for task in sorted(manifest.tasks)]
    check.tasks = len(tasks)
    if not manifest.complete:
        check.notes.append(f"not finished (tasks done: {len(tasks):,}), so only what is done was checked.")
    broken = _check_files(storage, [output for task in tasks for output in task.outputs], check)
    check.quarantined = [f"{sentence_of(name, row)}; given up, and not a part of the run." for row in manifest.quarantined.values()]
    unnamed = _unnamed(storage, manifest) if manifest.complete else ()  # an unfinished stage may have some
    check.faults += [f"{storage.path(path)}: no task of the manifest names this file." for path in unnamed]
    check.faults += list(_changed_inputs(run, name, tasks, manifests, broken))
    whole = [task for task in tasks if not any(f"{name}/{output.path}" in broken for output in task.outputs)]
    documents = _documents_before(name, manifests)
    if name in DATA_STAGES:
        check.rows = sum(task.rows_in for task in whole if any(output.path.startswith("report/") for output in task.outputs))
        check.faults += list(row_faults(run, name, whole, before))
    if name == "ingest":
        check.faults += list(record_faults(run, name, whole))
    if name in TUNED:
        check.faults += list(example_faults(run, name, whole, before))
    if name in (*DATA_STAGES, "tokens") and manifest.complete:
        check.faults += list(shard_faults(run, name, documents, tasks, list(manifest.quarantined.values())))
    if name == "tokens" and manifest.complete and not broken and not before.intersection(documents):
        check.faults += list(token_faults(run, every))
    return broken


def _check_files(storage: Storage, outputs: list[OutputFile], check: StageCheck) -> set[str]:
    """Checks that each file is unchanged; returns the paths (from the run) of those that are not."""
    with ThreadPoolExecutor(THREADS) as pool:
        faults = list(pool.map(lambda output: _file_fault(storage, output), outputs))
    check.files, check.bytes = len(outputs), sum(output.bytes for output in outputs)
    check.faults += [fault for fault in faults if fault]
    stage = storage.root.rpartition("/")[2]
    return {f"{stage}/{output.path}" for output, fault in zip(outputs, faults, strict=True) if fault}


def _file_fault(storage: Storage, output: OutputFile) -> str:
    path = storage.path(output.path)
    size = storage.size(output.path)
    if size != output.bytes:
        what = "missing" if size < 0 else f"of {size:,} bytes"
        return f"{path}: this file is {what}, and the manifest says {output.bytes:,} bytes."
    try:
        sha256 = storage.sha256(output.path)
    except CorpusmillError as error:
        return str(error)
    return "" if sha256 == output.sha256 else f"{path}: this file is not the one that was written (its sha256 differs)."


def _unnamed(storage: Storage, manifest: Manifest) -> Iterator[str]:
    """Yields the files of a stage that none of its tasks has written."""
    named = {output.path for task in manifest.tasks.values() for output in task.outputs} | {MANIFEST}
    for path in storage.list_files():
        if path not in named and not path.startswith(WORKING):
            yield path


def _changed_inputs(run: Storage, name: str, tasks: Sequence[TaskRow], manifests: dict[str, Manifest], broken: set[str]) -> Iterator[str]:
    """Yields files of earlier stages (or phases) that differ from those that the tasks of the stage `name` have read, directly or through a
    list file. Lists in `broken` are not read."""
    written = written_files({stage: manifest.tasks.values() for stage, manifest in manifests.items()})
    seen: set[FileRef] = set()
    for task in tasks:
        refs = list(task.inputs)
        for ref in refs:
            if ref in seen:
                continue
            seen.add(ref)
            for _, stage, there in changed_inputs([ref], written):
                what = f"another content than the manifest of {stage} says" if there else "this file, and no task has written it"
                yield f"{run.path(ref.path)}: the task {task.task} has read {what}."
            if is_list(ref) and ref.fingerprint == written.get(name, {}).get(ref.path.partition("/")[2]) and ref.path not in broken:
                try:
                    refs += read_list(run, ref).files  # the loop goes on with these
                except InputError as error:
                    yield str(error)


def _documents_before(name: str, manifests: dict[str, Manifest]) -> list[str]:
    """Returns the document shards (paths from the run) of the nearest earlier data stage."""
    order = list(STAGES)
    before = next((stage for stage in reversed(order[: order.index(name)]) if stage in DATA_STAGES and stage in manifests), None)
    if before is None:
        return []
    return [f"{before}/{output.path}" for task in manifests[before].rows() for output in task.outputs if output.path.startswith("data/")]


VIEW_SHOWN = 100


def show_run(folder: str, checks: Sequence[StageCheck], console: Console) -> bool:
    """Prints a row for each stage (or folder of shards) and a sentence for each fault; returns whether all is unchanged."""
    of_run = Storage(folder).exists(RUN_FILE)
    made = table(f"{'Run' if of_run else 'Token shards of'} {folder}", "stage", ">tasks", ">files", ">MB", ">rows", ">faults")
    for check in checks:
        made.add_row(cell(check.name), *map(number, (check.tasks, check.files, round(check.bytes / 1e6, 1), check.rows, len(check.faults))))
    show(made, console)
    quarantined = [sentence for check in checks for sentence in check.quarantined]
    show_notes(quarantined[:VIEW_SHOWN], console, "Given up", "bold red", 600)
    show_notes((f"{check.name}: {sentence}" for check in checks for sentence in check.notes), console, limit=600)
    faults = [sentence for check in checks for sentence in check.faults]
    show_notes(faults[:VIEW_SHOWN], console, "Fault", "bold red", 600)
    if faults[VIEW_SHOWN:]:
        console.print(f"and {len(faults) - VIEW_SHOWN:,} more faults")
    if not faults and quarantined:
        console.print(f"Every file is the one that was written, but the run is not whole. Tasks that were given up: {len(quarantined):,}.")
    elif not faults:
        rest = "and every document that came in is accounted for" if of_run else "and holds the tokens of its documents"
        if of_run and (unfinished := [check.name for check in checks if check.notes]):
            rest = f"but not all stages are finished: {', '.join(unfinished)}"
        console.print(f"Every file is the one that was written, {rest}.")
    return not faults


def as_json(checks: Sequence[StageCheck]) -> dict[str, Any]:
    """Returns the result for a program."""
    return {"good": not any(check.faults or check.quarantined for check in checks), "stages": [vars(check) for check in checks]}
