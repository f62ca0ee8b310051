"""What became of a command that worked on a run, for the program that called it: one line, the last of its output."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from corpusmill.pipeline.errors import CorpusmillError, Incomplete, NothingKept
from corpusmill.pipeline.interrupts import of_an_interrupt
from corpusmill.pipeline.lease import LeaseLost
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.watch.log import clean
from corpusmill.pipeline.watch.meters import documents_of

#: What the line begins with, and how many given up tasks it names.
HEAD, NAMED = "summary: ", 20
FINISHED, QUARANTINED, EMPTY, FAILED, INTERRUPTED = "finished", "quarantined", "empty", "failed", "interrupted"


class Outcome:
    """Filled in as the command goes on, so that it can be told wherever that ends."""

    def __init__(self, run: str):
        self.started = time.monotonic()
        self.stages: dict[str, dict[str, Any]] = {}
        self.quarantined: list[dict[str, str]] = []
        self.told: dict[str, Any] = {"run": clean(run), "status": FINISHED, "exit_code": 0, "message": None}
        self.report: str | None = None

    @contextmanager
    def stage(self, run: StageRun) -> Iterator[None]:
        """A stage for the time of the block, however that ends."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._add(run, time.monotonic() - started)

    def _add(self, run: StageRun, seconds: float) -> None:
        """A stage has ended: finished, or as far as it came. Documents are known of finished stages that decide about them."""
        manifest = run.manifest
        documents = documents_of(manifest)
        self.stages[run.stage.name] = {
            "complete": manifest.complete, "tasks": len(manifest.tasks), "performed": run.performed,
            **{name: documents.get(fate) for name, fate in (("rows_in", "in"), ("kept", "kept"), ("dropped", "dropped"))},
            "bytes_in": run.bytes_in, "seconds": round(seconds, 3), "quarantined": len(manifest.quarantined),
        }  # fmt: skip
        self.quarantined += [
            {"stage": run.stage.name, "task": clean(row.task), "message": clean(row.message)} for row in manifest.quarantined.values()
        ]

    def ended(self, error: BaseException) -> None:
        """The command ends with this error."""
        status, code = FAILED, 1
        if isinstance(error, Incomplete):
            status, code = QUARANTINED, error.exit_code
        elif isinstance(error, NothingKept):
            status, code = EMPTY, error.exit_code
        elif not isinstance(error, LeaseLost) and of_an_interrupt(error):
            status, code = INTERRUPTED, getattr(error, "exit_code", 130)
        elif isinstance(error, CorpusmillError):
            code = error.exit_code
        message = str(error) if isinstance(error, CorpusmillError) else f"{type(error).__name__}: {error}".rstrip(": ")
        self.told |= {"status": status, "exit_code": code, "message": clean(message)}

    def line(self) -> str:
        seconds = round(time.monotonic() - self.started, 3)
        told = {**self.told, "seconds": seconds, "stages": self.stages, "quarantined": self.quarantined[:NAMED], "report": self.report}
        return HEAD + json.dumps(told)
