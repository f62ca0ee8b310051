"""How far the phase is that is going on: tasks done of all, how fast, and how long it will take."""

from datetime import datetime
from typing import Any

from corpusmill.report.live.manifest_tail import Done, ManifestTail

#: Seconds over which the latest speed is told, and over which time left is reckoned (both at most the whole phase).
LATEST, RECKONED = 60.0, 300.0
#: With fewer tasks than this in `RECKONED` time left is reckoned over the whole phase.
ENOUGH = 3


def seconds_of(time: str) -> float:
    """ISO 8601 as seconds since 1970."""
    return datetime.fromisoformat(time).timestamp()


def read_phase(tail: ManifestTail, said: dict[str, Any], now: float) -> dict[str, Any]:
    """The phase that the run says it is in. `planned` tasks are `before` (done by an earlier process), `done` since, and those left.

    Speeds are None before there is anything to tell them by; `seconds_left` is what is left, weighted by the bytes that tasks read where
    they are known, at the speed of the last five minutes.
    """
    rows = tail.since(said["manifest"])[: said["tasks"]]
    seconds = max(now - seconds_of(said["began"]), 1e-3)
    weights = [_weight(row, said) for row in rows]
    by_bytes = said["bytes"] > 0 and (not rows or sum(weights) > 0)
    before, whole, done = (said["bytes_before"], said["bytes"], sum(weights)) if by_bytes else (said["before"], said["tasks"], len(rows))
    share = min(1.0, (before + done) / (before + whole)) if before + whole else 0.0
    latest = _latest(tail, rows, now - min(LATEST, seconds))
    recent = _latest(tail, rows, now - min(RECKONED, seconds))
    counts = {"planned": said["before"] + said["tasks"], "before": said["before"], "done": len(rows), "left": said["tasks"] - len(rows)}
    found = {
        **{name: said[name] for name in ("stage", "phase", "began", "workers")}, "seconds": round(seconds, 3), "tasks": counts,
        "rows": sum(row.rows_in for row in rows), "bytes": sum(row.bytes_in for row in rows),
        "warnings": sum(row.warnings for row in rows), "share": share, "share_of": "bytes" if by_bytes else "tasks",
        "whole": _speed(rows, seconds), "latest": _speed(latest, min(LATEST, seconds)) | {"over_seconds": round(min(LATEST, seconds), 1)},
        "seconds_left": None,
    }  # fmt: skip
    if len(rows) == said["tasks"]:
        found["seconds_left"] = 0.0
    elif rows:
        some, over = (recent, min(RECKONED, seconds)) if len(recent) >= ENOUGH else (rows, seconds)
        speed = (sum(_weight(row, said) for row in some) if by_bytes else len(some)) / over
        found["seconds_left"] = round((whole - done) / speed, 3) if speed > 0 else None
    return found


def _weight(row: Done, said: dict[str, Any]) -> int:
    """Bytes that the task has read, as the run has counted those of all tasks."""
    return row.bytes_in if said["bytes_are"] == "bytes_in" else row.input_bytes


def _latest(tail: ManifestTail, rows: list[Done], after: float) -> list[Done]:
    """The last rows whose files were written after a time; those of which that is not known are none."""
    first = len(rows)
    while first and (tail.written(rows[first - 1]) or 0.0) >= after:
        first -= 1
    return rows[first:]


def _speed(rows: list[Done], seconds: float) -> dict[str, Any]:
    if not rows:
        return {"tasks": 0, "rows_per_second": None, "mb_per_second": None}
    size = sum(row.bytes_in for row in rows)
    return {
        "tasks": len(rows),
        "rows_per_second": round(sum(row.rows_in for row in rows) / seconds, 3),
        "mb_per_second": round(size / seconds / 1e6, 6) if size else None,
    }
