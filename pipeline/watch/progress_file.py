"""`progress.json`: the process that works on a run, its stages, and how far each phase is. `corpusmill status` reads it."""

import contextlib
import json
import os
import platform
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import corpusmill
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.events import Event
from corpusmill.pipeline.redact import redact
from corpusmill.pipeline.storage import TEMPORARY, Storage
from corpusmill.pipeline.watch.log import clean, utc_now

PROGRESS = "progress.json"
#: The most failures that the file describes.
SHOWN = 5
#: Seconds after which the counts of finished tasks are written, in a folder and on a store.
EVERY, EVERY_ON_STORE = 0.5, 10.0


class ProgressFile:
    """Writes the file when a stage or phase begins or ends, and soon after a task is done.

    `is_ours` is called before each write: a process that has lost the run to another one writes no more.
    """

    def __init__(self, run: Storage, is_ours: Callable[[], bool] = lambda: True):
        self.run, self.is_ours = run, is_ours
        self.content: dict[str, Any] = {
            "corpusmill": corpusmill.__version__, "host": platform.node(), "process": os.getpid(),
            "began": utc_now(), "ended": None, "failure": None, "failures": {"count": 0, "last": []}, "stages": [], "stages_began": {},
            "phases": [],
        }  # fmt: skip
        self._mutex = threading.Lock()
        self._timer: threading.Timer | None = None

    def __call__(self, event: Event) -> None:
        with self._mutex:
            phase = self.content["phases"][-1] if self.content["phases"] else {}
            if event.trace:
                failures = self.content["failures"]
                failures["count"] += 1
                told = {"stage": event.stage, "task": event.task, "message": clean(event.message)}
                failures["last"] = [*failures["last"], told][-SHOWN:]
            match event.kind:
                case "task":
                    phase["done"] += 1
                    for name, counted in (("rows", "rows_in"), ("bytes", "bytes_in"), ("size_done", "size")):
                        phase[name] += event.fields[counted]
                    return self._write_soon()
                case "run_begin":
                    self.content["stages"] = event.fields["stages"]
                case "run_end" | "run_failed" | "interrupted" | "lease_lost":
                    self.content |= {"ended": utc_now(), "failure": None if event.kind == "run_end" else redact(event.message)}
                case "stage_begin":
                    self.content["stages_began"][event.stage] = utc_now()
                case "phase_begin":
                    counts = {"done": 0, "rows": 0, "bytes": 0, "size_done": 0}
                    self.content["phases"].append(
                        {"stage": event.stage, "phase": event.phase, **event.fields, **counts, "began": utc_now(), "ended": None}
                    )
                case "phase_end":
                    phase["ended"] = utc_now()
                case _:
                    return self._write_soon() if event.trace else None
            self._write()

    def _write_soon(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(EVERY_ON_STORE if self.run.remote else EVERY, self._write_late)
            self._timer.daemon = True
            self._timer.start()

    def _write_late(self) -> None:
        with self._mutex:
            if self._timer is not None and self.content["ended"] is None:
                self._write()

    def _write(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.is_ours():
            return
        content = json.dumps(self.content, indent=1, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        with contextlib.suppress(OSError, CorpusmillError):  # a failure here never ends a run
            if self.run.remote:
                self.run.write_bytes(PROGRESS, content)
                return
            temporary = Path(self.run.path(TEMPORARY + PROGRESS))  # a fixed name: the next process replaces a leftover
            try:
                temporary.write_bytes(content)
                temporary.replace(self.run.path(PROGRESS))
            except OSError:  # a full disk
                temporary.unlink(missing_ok=True)
