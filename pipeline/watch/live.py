"""What a run says of itself while it works: `RUN/progress.json`, one small object that is written again as each phase begins.

It says who works on which stages, and of each phase how many tasks are planned and where the manifest ended when it began. How far
the phase is, whoever looks counts in the manifest (report/live/status.py): that costs a task nothing, on a disk and on a
store, and manifests stay free of times.
"""

import contextlib
import json
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import corpusmill
from corpusmill.pipeline.engine import Engine
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.redact import redact
from corpusmill.pipeline.stage import Piece
from corpusmill.pipeline.storage import TEMPORARY, Storage
from corpusmill.pipeline.watch.log import utc_now

PROGRESS = "progress.json"


class Live:
    """Open for the time in which a process carries out `stages` of a run; every method says what begins now.

    `is_ours` is asked before anything is written: who has lost the run to another process says no more of it.
    """

    def __init__(
        self, run: Storage, stages: Sequence[str], engine: Engine, dry_run: bool = False, is_ours: Callable[[], bool] = lambda: True
    ):
        self.run, self.engine, self.is_ours = run, engine, is_ours
        self.said: dict[str, Any] = {
            "corpusmill": corpusmill.__version__, "host": platform.node(), "process": os.getpid(), "dry_run": dry_run,
            "began": utc_now(), "ended": None, "failure": None, "stages": list(stages), "stages_began": {}, "phases": [],
        }  # fmt: skip

    def __enter__(self) -> "Live":
        self._write()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.said["ended"] = utc_now()
        if error is not None:
            self.said["failure"] = redact(str(error) if isinstance(error, CorpusmillError) else f"{type(error).__name__}: {error}")
        self._write()

    def stage(self, name: str) -> None:
        """A stage begins."""
        self.said["stages_began"][name] = utc_now()
        self._write()

    def phase_begins(self, stage: str, name: str, pieces: Sequence[Piece], todo: Sequence[Piece], manifest: Manifest) -> None:
        """A phase begins: all of its pieces, and those of them that are not finished yet."""
        unit, weigh = _weights(pieces)
        told = {
            "stage": stage, "phase": name, "tasks": len(todo), "before": len(pieces) - len(todo), "bytes": sum(map(weigh, todo)),
            "bytes_before": sum(map(weigh, pieces)) - sum(map(weigh, todo)), "bytes_are": unit, "manifest": manifest.place,
            "workers": self.engine.known_workers(), "began": utc_now(), "ended": None,
        }  # fmt: skip
        self.said["phases"].append(told)
        self._write()

    def phase_ends(self) -> None:
        """The latest phase has ended, which is written as soon as something else begins."""
        self.said["phases"][-1]["ended"] = utc_now()

    def _write(self) -> None:
        if not self.is_ours():
            return
        content = json.dumps(self.said, indent=1, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        with contextlib.suppress(OSError, CorpusmillError):  # a run does not end because it can't say how far it is
            if self.run.remote:
                self.run.write_bytes(PROGRESS, content)
                return
            temporary = Path(self.run.path(TEMPORARY + PROGRESS))  # one name, so that what a kill leaves is taken over by the next process
            temporary.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(content)
                temporary.replace(self.run.path(PROGRESS))
            except OSError:  # a full disk
                temporary.unlink(missing_ok=True)


def _weights(pieces: Sequence[Piece]) -> tuple[str, Callable[[Piece], int]]:
    """Bytes that each piece reads, and how the same is known of a finished task: pieces of crawl files name the bytes of their `segments`,
    which come out as the manifest's `bytes_in`; others read whole files, its `inputs`."""
    if all("segments" in piece.params for piece in pieces):
        return "bytes_in", lambda piece: sum(segment["bytes"] for segment in piece.params["segments"])
    return "inputs", lambda piece: sum(ref.bytes for ref in piece.inputs)
