"""A whole run: its folder, its lock, its `run.json`, and its stages one after the other."""

import fcntl
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from typing import IO

import corpusmill
from corpusmill.pipeline.config import Config, config_digest
from corpusmill.pipeline.engine import Engine
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.live import Live
from corpusmill.pipeline.manifest import Manifest, Quarantined
from corpusmill.pipeline.progress import Progress
from corpusmill.pipeline.quarantine import told_lost
from corpusmill.pipeline.recipe import STAGES, apply_override, read_recipe, stage_class, validate_recipe
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.storage import Storage

RUN_FILE = "run.json"
LOCK_FILE = ".lock"
#: How often the lock is tried for, and how many seconds are between two tries.
LOCK_TRIES, LOCK_PAUSE = 5, 0.02
#: Stages that hand pieces to the engine; the others work in this process.
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
    """What is to be done in a run folder: the resolved sections, the inputs, and the stages from `first` to `last`."""

    folder: str
    sections: dict[str, Config]
    inputs: list[str]
    first: str | None = None
    last: str | None = None
    dry_run: bool = False
    strict: bool = False  # the first task that fails ends the run

    def stages(self) -> list[str]:
        """The names of the stages to execute, in order."""
        order = list(STAGES)
        for name in (self.first, self.last):
            if self.dry_run and name is not None and not stage_class(name).tries:
                raise InputError(f"{name}: this stage has no dry run.")
            if name is not None and name not in self.sections:
                raise InputError(f"{name}: the recipe has no such stage (it has {', '.join(self.sections)}).")
        first = order.index(self.first) if self.first else 0
        last = order.index(self.last) if self.last else len(order)
        if first > last:
            raise InputError(f"--from {self.first} --to {self.last}: {self.first} comes after {self.last}.")
        return [name for name in self.sections if first <= order.index(name) <= last]


@dataclass
class StageResult:
    """What a finished stage tells the terminal."""

    name: str
    performed: int  # tasks done now; 0 where all of them were taken over
    seconds: float
    details: dict[str, str] = field(default_factory=dict)
    quarantined: list[Quarantined] = field(default_factory=list)  # the stage was finished without these


def new_plan(
    folder: str,
    recipe: str,
    inputs: Sequence[str],
    overrides: Sequence[str] = (),
    first: str | None = None,
    last: str | None = None,
    dry_run: bool = False,
    strict: bool = False,
) -> Plan:
    """The plan of `corpusmill run`: everything comes from the recipe file and the command line."""
    plan = Plan(folder, read_recipe(recipe, overrides), list(inputs), first, last, dry_run, strict)
    if "ingest" in plan.stages() and not inputs:
        raise InputError(f"{recipe}: the recipe begins with ingest, so it needs at least one input path.")
    return plan


def plan_of_existing(
    folder: str,
    overrides: Sequence[str] = (),
    first: str | None = None,
    last: str | None = None,
    dry_run: bool = False,
    strict: bool = False,
) -> Plan:
    """The plan of a stage's own command: recipe and inputs as `run.json` has them, with overrides applied."""
    storage = Storage(folder)
    if not storage.exists(RUN_FILE):
        raise InputError(f"{folder}: not a run (it has no {RUN_FILE}); start one with: corpusmill run RECIPE INPUT --output {folder}")
    path = storage.path(RUN_FILE)
    try:
        stored = json.loads(storage.read_bytes(RUN_FILE))
        raw, inputs = stored["recipe"], list(stored["inputs"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a run description ({type(error).__name__}: {error}).") from error
    for override in overrides:
        apply_override(raw, override)
    return Plan(folder, validate_recipe(raw, path), inputs, first, last, dry_run, strict)


def describe(plan: Plan) -> bytes:
    """The content of `run.json`: inputs, the recipe with all defaults filled in, versions. Equal runs, equal bytes."""
    versions = {"corpusmill": corpusmill.__version__, "python": platform.python_version()}
    for library in LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            versions[library] = "not installed"
    recipe = {name: section.model_dump(mode="json") for name, section in plan.sections.items()}
    return (json.dumps({"inputs": plan.inputs, "recipe": recipe, "versions": versions}, indent=2, ensure_ascii=False) + "\n").encode()


@contextmanager
def locked(storage: Storage) -> Iterator[None]:
    """Refuses a second run in the same local folder; the system frees the lock however this process ends."""
    if storage.remote:
        yield
        return
    try:
        os.makedirs(storage.root, exist_ok=True)
        lock = open(storage.path(LOCK_FILE), "w")
    except OSError as error:
        raise InputError(f"{storage.root}: the run's folder can't be written ({error.strerror}).") from error
    with lock:
        if not _lock(lock):
            raise InputError(f"{storage.root}: another corpusmill is working in this run right now.")
        yield


def _lock(file: IO[str]) -> bool:
    """Whether the lock is ours now. A look at whether it is held (report/status.py) holds it, too, for less than a millisecond."""
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(LOCK_PAUSE)
        else:
            return True
    return False


def execute(plan: Plan, engine: Engine, progress: Progress, say: Callable[[str], None], on_stage: Callable[[StageResult], None]) -> str:
    """Carries out the plan. `say` gets sentences worth knowing, `on_stage` each finished stage. Returns a sentence that names the tasks
    that stages were finished without; none: nothing."""
    names = plan.stages()
    storage = Storage(plan.folder)
    lost: list[tuple[str, Quarantined]] = []
    with locked(storage):
        description = describe(plan)
        if not plan.dry_run and (not storage.exists(RUN_FILE) or storage.read_bytes(RUN_FILE) != description):
            storage.write_bytes(RUN_FILE, description)
        for name in plan.sections:
            if names and list(STAGES).index(name) < list(STAGES).index(names[0]):
                _warn_if_stale(storage, name, plan.sections[name], say)
        try:
            with Live(storage, names, engine, plan.dry_run) as live:
                for name in names:
                    stage = stage_class(name)(plan.sections[name], plan.dry_run)
                    run = StageRun(stage, storage, dict(plan.sections), plan.inputs, engine, progress, live, strict=plan.strict)
                    if name not in PARALLEL:
                        engine.close()  # training needs the memory and the cores that idle workers hold
                    run.execute()
                    quarantined = list(run.manifest.quarantined.values())
                    lost += [(name, row) for row in quarantined]
                    on_stage(StageResult(name, run.performed, run.seconds, stage.summary(run), quarantined))
        finally:
            engine.close()
    return told_lost(lost)


def _warn_if_stale(storage: Storage, name: str, section: Config, say: Callable[[str], None]) -> None:
    manifest = Manifest(storage.child(name))
    digest, rows = config_digest(section), manifest.rows()
    if rows and all(row.config != digest for row in rows):  # one phase at least depends on all of the section
        say(f"{name}: finished under another configuration and left as it is (start from it with --from {name}).")
