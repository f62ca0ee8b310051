"""Performs one stage of a run: reuses finished tasks, performs and records the others, and removes files that no task names."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from corpusmill.pipeline.code import Code, code_for
from corpusmill.pipeline.config import Config, config_digest
from corpusmill.pipeline.engine import Engine, Job, TaskDone, publish_output
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.events import Event, Events
from corpusmill.pipeline.failures import Failed, FailedTasks, failure, sentence_of
from corpusmill.pipeline.interrupts import ended_by_interrupts, of_an_interrupt
from corpusmill.pipeline.lease import Lease
from corpusmill.pipeline.lists import check_inputs
from corpusmill.pipeline.manifest import MANIFEST, FileRef, Manifest, Quarantined, RowSequence, TaskRow, task_identity
from corpusmill.pipeline.memory import forget_peak
from corpusmill.pipeline.recipe import STAGES
from corpusmill.pipeline.stage import Output, Stage, Task, Worker
from corpusmill.pipeline.storage import TEMPORARY, Storage
from corpusmill.pipeline.watch.log import RunLog
from corpusmill.pipeline.watch.progress import Progress

#: Stages whose `data/` are documents that the next one reads.
DATA_STAGES = ("ingest", "filter", "dedup")
#: Folders of a stage with working state: the manifest does not name their files, and only temporary files are removed from them.
WORKING = ("checkpoints/", "logs/", "manifest/")
#: Warnings of tasks that the end of a stage names.
WARNINGS = 20


# ---- files of a stage -------------------------------------------------------------------------------


class FinishedTasks:
    """Checks that the files of a stage's finished tasks are there, as the manifest says. On a store it lists each folder once: a request
    for each file would take as long as the work itself."""

    def __init__(self, storage: Storage, manifest: Manifest):
        self.storage, self.manifest = storage, manifest
        self._listed: dict[str, dict[str, int]] = {}

    def finished(self, task: str, identity: str) -> bool:
        """Whether the task was finished with this identity, and its files are there. For a task in `Manifest.doubtful`, whose files may
        come from another try, the digests of the files are compared, too."""
        if task not in self.manifest.tasks:
            return False
        row = self.manifest.tasks[task]
        if row.identity != identity or any(self._size(output.path) != output.bytes for output in row.outputs):
            return False
        return row.task not in self.manifest.doubtful or all(self.storage.sha256(output.path) == output.sha256 for output in row.outputs)

    def _size(self, path: str) -> int:
        if not self.storage.remote:
            return self.storage.size(path)
        folder, _, name = path.rpartition("/")
        if folder not in self._listed:
            self._listed[folder] = self.storage.listing(folder)
        return self._listed[folder].get(name, -1)


def remove_unnamed(storage: Storage, named: Iterable[str], spared: tuple[str, ...]) -> None:
    """Removes the leftovers of killed processes and of earlier plans: all files but the `named` ones and those whose paths begin with
    one of `spared`. Among the latter it removes only temporary files (`Storage.write_atomic`), which nobody would overwrite."""
    kept = set(named)
    for path in storage.list_files():
        if path.rpartition("/")[2].startswith(TEMPORARY) if path.startswith(spared) else path not in kept:
            storage.remove(path)


# ---- the stage --------------------------------------------------------------------------------------


class StageRun:
    """One stage of one run, as the stage sees it: its folder, its inputs, and the methods that perform tasks (`map`, `once`)."""

    def __init__(
        self,
        stage: Stage,
        run: Storage,
        recipe: dict[str, Any],
        inputs: list[str],
        engine: Engine,
        progress: Progress,
        events: Events | None = None,
        strict: bool = False,
    ):
        self.stage = stage
        self.run = run
        self.recipe = recipe  # the sections of the resolved recipe, by stage
        self.inputs = inputs  # paths and globs as the user gave them
        self.engine = engine
        self.progress = progress
        self.events = events or Events(progress, RunLog(run))
        self.strict = strict  # the first failure ends the run
        self.repairs = False  # the first damaged file ends the stage with Damaged, so that the run can make it anew
        self.storage = run.child(stage.name)
        self.manifest = Manifest(self.storage)
        self.lease: Lease | None = None
        self.before_work: Callable[[], None] = lambda: None  # called before tasks are performed, and not part of their time
        self._upstream: dict[str, Manifest] = {}  # manifests that were read: one with many tasks takes seconds
        self.config_digest = config_digest(stage.config)
        self.plan: list[str] = []
        self.without: list[str] = []  # quarantined tasks that the stage goes on without
        self.performed = self.bytes_in = 0  # tasks done by this process, and bytes that they have read
        self.seconds = 0.0

    def hold(self, lease: Lease) -> None:
        """Sets the lease that is checked before anything is recorded or published; it raises where another process holds the run."""
        self.lease = lease
        self.manifest.guard(lease.check)

    # ---- inputs -------------------------------------------------------------------------------------

    def upstream(self, stage: str) -> Manifest:
        """Returns the manifest of an earlier stage. Raises InputError if that stage is not complete."""
        if stage not in self._upstream:
            manifest = Manifest(self.run.child(stage), read_only=True)
            if not manifest.complete:
                what = f"the stage {stage} is not finished, so {self.stage.name} can't start"
                raise InputError(f"{self.run.path(stage)}: {what}; begin with --from {stage}.")
            self._upstream[stage] = manifest
        return self._upstream[stage]

    def outputs_of(self, stage: str, prefix: str) -> list[FileRef]:
        """Returns the files that a finished stage wrote below `prefix` (`data/`), in the order of its plan."""
        rows = self.upstream(stage).rows()
        return [row.ref(stage, o.path) for row in rows for o in row.outputs if o.path.startswith(prefix)]

    def documents(self) -> list[FileRef]:
        """Returns the document shards of the last data stage that the recipe has before this stage."""
        order = list(STAGES)
        for stage in reversed(order[: order.index(self.stage.name)]):
            if stage in DATA_STAGES and stage in self.recipe:
                return self.outputs_of(stage, "data/")
        raise InputError(f"{self.stage.name}: the recipe has no stage before it that gives documents; add `ingest: {{}}`.")

    # ---- tasks --------------------------------------------------------------------------------------

    def map(
        self,
        phase: str,
        worker: type[Worker],
        tasks: Sequence[Task],
        params: dict[str, Any] | None = None,
        config: Config | None = None,
        gpus: float = 0.0,
        allow_partial: bool = False,
        fail_fast: bool = True,
        most: int = 0,
    ) -> RowSequence:
        """Performs every unfinished task with `worker`. Returns the rows of all tasks that are then finished, in the order of `tasks`.

        `params` go to every worker of the phase. Like the parameters of a task, they are part of the identity of its tasks.
        `config` is the part of the stage's section that the phase depends on (default: all of it). Workers see nothing else of the
        section, so a change elsewhere does not redo their tasks.
        `gpus` is the share of a GPU for each worker, where there are GPUs. It is not part of a task's identity.
        `allow_partial`: the stage goes on without tasks that fail for good (`self.without`); else it ends when all others are done.
        `fail_fast`: the phase ends early where the first tasks all fail; if False, the stage may go on without any of them.
        `most`: the most workers at a time (0: all).
        """
        params = params or {}
        config = config or self.stage.config
        digest, code = config_digest(config), code_for(worker, config.model_dump(mode="json"), params)
        present = FinishedTasks(self.storage, self.manifest)
        identities = {task.key: self._identity(task, params, digest, code) for task in tasks}
        if len(identities) != len(tasks):
            raise ValueError(f"{self.stage.name}: two tasks of {phase} have one key")
        todo = {task.key: task for task in tasks if not present.finished(task.key, identities[task.key])}
        failures = FailedTasks(len(todo), len(tasks) - len(todo), self.strict, fail_fast, self.repairs)

        def report(result: TaskDone | Failed | Event) -> None:
            if isinstance(result, TaskDone):
                self._record(phase, todo[result.key], identities[result.key], result, digest, code)
                failures.worked += 1
            elif isinstance(result, Failed):
                self._tell_failed(phase, result)
                failures.add(result)
            else:
                self.events.tell(result)

        if todo:
            job = Job(
                self.stage.name, f"{worker.__module__}:{worker.__qualname__}", config, self.run.root, params, gpus, phase,
                worker.memory_mb, code, self.lease.mine.holder if self.lease else "", most,
            )  # fmt: skip
            with self._phase(phase, tasks, list(todo.values()), code):
                with self.manifest.grouped(), ended_by_interrupts():
                    self.engine.perform(job, list(todo.values()), report)
                rows = [
                    Quarantined(key, identities[key], list(task.inputs), failed.message, failed.tries)
                    for key, task in todo.items()
                    if (failed := failures.failed.get(key))
                ]
                for row in rows:
                    self.manifest.quarantine(row)
                    message = f"{sentence_of(self.stage.name, row)}; it is given up for now."
                    self.events.tell(Event("quarantine", self.stage.name, phase, row.task, message, "error", {"tries": row.tries}))
                if rows and not allow_partial:
                    raise failures.end(self.stage.name, rows)
                self.without += [row.task for row in rows]
        finished = [task.key for task in tasks if task.key not in self.manifest.quarantined]
        self.plan += finished
        return self.manifest.tasks.of(finished)

    def once(
        self,
        key: str,
        inputs: Sequence[FileRef],
        function: Callable[[str], Output],
        params: dict[str, Any] | None = None,
        config: Config | None = None,
        reads: bool = True,
    ) -> TaskRow:
        """Performs one task, named `key`, in this process, unless it is finished. Returns its row. `function` gets the task's
        identity, under which it may keep working state (`checkpoints/`). `config` is as for `map`. `reads`: whether `function` reads the
        inputs, so that they are compared with their manifest."""
        task = Task(key, tuple(inputs), params or {})
        config = config or self.stage.config
        digest, code = config_digest(config), code_for(function, config.model_dump(mode="json"), task.params)
        identity = self._identity(task, {}, digest, code)
        self.plan.append(key)
        if not FinishedTasks(self.storage, self.manifest).finished(key, identity):
            with self._phase(key, [task], [task], code, once=True):
                started = time.perf_counter()
                try:
                    with ended_by_interrupts():
                        if reads:
                            check_inputs(self.run, inputs)
                        output = function(identity)
                    done = publish_output(self.storage, key, output, started, fence=self.lease.check if self.lease else lambda: None)
                except CorpusmillError:
                    raise
                except Exception as error:
                    if of_an_interrupt(error):
                        raise
                    failed = failure(self.stage.name, task, error)
                    self._tell_failed(key, failed)
                    raise failed.error from error
                self._record(key, task, identity, done, digest, code)
        return self.manifest.tasks[key]

    def output(self, row: TaskRow) -> str:
        """Returns the path of the first file of a finished task, for this process to read. Raises Damaged."""
        path = row.outputs[0].path
        check_inputs(self.run, [row.ref(self.stage.name, path)])
        return path

    @staticmethod
    def _identity(task: Task, params: dict[str, Any], digest: str, code: Code) -> str:
        return task_identity(task.key, task.inputs, {**params, "piece": task.params}, digest, code.digest)

    @contextlib.contextmanager
    def _phase(self, name: str, tasks: Sequence[Task], todo: Sequence[Task], code: Code, once: bool = False) -> Iterator[None]:
        """Tells the begin and the end of a phase, whose `todo` tasks are performed in the block, and makes the manifest ready for them.
        `once`: a task of this process, which may show a progress of its own."""
        self.before_work()
        self.manifest.reopen(task.key for task in todo)
        self.manifest.describe_code(code.digest, code.as_json())
        size = sum(task.size for task in todo)
        fields = {"tasks": len(todo), "taken_over": len(tasks) - len(todo), "workers": 1 if once else self.engine.known_workers(),
                  "size": size, "size_taken_over": sum(task.size for task in tasks) - size, "once": once}  # fmt: skip
        forget_peak()  # else a phase that works in this process would have the greatest peak of all before it
        with self.events.span("phase", self.stage.name, name, fields) as of_end:
            yield
            of_end["workers"] = 1 if once else self.engine.workers
        self.seconds += of_end["seconds"]

    def _record(self, phase: str, task: Task, identity: str, done: TaskDone, digest: str, code: Code) -> None:
        row = TaskRow(
            task.key, identity, list(task.inputs), digest, code.digest, done.rows_in, done.kept, done.dropped, done.bytes_in,
            done.outputs, done.counts, done.warnings, done.failed,
        )  # fmt: skip
        self.manifest.append(row)
        self.performed += 1
        self.bytes_in += done.bytes_in
        fields = {name: getattr(done, name) for name in ("rows_in", "kept", "dropped", "bytes_in", "peak_mb", "children_mb")}
        fields |= {"seconds": round(done.seconds, 3), "size": task.size}
        self.events.tell(Event("task", self.stage.name, phase, task.key, fields=fields, node=done.node))

    def _tell_failed(self, phase: str, failed: Failed) -> None:
        fields = {"cause": failed.cause.value, "tries": failed.tries}
        self.events.tell(Event("failure", self.stage.name, phase, failed.key, failed.message, "error", fields, trace=failed.trace))

    # ---- the end ------------------------------------------------------------------------------------

    def execute(self) -> None:
        """Runs the stage, marks it complete, and removes files that no finished task of it names."""
        with self.events.span("stage", self.stage.name) as of_end:
            try:
                self.stage.execute(self)
                self.manifest.finish(self.plan, self.without)
                named = (output.path for row in self.manifest.rows() for output in row.outputs)
                remove_unnamed(self.storage, chain([MANIFEST], named), WORKING)
                of_end["summary"] = self.stage.summary(self)
            finally:
                of_end |= {
                    "complete": self.manifest.complete, "tasks": len(self.manifest.tasks), "performed": self.performed,
                    "documents": self.manifest.documents(), "bytes_in": self.bytes_in, "quarantined": len(self.manifest.quarantined),
                    "work_seconds": round(self.seconds, 3),
                    "warnings": list(islice((sentence for row in self.manifest.rows() for sentence in row.warnings), WARNINGS)),
                }  # fmt: skip
