"""A whole run: its folder, its `run.json`, and its stages one after the other."""

import json
import os
import platform
import re
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import corpusmill
from corpusmill.pipeline.code import version_of
from corpusmill.pipeline.compiling import Compilation, modules_of
from corpusmill.pipeline.config import Config, config_digest, parse_json, reason_of
from corpusmill.pipeline.engine import Engine
from corpusmill.pipeline.errors import CorpusmillError, Damaged, InputError, NothingKept
from corpusmill.pipeline.events import Event, Events, Listener
from corpusmill.pipeline.extras import require
from corpusmill.pipeline.failures import sentence_of_all
from corpusmill.pipeline.files import expand, file_ref
from corpusmill.pipeline.interrupts import of_an_interrupt
from corpusmill.pipeline.lease import GUARD_FILE, LEASE, Lease, holding
from corpusmill.pipeline.manifest import Manifest, Quarantined
from corpusmill.pipeline.names import counted, instead_of, not_a_run
from corpusmill.pipeline.recipe import (
    STAGES,
    UNNAMED,
    Recipe,
    apply_override,
    read_recipe,
    recipe_name,
    recipe_path,
    stage_class,
    validate_recipe,
)
from corpusmill.pipeline.redact import refuse_secrets
from corpusmill.pipeline.redo import expect, paragraph, replaced
from corpusmill.pipeline.runner import DATA_STAGES, StageRun
from corpusmill.pipeline.storage import TEMPORARY, Storage, printable
from corpusmill.pipeline.watch.log import APPENDED, RunLog
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.pipeline.watch.progress_file import PROGRESS, ProgressFile

RUN_FILE, REPORT_FILE = "run.json", "report.html"
#: Stages that hand tasks to the engine; the others work in this process.
PARALLEL = ("ingest", "filter", "dedup", "tokenizer", "tokens")
#: Libraries whose version can change what a run writes.
LIBRARIES = (
    "datatrove",
    "fastwarc",
    "numba",
    "numpy",
    "pyarrow",
    "ray",
    "resiliparse",
    "selectolax",
    "tiktoken",
    "tokenizers",
    "torch",
)


@dataclass(frozen=True)
class Plan:
    """The work of one command in a run folder: the resolved sections, the inputs, and the stages from `first` to `last`."""

    folder: str
    sections: dict[str, Config]
    inputs: list[str]
    first: str | None = None
    last: str | None = None
    strict: bool = False  # the first task that fails ends the run
    redo: bool = False  # other inputs or another recipe may replace what is finished
    recipe_name: str = ""  # empty: that of the former run.json

    def __post_init__(self) -> None:
        for path in (self.folder, *self.inputs):
            if printable(path) != path:
                raise InputError(f"{printable(path)}: this name is not UTF-8, so it can't be written to reports; rename it.")
        refuse_secrets(self.folder, "--output")
        refuse_secrets(self.inputs, "an input")
        refuse_secrets({name: section.model_dump(mode="json") for name, section in self.sections.items()}, "the recipe")

    def stages(self) -> list[str]:
        """The names of the stages to execute, in order."""
        order = list(STAGES)
        for name in (self.first, self.last):
            if name is not None and name not in self.sections:
                more = f"; corpus has it: corpusmill run corpus ... --to {name}" if name in ("tokenizer", "tokens") else ""
                raise InputError(f"{name}: the recipe has no such stage{instead_of(name, self.sections)}{more}.")
        first = order.index(self.first) if self.first else 0
        last = order.index(self.last) if self.last else len(order)
        if first > last:
            raise InputError(f"--from {self.first} --to {self.last}: {self.first} comes after {self.last}.")
        return [name for name in self.sections if first <= order.index(name) <= last]


def new_plan(
    folder: str,
    recipe: str | Recipe,
    inputs: Sequence[str],
    overrides: Sequence[str] = (),
    first: str | None = None,
    last: str | None = None,
    strict: bool = False,
    redo: bool = False,
) -> Plan:
    """Returns the plan of `corpusmill run`, made from a recipe or the path of its file. Raises InputError, also where `folder` holds
    something other than a run."""
    sections = recipe.sections if isinstance(recipe, Recipe) else read_recipe(recipe, overrides)
    source = recipe.source if isinstance(recipe, Recipe) else recipe
    name = "" if source == UNNAMED else printable(Path(source).stem)
    plan = Plan(folder, sections, list(inputs), first, last, strict, redo, name)
    if "ingest" in plan.stages() and not inputs:
        raise InputError(f"{recipe_name(source)}: the recipe begins with ingest, so it needs at least one input path.")
    check_folder(folder)
    return plan


