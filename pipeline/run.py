"""A whole run: its folder, its `run.json`, and its stages one after the other."""

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import corpusmill
from corpusmill.pipeline.config import Config, config_digest
from corpusmill.pipeline.engine import Engine
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.lease import holding
from corpusmill.pipeline.manifest import Manifest, Quarantined
from corpusmill.pipeline.quarantine import told_lost
from corpusmill.pipeline.recipe import STAGES, apply_override, read_recipe, stage_class, validate_recipe
from corpusmill.pipeline.redo import configuration, expect, paragraph, read_former
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.storage import Storage, printable
from corpusmill.pipeline.store.url_secrets import refuse_secrets
from corpusmill.pipeline.watch.live import Live
from corpusmill.pipeline.watch.meters import Counting, Meter
from corpusmill.pipeline.watch.observer import Observer
from corpusmill.pipeline.watch.outcome import Outcome
from corpusmill.pipeline.watch.progress import Progress

RUN_FILE = "run.json"
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

    def __post_init__(self) -> None:
        for path in (self.folder, *self.inputs):
            if printable(path) != path:
                raise InputError(f"{printable(path)}: this name is not UTF-8, so no report could say it; rename it.")
        refuse_secrets(self.folder, "--output")
        refuse_secrets(self.inputs, "an input")
        refuse_secrets({name: section.model_dump(mode="json") for name, section in self.sections.items()}, "the recipe")

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


@dataclass
class Watching:
    """Who else wants to know what happens: `outcome` what became of it, `meters` counts, `after_phase` when a phase has ended."""

    outcome: Outcome
    meters: Sequence[Meter] = ()
    after_phase: Callable[[], None] = lambda: None


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
    raw, inputs = stored_recipe(folder)
    for override in overrides:
        apply_override(raw, override)
    return Plan(folder, validate_recipe(raw, Storage(folder).path(RUN_FILE)), inputs, first, last, dry_run, strict)


def stored_recipe(folder: str) -> tuple[dict[str, Any], list[str]]:
    """The resolved recipe and the inputs of a run as `run.json` has them; nothing that they name is loaded. Raises InputError."""
    storage = Storage(folder)
    if not storage.exists(RUN_FILE):
        raise InputError(f"{folder}: not a run (it has no {RUN_FILE}); start one with: corpusmill run RECIPE INPUT --output {folder}")
    path = storage.path(RUN_FILE)
    try:
        stored = json.loads(storage.read_bytes(RUN_FILE))
        raw, inputs = dict(stored["recipe"]), list(stored["inputs"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: not a run description ({type(error).__name__}: {error}).") from error
    return raw, inputs


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


def execute(
    plan: Plan,
    engine: Engine,
    progress: Progress,
    say: Callable[[str], None],
    on_stage: Callable[[StageResult], None],
    watching: Watching | None = None,
) -> str:
    """Carries out the plan. `say` gets sentences worth knowing, `on_stage` each finished stage. Returns a sentence that names the tasks
    that stages were finished without; none: nothing."""
    watching = watching or Watching(Outcome(plan.folder))
    names = plan.stages()
    storage = Storage(plan.folder)
    lost: list[tuple[str, Quarantined]] = []
    try:
        with holding(storage, say) as lease:
            live = Live(storage, names, engine, plan.dry_run, lambda: lease.lost is None)
            observer = Observer(storage, live, Counting(watching.meters), after_phase=watching.after_phase)
            with observer.attempt(names, lease), live:
                _describe_again(plan, storage, names, observer, say)
                _abort_uploads(storage, observer)
                for name in names:
                    stage = stage_class(name)(plan.sections[name], plan.dry_run)
                    run = StageRun(stage, storage, dict(plan.sections), plan.inputs, engine, progress, observer, plan.strict)
                    run.hold(lease)
                    if name not in PARALLEL:
                        engine.close()  # training needs the memory and the cores that idle workers hold
                    with watching.outcome.stage(run):
                        run.execute()
                    quarantined = list(run.manifest.quarantined.values())
                    lost += [(name, row) for row in quarantined]
                    on_stage(StageResult(name, run.performed, run.seconds, stage.summary(run), quarantined))
                _abort_uploads(storage, observer)  # of workers that died meanwhile
    finally:
        engine.close()
    return told_lost(lost)


def _abort_uploads(storage: Storage, observer: Observer) -> None:
    """Gives up what killed processes have left half sent. Whoever may not, or whose server does not know how, works on all the same."""
    if not storage.remote:
        return
    try:
        storage.store.abort_uploads()
    except (OSError, CorpusmillError) as error:
        observer.log.write("note", f"Parts of uploads that were broken off may be left: {error}", "warning")


def _describe_again(plan: Plan, storage: Storage, names: Sequence[str], observer: Observer, say: Callable[[str], None]) -> None:
    """Writes `run.json`, and says what of a run that is gone on with is done again, and what is left as it is."""

    def note(sentence: str) -> None:
        observer.log.write("note", sentence, "warning")
        say(sentence)

    description = describe(plan)
    before = storage.read_bytes(RUN_FILE) if storage.exists(RUN_FILE) else None
    former = read_former(before)
    expected = expect(storage, former, plan.sections, plan.inputs, names) if before is not None else []
    observer.log.write("configuration", fields=configuration(former, json.loads(description)))
    for each in expected:
        observer.log.write("expected", each.sentence, stage=each.stage, fields={"state": each.state, "tasks": each.tasks})
    if told := paragraph(expected):
        note(told)
    for name in plan.sections:
        if names and list(STAGES).index(name) < list(STAGES).index(names[0]):
            _warn_if_stale(storage, name, plan.sections[name], note)
    if not plan.dry_run and before != description:
        storage.write_bytes(RUN_FILE, description)


def _warn_if_stale(storage: Storage, name: str, section: Config, say: Callable[[str], None]) -> None:
    manifest = Manifest(storage.child(name))
    digest, rows = config_digest(section), manifest.rows()
    if rows and all(row.config != digest for row in rows):  # one phase at least depends on all of the section
        say(f"{name}: finished under another configuration and left as it is (start from it with --from {name}).")
