"""The log of a run, `RUN/log.jsonl`: one JSON object a line for all that happens, written by the process that carries the run out.

No text of a document and no credentials are in it: URLs lose their user and the values of their query, and sentences are cut. What a failed
task's exception says in full is in `errors.log`. docs/operations.md has the events.
"""

import json
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from corpusmill.pipeline.redact import redact, walked
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.growing import LOG, Growing

#: Characters of a sentence; a field has at most as many.
LONGEST = 600
LEVELS = ("info", "warning", "error")


def utc_now() -> str:
    """The time in UTC as ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class RunLog:
    """Lines of one process. On a store, those at `error` are written at once, others with the next `flush` or within half a minute."""

    def __init__(self, run: Storage, now: Callable[[], str] = utc_now):
        self.file, self.now = Growing(run, LOG), now
        self.run = clean(run.root.rstrip("/").rpartition("/")[2])
        self.node = platform.node()

    def write(
        self,
        event: str,
        message: str = "",
        level: str = "info",
        stage: str = "",
        phase: str = "",
        task: str = "",
        node: str = "",
        fields: dict[str, Any] | None = None,
    ) -> None:
        """Appends a line; `node` is by default the one on which this process runs."""
        line = {
            "time": self.now(), "level": level, "event": event, "run": self.run, "stage": stage, "phase": phase, "task": clean(task),
            "node": node or self.node, "message": clean(message), "fields": walked(fields or {}, clean),
        }  # fmt: skip
        self.file.append(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
        if level == "error":
            self.flush()

    def flush(self) -> None:
        self.file.flush()


def clean(text: str) -> str:
    """A text as the log may have it: on one line, nothing that a terminal obeys, URLs redacted, cut."""
    return safe_line(redact(text[: 4 * LONGEST]), LONGEST) if text else ""