def plan_of(
    recipe: str | Recipe,
    inputs: Sequence[str],
    output: str | None,
    folder: str,
    overrides: Sequence[str],
    from_: str | None,
    to: str | None,
    strict: bool,
    redo: bool,
) -> Plan:
    """Returns the plan of a run: of the one in `folder`, where `recipe` names it (`is_run`), else of a recipe. Raises InputError."""
    if is_run(recipe):
        if inputs or output:
            raise InputError(f"{recipe}: this run has a folder and inputs of its own; for another run, give a recipe.")
        return plan_of_existing(folder, overrides, from_, to, strict, redo)
    recipe = recipe if isinstance(recipe, Recipe) else recipe_path(recipe)
    made = new_plan(folder, recipe, inputs, overrides, from_, to, strict, redo)
    if not Storage(folder).exists(RUN_FILE):  # an input that is not there is said before a new run's folder gets its first file
        for given in inputs:
            if "://" in given or given.startswith("cc:"):
                continue
            if is_run(given):
                how = f"to continue it: corpusmill run {given}; as an input take a stage's documents, such as {given}/ingest/data"
                raise InputError(f"{given}: this is a run; {how}.")
            expand(given)
    return made


def is_run(recipe: object) -> bool:
    return isinstance(recipe, str) and Storage(recipe).exists(RUN_FILE)


@contextmanager
def folder_of(recipe: str | Recipe, inputs: Sequence[str], output: str | None) -> Iterator[tuple[str, bool]]:
    """Yields the run's folder, and whether it is a new one, `runs/RECIPE-INPUT-NUMBER`, which is removed if the run has not begun."""
    if is_run(recipe) or output is not None:
        yield str(recipe) if is_run(recipe) else str(output), False
        return
    folder = _new_folder(recipe.source if isinstance(recipe, Recipe) else recipe, inputs)
    try:
        yield folder, True
    finally:
        with suppress(OSError):  # the folder is not empty: the run has begun
            Path(folder).rmdir()


