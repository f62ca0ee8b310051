"""Who is told of all that happens in a run, and says it on: to the terminal, the log, `progress.json`, the counts, `errors.log`."""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import corpusmill
from corpusmill.pipeline.engine import Done
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.interrupts import of_an_interrupt
from corpusmill.pipeline.lease import Lease
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.retry import Failed
from corpusmill.pipeline.stage import Piece
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.events import Event, OnEvent, print_event
from corpusmill.pipeline.watch.growing import ERRORS, METRICS, Growing
from corpusmill.pipeline.watch.live import Live
from corpusmill.pipeline.watch.log import RunLog
from corpusmill.pipeline.watch.meters import Counting, documents_of

LEVELS = {"waiting": "warning", "quarantine": "error"}


class Observer:
    """Of one run, while one process works on it. `live`: who works on it, and how far it is; `after_phase` is called as each phase ends."""

    def __init__(
        self,
        run: Storage,
        live: Live | None = None,
        counting: Counting | None = None,
        tell: OnEvent = print_event,
        after_phase: Callable[[], None] = lambda: None,
    ):
        self.live, self.tell, self.after_phase = live, tell, after_phase
        self.counting = counting or Counting(())
        self.log = RunLog(run)
        self._errors, self._measures = Growing(run, ERRORS), Growing(run, METRICS)

    @contextmanager
    def attempt(self, stages: Sequence[str], lease: Lease) -> Iterator[None]:
        """One process' work on the run for the time of the block."""
        version, before = corpusmill.__version__, lease.before
        self.counting.run(self.log.run, version)
        self.log.write("run_begin", fields={"version": version, "process": os.getpid(), "stages": list(stages)})
        if before is not None:
            self.log.write(
                "lease_taken_over", f"This run was left by {before.words}.", "warning", fields={"host": before.host, "process": before.pid}
            )
        started = time.monotonic()
        event, message, level = "run_end", "", "info"
        try:
            yield
        except BaseException as error:
            event, level = ("interrupted", "warning") if of_an_interrupt(error) else ("run_failed", "error")
            message = str(error) if isinstance(error, CorpusmillError) else f"{type(error).__name__}: {error}".rstrip(": ")
            if lease.lost is not None:  # which interrupts this process as Ctrl-C does
                event, level, message = "lease_lost", "error", lease.lost
            raise
        finally:
            self.log.write(event, message, level, fields={"seconds": round(time.monotonic() - started, 3)})
            self.flush()

    # ---- stages and phases ------------------------------------------------------------------------------

    @contextmanager
    def stage(self, name: str, manifest: Manifest) -> Iterator[None]:
        """A stage for the time of the block."""
        if self.live:
            self.live.stage(name)
        self.log.write("stage_begin", stage=name)
        started = time.monotonic()
        yield
        documents = documents_of(manifest)
        self.counting.stage_ends(name, documents)
        self.log.write("stage_end", stage=name, fields={"seconds": round(time.monotonic() - started, 3), "documents": documents})
        self.flush()

    @contextmanager
    def phase(
        self, stage: str, name: str, pieces: Sequence[Piece], todo: Sequence[Piece], manifest: Manifest, workers: int | None
    ) -> Iterator[None]:
        """A phase for the time of the block: all of its pieces, and those of them that are not finished yet. `workers`: None where it is
        not known how many there will be."""
        if self.live:
            self.live.phase_begins(stage, name, pieces, todo, manifest)
        self.counting.phase_begins(stage, name, len(pieces), len(todo), workers)
        self.log.write(
            "phase_begin", stage=stage, phase=name, fields={"tasks": len(todo), "taken_over": len(pieces) - len(todo), "workers": workers}
        )
        started = time.monotonic()
        ended = "broken_off"
        try:
            yield
            ended = "done"
        finally:
            seconds = time.monotonic() - started
            self.counting.phase_ends(stage, name, seconds)
            self.log.write("phase_end", stage=stage, phase=name, fields={"seconds": round(seconds, 3), "ended": ended})
            self.flush()
            self.after_phase()
            if self.live and ended == "done":
                self.live.phase_ends()

    # ---- tasks --------------------------------------------------------------------------------------------

    def done(self, stage: str, phase: str, done: Done) -> None:
        """A task is finished, and its row is in the manifest."""
        self.counting.done(stage, phase, done)
        numbers = {name: getattr(done, name) for name in ("rows_in", "kept", "dropped", "bytes_in", "peak_mb")}
        self.log.write(
            "task", stage=stage, phase=phase, task=done.key, node=done.node, fields=numbers | {"seconds": round(done.seconds, 3)}
        )

    def failed(self, stage: str, phase: str, failed: Failed) -> None:
        """A task has failed for the last time."""
        self.counting.failed(stage, phase)
        self._write_error(stage, failed.key, failed.trace)
        self.log.write(
            "failure", failed.message, "error", stage, phase, failed.key, fields={"cause": failed.cause.value, "tries": failed.tries}
        )

    def event(self, event: Event) -> None:
        """Something that an engine or the runner says (events.py)."""
        self.counting.event(event)
        if event.task and event.kind != "quarantine":  # whose trace is there already
            self._write_error(event.stage, event.task, event.message)
        fields = {name: value for name, value in event.fields.items() if name != "trace"}
        level = LEVELS.get(event.kind, "warning")
        self.log.write(event.kind, event.message, level, event.stage, event.phase, event.task, str(fields.pop("node", "")), fields)
        self.tell(event)

    def measured(self, row: dict[str, Any]) -> None:
        """A line of metrics.jsonl."""
        self._measures.append(json.dumps(row) + "\n")

    def flush(self) -> None:
        """What waits to be written to a store is written."""
        for file in (self.log, self._errors, self._measures):
            file.flush()

    def _write_error(self, stage: str, task: str, text: str) -> None:
        """A line with stage and task, the text, and a blank line, by which whoever counts them knows the next."""
        self._errors.append(f"{stage} {task}\n{text.rstrip()}\n\n")
        self._errors.flush()