def _new_folder(recipe: str, inputs: Sequence[str]) -> str:
    """Creates a new folder for a run and returns it. Raises InputError if it can't be created."""
    names = [Path(recipe).stem, *(Path(given.partition("?")[0]).name.partition(".")[0] for given in inputs[:1])]
    name = "-".join(filter(None, (re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")[:40] for name in names)))
    for number in count(1):
        folder = f"runs/{name or 'run'}-{number}"
        try:
            os.makedirs(folder)
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError(f"{folder}: can't be written ({error.strerror}).") from error
        return folder
    raise AssertionError


#: The variable that Ray sets for jobs.
RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def check_folder(folder: str) -> None:
    """Raises InputError if a folder holds something other than a run, or if it is relative in a job of Ray."""
    storage = Storage(folder)
    if not storage.remote and not Path(folder).is_absolute() and RAY_JOB in os.environ:
        raise InputError(
            f"{folder}: give a full path; a job of Ray works in a copy of your folder, which goes with it, or where Ray was started."
        )
    if not storage.exists(RUN_FILE) and (found := foreign(storage)):
        raise InputError(f"{folder}: holds something other than a run (it has {found} and no {RUN_FILE}); give an empty or new folder.")


def foreign(storage: Storage) -> str | None:
    """Returns the name of a file or folder that no run writes before its `run.json`; None if there is none."""
    if storage.remote:
        names = storage.list_files()
    else:
        try:
            names = sorted(os.listdir(storage.root))
        except OSError:  # no such folder, or an unreadable one: the first write to it reports that
            names = []
    ours = {"inputs", LEASE, GUARD_FILE, PROGRESS, *APPENDED, *(name.partition(".")[0] for name in APPENDED)}
    tops = (name.partition("/")[0] for name in names)
    return next((name for name in tops if name not in ours and not name.startswith(TEMPORARY)), None)


def plan_of_existing(
    folder: str,
    overrides: Sequence[str] = (),
    first: str | None = None,
    last: str | None = None,
    strict: bool = False,
    redo: bool = False,
) -> Plan:
    """Returns the plan of a stage's own command: recipe and inputs from `run.json`, with the overrides applied."""
    raw, inputs, name = stored_recipe(folder)
    for override in overrides:
        apply_override(raw, override)
    checked = validate_recipe(raw, folder if overrides else Storage(folder).path(RUN_FILE))  # a slip in an override is not in the file
    return Plan(folder, checked, inputs, first, last, strict, redo, name)


def stored_recipe(folder: str) -> tuple[dict[str, Any], list[str], str]:
    """Returns the resolved recipe, the inputs and the recipe's name (empty: none) from `run.json`, without loading any file that they name.
    Raises InputError."""
    former = former_run(Storage(folder))
    if former is None:
        raise InputError(not_a_run(folder))
    return dict(former["recipe"]), former["inputs"], str(former.get("recipe_name") or "")


def no_tokens(folder: str) -> str:
    """Returns a sentence about a folder without finished token shards: how they are made."""
    if not is_run(folder):
        return f"{folder}: neither a run nor a set of token shards."
    if "tokens" in stored_recipe(folder)[0]:
        return f"{folder}: this run has no finished token shards; {shlex.join(['corpusmill', 'run', folder, '--to', 'tokens'])} makes them."
    return f"{folder}: this run has no token shards, and its recipe no stage that makes them; corpusmill run corpus INPUT has it."


def former_run(storage: Storage) -> dict[str, Any] | None:
    """Returns the content of `run.json`; None if there is none. Raises InputError if it does not describe a run."""
    if not storage.exists(RUN_FILE):
        return None
    try:
        found = parse_json(storage.read_bytes(RUN_FILE))
        if not isinstance(found["recipe"], dict):
            raise TypeError("its recipe is no mapping")
        return {**found, "inputs": [str(path) for path in found["inputs"]]}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{storage.path(RUN_FILE)}: not a run description ({reason_of(error)}), so this folder is not a run.") from error


def describe(plan: Plan, former: Mapping[str, Any] | None = None, kept: Sequence[str] = ()) -> bytes:
    """Returns the content of `run.json`: inputs, the recipe's name, the recipe with all defaults filled in, versions. Equal runs have equal
    bytes. For the stages in `kept`, the entries of the `former` run.json are copied."""
    versions = {"corpusmill": corpusmill.__version__, "python": platform.python_version()}
    versions |= {library: version_of(library) or "not installed" for library in LIBRARIES}
    recipe = {name: section.model_dump(mode="json") for name, section in plan.sections.items()}
    inputs = plan.inputs
    if former is not None:
        recipe |= {name: former["recipe"][name] for name in kept if name in recipe and name in former["recipe"]}
        inputs = former["inputs"] if "ingest" in kept else inputs
    name = plan.recipe_name or (former or {}).get("recipe_name") or ""
    found = {"inputs": inputs, **({"recipe_name": name} if name else {}), "recipe": recipe, "versions": versions}
    return (json.dumps(found, indent=2, ensure_ascii=False) + "\n").encode()


def execute(plan: Plan, engine: Engine, progress: Progress, *listeners: Listener, write_report: Callable[[str], str] | None = None) -> str:
    """Executes the plan, and tells its events to `progress`, the other listeners, the log and the progress file. Returns a sentence that
    names the quarantined tasks (empty where there are none).

    `write_report` gets the folder of a run that is finished, and returns the path of its report. Raises NothingKept after a stage that has
    kept no document, and InputError, before any work, if a stage lacks a library or can't read a file that its section names.
    """
    names = plan.stages()
    for name in names:
        stage = stage_class(name)(plan.sections[name])
        require(name, *stage.libraries())
        stage.check()
    storage = Storage(plan.folder)
    events = Events(progress, *listeners)
    lost: list[tuple[str, Quarantined]] = []
    performed, nothing_kept = 0, None
    say = partial(progress.console.print, style="dim", markup=False, soft_wrap=True)
    compilation = Compilation({name: modules_of(name, plan.sections[name]) for name in names}, say)
    try:
        with holding(storage, events.note) as lease:
            logged = Events(*events.listeners, RunLog(storage), ProgressFile(storage, lambda: lease.lost is None))
            former = former_run(storage)
            again = replaced(storage, former, plan.sections, plan.inputs, names[0], plan.redo) if former and names else []
            with attempt(logged, names, lease):
                for name in again:  # finished from other inputs or another recipe: no longer complete
                    manifest = Manifest(storage.child(name))
                    manifest.guard(lease.check)
                    manifest.reopen()
                _describe_again(plan, storage, names, former, logged)
                _check_documents(plan, storage, names)
                if names and not Manifest(storage.child(names[0]), read_only=True).complete:
                    compilation.start()

                def stage_run(name: str) -> StageRun:
                    stage = stage_class(name)(plan.sections[name])
                    run = StageRun(stage, storage, dict(plan.sections), plan.inputs, engine, progress, logged, plan.strict)
                    run.hold(lease)
                    run.before_work = partial(compilation.wait, name, progress)
                    return run

                repairs = _Repairs(plan, storage, names, stage_run, logged.note)
                for name in names:
                    if name not in PARALLEL:
                        engine.close()  # training needs the memory and the cores that idle workers hold
                    run = repairs.execute(name)
                    performed += run.performed
                    lost += [(name, row) for row in run.manifest.quarantined.values()]
                    check_kept(run, names[names.index(name) + 1 :], sentence_of_all(lost))
    except NothingKept as error:
        nothing_kept = error
    finally:
        compilation.close()
        engine.close()
    if write_report and (plan.last is None or (len(names) > 1 and names[-1] == list(plan.sections)[-1])):  # the run is finished
        events.tell(Event("report", message=write_report(plan.folder)))
    elif performed:
        note_old_page(plan.folder, events.note)
    if nothing_kept:
        raise nothing_kept
    return sentence_of_all(lost)


@contextmanager
def attempt(events: Events, stages: Sequence[str], lease: Lease) -> Iterator[None]:
    """Tells the start and the end of this process's work on the run, which is the `with` block."""
    events.tell(Event("run_begin", fields={"version": corpusmill.__version__, "process": os.getpid(), "stages": list(stages)}))
    if (before := lease.before) is not None:
        fields = {"host": before.host, "process": before.pid}
        events.tell(Event("lease_taken_over", message=f"This run was left by {before.words}.", level="warning", fields=fields))
    started = time.monotonic()
    end = Event("run_end")
    try:
        yield
    except BaseException as error:
        end = Event("run_failed", message=message_of(error), level="error")
        if lease.lost is not None:  # a lost lease interrupts this process as Ctrl-C does
            end = Event("lease_lost", message=lease.lost, level="error")
        elif of_an_interrupt(error):
            end = replace(end, kind="interrupted", level="warning")
        raise
    finally:
        events.tell(replace(end, fields={"seconds": round(time.monotonic() - started, 3)}))


def message_of(error: BaseException) -> str:
    return str(error) if isinstance(error, CorpusmillError) else f"{type(error).__name__}: {error}".rstrip(": ")


def note_old_page(folder: str, on_message: Callable[[str], None]) -> None:
    """Says that a run's report, if there is one, shows an earlier state."""
    if Storage(folder).exists(REPORT_FILE):
        on_message(f"{REPORT_FILE} shows an earlier state of the run; update it with: {shlex.join(['corpusmill', 'report', folder])}")


class _Repairs:
    """Executes stages. Where one finds a damaged file, the stage that wrote the file does its task again, from its own inputs. `make`
    returns a new StageRun; `note` tells the user a sentence."""

    def __init__(self, plan: Plan, storage: Storage, names: Sequence[str], make: Callable[[str], StageRun], note: Callable[[str], None]):
        self.plan, self.storage, self.names, self.make, self.note = plan, storage, names, make, note
        self.tried: set[str] = set()

    def execute(self, name: str, repairs: bool = True, doubtful: bool = False) -> StageRun:
        """Executes a stage and returns its run. `doubtful`: all files of its finished tasks are compared with their sha256 first.

        Without `repairs`, a task that reads a damaged file fails like any other.
        """
        run = self.make(name)
        run.repairs = repairs
        if doubtful:
            run.manifest.doubtful.update(run.manifest.tasks)
        try:
            run.execute()
            return run
        except Damaged as error:
            stage = error.path.removeprefix(f"{self.storage.root}/").partition("/")[0]
            if not repairs or not self._can(stage):
                if not repairs or stage == name:
                    raise
                return self.execute(name, repairs=False)
            self.tried.add(stage)
            self.note(f"{str(error).rstrip('.')}; {stage} writes it again.")
        if stage != name:
            self.execute(stage, doubtful=True)
        return self.execute(name, doubtful=stage == name)

    def _can(self, stage: str) -> bool:
        """Whether the stage would write the same again: a stage of data (no training) with its recipe, code and inputs unchanged."""
        if stage not in PARALLEL or stage not in self.plan.sections or stage in self.tried:
            return False
        if stage in self.names:
            return True
        expected = expect(self.storage, former_run(self.storage), self.plan.sections, self.plan.inputs, [stage])[0]
        return expected.state == "reused" and (stage != "ingest" or _sources_there(Manifest(self.storage.child(stage), read_only=True)))


def _sources_there(manifest: Manifest) -> bool:
    """Whether all crawl files that ingest has read are there and unchanged."""
    try:
        refs = {ref for row in manifest.rows() for ref in row.inputs if not ref.xxh3}
        return all(file_ref(ref.path).fingerprint == ref.fingerprint for ref in refs)
    except CorpusmillError:
        return False


def _check_documents(plan: Plan, storage: Storage, names: Sequence[str]) -> None:
    """Raises NothingKept if the first stage would read the documents of a stage that has kept none."""
    order = list(STAGES)
    if not names or names[0] not in PARALLEL:
        return
    earlier = [name for name in DATA_STAGES if name in plan.sections and order.index(name) < order.index(names[0])]
    if earlier and Manifest(storage.child(earlier[-1]), read_only=True).documents().get("kept") == 0:
        raise NothingKept(f"{names[0]}: {earlier[-1]} has kept no document, so there is nothing to do.")


def check_kept(run: StageRun, after: Sequence[str] = (), lost: str = "") -> None:
    """Raises NothingKept if a finished stage has kept no document. The message names the rule that dropped most and the stages `after`
    this one, which are not run; it ends with `lost`, a sentence about quarantined tasks."""
    name = run.stage.name
    documents = run.manifest.documents()
    if name not in DATA_STAGES or documents.get("kept"):
        return
    failed: Counter[str] = Counter()
    for row in run.manifest.rows():
        failed.update(row.failed)
    rows = documents.get("in", 0)
    message = f"{name}: none of {counted(rows, 'document')} was kept" if rows else f"{name}: nothing came in"
    if failed:
        ((rule, count),) = failed.most_common(1)
        message += f", and the rule that dropped most is {rule} ({count:,})"
    message += f"; not run: {', '.join(after)}." if after else "."
    raise NothingKept(f"{message} {lost}".strip())


def _describe_again(plan: Plan, storage: Storage, names: Sequence[str], former: dict[str, Any] | None, events: Events) -> None:
    """Writes `run.json`, and notes which stages a resumed run redoes and which it leaves as they are."""
    kept = _left_alone(plan, storage, names)
    description = describe(plan, former, kept)
    expected = expect(storage, former, plan.sections, plan.inputs, names) if former is not None else []
    for each in expected:
        events.tell(Event("expected", each.stage, message=each.sentence, fields={"state": each.state, "tasks": each.tasks}))
    if sentences := paragraph(expected):
        events.note(sentences)
    for name in kept:
        _warn_if_stale(storage, name, plan.sections[name], events.note)
    if former and "ingest" in kept and plan.inputs and set(plan.inputs) != set(former["inputs"]):
        events.note("ingest: finished on other inputs and left as it is (start from it with --from ingest).")
    if former is None or storage.read_bytes(RUN_FILE) != description:
        storage.write_bytes(RUN_FILE, description)


def _left_alone(plan: Plan, storage: Storage, names: Sequence[str]) -> list[str]:
    """Returns the finished stages before the first one of `names`."""
    order = list(STAGES)
    earlier = [name for name in plan.sections if names and order.index(name) < order.index(names[0])]
    return [name for name in earlier if Manifest(storage.child(name), read_only=True).complete]


def _warn_if_stale(storage: Storage, name: str, section: Config, on_message: Callable[[str], None]) -> None:
    manifest = Manifest(storage.child(name))
    digest, rows = config_digest(section), manifest.rows()
    if rows and all(row.config != digest for row in rows):  # one phase at least depends on all of the section
        on_message(f"{name}: finished under another configuration and left as it is (start from it with --from {name}).")
