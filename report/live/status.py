"""Finds out how far a run is and whether a process works on it, from its manifests and its event files (pipeline/watch/log.py).

A task's time is that of its files, so the clocks of the writing and the watching machine must agree. Nothing is written.
"""

import re
import statistics
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.lease import look
from corpusmill.pipeline.manifest import MANIFEST, OBJECTS, Quarantined, object_names, read_row
from corpusmill.pipeline.recipe import STAGES
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.log import ERRORS, METRICS, PROGRESS, last_written, read_appended
from corpusmill.report.queries.training import as_number
from corpusmill.report.read import DATA_STAGES, TRAINED, RunReader

# ---- a stage's manifest, looked at again and again -----------------------------------------------------

#: Warnings of a task whose texts are kept.
WORDS_KEPT = 20
_BROKEN = (ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True)
class FinishedTask:
    """A finished task from its manifest row. `place`: where the row begins: a byte of the file, or the row's number on a store."""

    place: int
    task: str
    rows_in: int
    kept: int
    bytes_in: int
    input_bytes: int
    warnings: int
    documents: bool  # whether it wrote documents
    output: str | None  # one of its files
    written: float | None = None  # seconds since 1970, where the store gives it
    first_warnings: tuple[str, ...] = ()  # the texts of its first warnings


class ManifestTail:
    """Follows the manifest of a stage. `tasks`: the last row of each task. `rows`: all task rows in order. `bad`: the number of invalid
    rows."""

    def __init__(self, storage: Storage):
        self.storage = storage
        self._size = 0
        self._objects: dict[int, tuple[Any, list[bytes]]] = {}  # by the number of the first row: the object's stamp, its rows
        self._written: dict[str, float | None] = {}
        self._forget()

    def _forget(self) -> None:
        self.rows: list[FinishedTask] = []
        self.tasks: dict[str, FinishedTask] = {}
        self.plan: list[str] | None = None  # the tasks of a complete stage
        self.quarantined: dict[str, Quarantined] = {}  # tasks that were given up
        self.bad = 0

    @property
    def complete(self) -> bool:
        return self.plan is not None

    def finished(self) -> list[FinishedTask]:
        """Returns the tasks of the plan where the stage is complete, else the last row of each task."""
        return list(self.tasks.values()) if self.plan is None else [self.tasks[task] for task in self.plan if task in self.tasks]

    def update(self) -> None:
        """Reads the manifest again where it has changed. Raises OSError if the store can't be read."""
        rows = self._changed_objects() if self.storage.remote else self._changed_lines()
        if rows is not None:
            self._forget()
            for place, content, written in rows:
                try:
                    self._take(content, place, written)
                except _BROKEN:
                    self.bad += 1

    def _changed_lines(self) -> list[tuple[int, bytes, float | None]] | None:
        size = max(0, self.storage.size(MANIFEST))
        if size == self._size:
            return None
        self._size, place = size, 0
        found: list[tuple[int, bytes, float | None]] = []
        for line in self.storage.read_bytes(MANIFEST).splitlines(keepends=True) if size else ():
            if line.endswith(b"\n"):  # a line without it is still being written
                found.append((place, line, None))
            place += len(line)
        return found

    def _changed_objects(self) -> list[tuple[int, bytes, float | None]] | None:
        """Returns the rows of all objects in order; None if nothing has changed. An object's name has the number of its first row. For a
        time, an object may exist beside a larger one into which it was merged, so its rows occur twice."""
        stamps = self.storage.stamps(OBJECTS)
        names = object_names(list(stamps))
        new = [first for first, name in names.items() if first not in self._objects or self._objects[first][0] != stamps[name]]
        if not new and len(names) == len(self._objects):
            return None
        try:
            for first in new:
                self._objects[first] = stamps[names[first]], self.storage.read_bytes(f"{OBJECTS}/{names[first]}").splitlines()
        except FileNotFoundError:  # it was merged into another object, which the next call reads
            return None
        self._objects = {first: self._objects[first] for first in sorted(names)}
        rows = {first + n: (line, stamp[0]) for first, (stamp, lines) in self._objects.items() for n, line in enumerate(lines)}
        return [(place, *rows[place]) for place in sorted(rows)]

    def _take(self, content: bytes, place: int, written: float | None) -> None:
        row = parse_json(content)
        kind = row["kind"]
        if kind in ("complete", "reopened"):
            self.plan = [str(task) for task in row["tasks"]] if kind == "complete" else None
            if kind == "complete":
                self.quarantined = {task: self.quarantined[task] for task in row.get("quarantined", ())}
        elif kind == "quarantined":
            self.quarantined[str(row["task"])] = read_row(content)[1]
            self.tasks.pop(str(row["task"]), None)
        elif kind == "task":
            paths = [str(output["path"]) for output in row["outputs"]]
            done = FinishedTask(
                place, str(row["task"]), int(row["rows_in"]), int(row["kept"]), int(row["bytes_in"]),
                sum(int(ref["bytes"]) for ref in row["inputs"]), len(row["warnings"]),
                any(path.startswith("data/") for path in paths), paths[-1] if paths else None, written,
                tuple(str(text) for text in row["warnings"][:WORDS_KEPT]),
            )  # fmt: skip
            self.rows.append(done)
            self.tasks[done.task] = done
            self.quarantined.pop(done.task, None)

    def since(self, place: int) -> list[FinishedTask]:
        """Returns the tasks whose rows begin at `place` or later, in order."""
        first = next((at for at in range(len(self.rows), 0, -1) if self.rows[at - 1].place < place), 0)
        return self.rows[first:]

    def written(self, row: FinishedTask) -> float | None:
        """Returns when a task of a local run wrote its last file, in seconds since 1970; None if the file is missing."""
        if row.written is None and row.output is not None and row.output not in self._written:
            try:
                self._written[row.output] = Path(self.storage.path(row.output)).stat().st_mtime
            except OSError:
                self._written[row.output] = None
        return row.written if row.output is None or row.written is not None else self._written[row.output]

    def last_written(self) -> float | None:
        """Returns when the last row was written, in seconds since 1970; None if there is none, or the store does not tell."""
        if self.storage.remote:
            return max((row.written for row in self.rows if row.written is not None), default=None)
        return self.storage.times().get(MANIFEST)


# ---- what goes on, and what has failed -----------------------------------------------------------------

#: Failures that are shown, and the bytes at the end of the log that are read for them.
SHOWN, END = 5, 1 << 20
_HEAD = re.compile(rf"(?:\A|\n\n)(?P<stage>{'|'.join(STAGES)}) (?P<task>[^\n]*)\n")


def read_failures(run: Storage, progress: dict[str, Any] | None) -> dict[str, Any]:
    """Counts the failures in errors.log; for the last ones returns stage, task, and the last line of the trace."""
    heads = list(_HEAD.finditer(text := _log(run)))
    ends = [*(head.start() for head in heads[1:]), len(text)][: len(heads)]
    failures = [
        {"stage": head["stage"], "task": safe_line(head["task"], 200), "message": safe_line(_last_line(text[head.end() : end]), 400)}
        for head, end in zip(heads, ends, strict=True)
    ]
    last = progress["failure"] if progress else None
    return {"count": max(len(failures), int(last is not None)), "last": failures[-SHOWN:], "sentence": last}


def _log(run: Storage) -> str:
    """Returns the end of the log, from the beginning of a failure on."""
    try:
        return read_appended(run, ERRORS, END).decode("utf-8", "replace")
    except (OSError, CorpusmillError):
        return ""


def _last_line(trace: str) -> str:
    return next((line for line in reversed(trace.splitlines()) if line.strip()), "")


#: Bytes at the end of a log that are read, and steps over which the speed is a median.
TRAINING_END, STEPS = 1 << 16, 20
SPEED, STEP = "logs/speed.jsonl", "logs/train.jsonl"


def read_training(run: Storage, settings: dict[str, Any], phase: dict[str, Any], now: float) -> dict[str, Any] | None:
    """Returns steps done of all, loss, tokens/s and time left; None if no training runs, or it has taken no step yet."""
    storage = run.child(phase["stage"])
    if phase["stage"] not in TRAINED or storage.remote:
        return None
    written = storage.times("logs").get("speed.jsonl")
    if written is None or written < seconds_of(phase["began"]):  # the log of an earlier training
        return None
    speed, steps = _last(storage, SPEED), _last(storage, STEP)
    if not speed or not steps:
        return None
    loop = settings.get("loop")
    planned = speed[-1].get("steps") or (loop.get("steps") if isinstance(loop, dict) else None)
    fast = [value for line in speed[-STEPS:] if (value := as_number(line.get("tokens_per_second"))) is not None]
    left = as_number(speed[-1].get("seconds_left"))
    bits = [value for line in steps if (value := as_number(line.get("validation_bits_per_byte"))) is not None]
    return {
        "stage": phase["stage"], "steps_done": steps[-1]["step"] + 1, "steps": planned, "loss": steps[-1].get("loss"),
        "validation_bits_per_byte": bits[-1] if bits else None,
        "tokens_per_second": round(statistics.median(fast), 1) if fast else None,
        "seconds_left": None if left is None else round(max(0.0, left - max(0.0, now - written)), 1),
    }  # fmt: skip


def _last(storage: Storage, path: str) -> list[dict[str, Any]]:
    """Returns the last whole lines of a log that are steps."""
    size = storage.size(path)
    if size <= 0:
        return []
    with storage.open_read(path) as file:
        file.seek(max(0, size - TRAINING_END))
        lines = file.read(TRAINING_END).split(b"\n")[1 if size > TRAINING_END else 0 : -1]
    found = []
    for line in lines:
        try:
            row = parse_json(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            found.append(row)
    return found


#: Seconds over which the latest speed and the time left are computed (both at most the whole phase).
LATEST, RECKONED = 60.0, 300.0
#: With fewer finished tasks than this in `RECKONED`, the time left is computed over the whole phase.
ENOUGH = 3


def seconds_of(time: str) -> float:
    """Converts ISO 8601 to seconds since 1970."""
    return datetime.fromisoformat(time).timestamp()


def read_phase(tail: ManifestTail, phase: dict[str, Any], now: float) -> dict[str, Any]:
    """Returns the state of the run's present phase. Its `planned` tasks are those `before` (by an earlier process), those `done` since, and
    the rest.

    Speeds are None until a task is done. `seconds_left`: the rest, weighted by the tasks' input bytes where known, at the speed of the last
    five minutes.
    """
    rows = tail.since(phase["manifest"])[: phase["tasks"]]
    seconds = max(now - seconds_of(phase["began"]), 1e-3)
    weights = [_weight(row, phase) for row in rows]
    by_bytes = phase["bytes"] > 0 and (not rows or sum(weights) > 0)
    before, whole, done = (
        (phase["bytes_before"], phase["bytes"], sum(weights)) if by_bytes else (phase["before"], phase["tasks"], len(rows))
    )
    share = min(1.0, (before + done) / (before + whole)) if before + whole else 0.0
    latest = _latest(tail, rows, now - min(LATEST, seconds))
    recent = _latest(tail, rows, now - min(RECKONED, seconds))
    counts = {"planned": phase["before"] + phase["tasks"], "before": phase["before"], "done": len(rows), "left": phase["tasks"] - len(rows)}
    found = {
        **{name: phase[name] for name in ("stage", "phase", "began", "workers")}, "seconds": round(seconds, 3), "tasks": counts,
        "rows": sum(row.rows_in for row in rows), "bytes": sum(row.bytes_in for row in rows),
        "warnings": sum(row.warnings for row in rows), "share": share, "share_of": "bytes" if by_bytes else "tasks",
        "whole": _speed(rows, seconds), "latest": _speed(latest, min(LATEST, seconds)) | {"over_seconds": round(min(LATEST, seconds), 1)},
        "seconds_left": None,
    }  # fmt: skip
    if len(rows) == phase["tasks"]:
        found["seconds_left"] = 0.0
    elif rows:
        some, over = (recent, min(RECKONED, seconds)) if len(recent) >= ENOUGH else (rows, seconds)
        speed = (sum(_weight(row, phase) for row in some) if by_bytes else len(some)) / over
        found["seconds_left"] = round((whole - done) / speed, 3) if speed > 0 else None
    return found


def _weight(row: FinishedTask, phase: dict[str, Any]) -> int:
    """Returns the bytes that the task has read, in the measure in which the run counts all tasks."""
    return row.bytes_in if phase["bytes_are"] == "bytes_in" else row.input_bytes


def _latest(tail: ManifestTail, rows: list[FinishedTask], after: float) -> list[FinishedTask]:
    """Returns the last rows whose files were written after a time, up to the first whose time is unknown."""
    first = len(rows)
    while first and (tail.written(rows[first - 1]) or 0.0) >= after:
        first -= 1
    return rows[first:]


def _speed(rows: list[FinishedTask], seconds: float) -> dict[str, Any]:
    if not rows:
        return {"tasks": 0, "rows_per_second": None, "mb_per_second": None}
    size = sum(row.bytes_in for row in rows)
    return {
        "tasks": len(rows),
        "rows_per_second": round(sum(row.rows_in for row in rows) / seconds, 3),
        "mb_per_second": round(size / seconds / 1e6, 6) if size else None,
    }


#: The fields read from `progress.json`, and from each phase in it.
RUN_FIELDS = ("host", "process", "began", "ended", "failure", "stages", "stages_began", "phases")
PHASE = ("stage", "phase", "tasks", "before", "bytes", "bytes_before", "bytes_are", "manifest", "workers", "began", "ended")
#: States in which a run makes no more progress by itself, and those among them that are failures.
ENDED, BAD = ("complete", "stale", "stopped", "failed", "abandoned"), ("stale", "failed", "abandoned")


def read_status(folder: str) -> dict[str, Any]:
    """Returns the status of a run for JSON (docs/guides/looking.md). Raises InputError if `folder` is not a run."""
    return Status(folder).read()


def unfinished(folder: str) -> dict[str, Any] | None:
    """Returns the status of a run that has not finished; None if all its stages are complete, stale or not."""
    found = read_status(folder)
    return None if found["state"] in ("complete", "stale") and all(stage["status"] == "complete" for stage in found["stages"]) else found


class Status:
    """Reads the status of one run repeatedly; each call reads only the manifests that have changed."""

    def __init__(self, folder: str):
        self.storage = Storage(folder)
        self.tails = {name: ManifestTail(self.storage.child(name)) for name in STAGES}
        for tail in self.tails.values():
            tail.update()
        self._seen = self._finished()
        self.reader = RunReader(folder)

    def read(self) -> dict[str, Any]:
        """Returns the present status of the run."""
        progress, lease = self._progress(), look(self.storage)
        if progress and not progress["ended"] and lease["state"] == "free":  # the run may have ended between the two calls
            progress, lease = self._progress(), look(self.storage)
        lock = lease["state"]
        recipe = self._recipe(progress)
        for name in recipe:
            self.tails[name].update()
        now = time.time()
        open_ = progress is not None and progress["ended"] is None
        state = self._state(progress, lock, recipe)
        if self._finished() != self._seen:
            self._seen, self.reader = self._finished(), RunReader(self.storage.root)
        if self.reader.stale and state in ("complete", "stopped"):
            state = "stale"
        going = open_ and state in ("running", "unknown")
        current = progress["phases"][-1] if progress and going and progress["phases"] and progress["phases"][-1]["ended"] is None else None
        stage = self._stage_now(progress) if going else None
        found = {
            "run": self.storage.root, "state": state, "sentence": "", "stale": self._stale(), "lock": lock, "lease": lease,
            **{name: progress[name] if progress else None for name in ("host", "process", "began", "ended", "failure")},
            "seconds": None if state == "abandoned" else _between(progress, now), "last_sign_seconds": self._last_sign(stage, now),
            "stages": [self._stage(name, progress, stage, going) for name in recipe], "phase": None, "training": None,
            "earlier_phases": [_earlier(phase) for phase in progress["phases"] if phase["ended"]] if progress else [],
        }  # fmt: skip
        if current is not None:
            found["phase"] = read_phase(self.tails[current["stage"]], current, now)
            found["training"] = read_training(self.storage, self.reader.settings(current["stage"]), current, now)
        found["failures"] = read_failures(self.storage, progress)
        found["warnings"] = sum(row.warnings for tail in self.tails.values() for row in tail.finished())
        found["quarantined"] = [
            {"stage": name, "task": row.task, "inputs": [ref.path for ref in row.inputs], "message": row.message, "tries": row.tries}
            for name in recipe
            for row in self.tails[name].quarantined.values()
        ]
        started = progress is not None or any(tail.rows for tail in self.tails.values()) or self.storage.exists(PROGRESS)
        found["work_seconds"] = None if going else self._work()
        found["sentence"] = _sentence(found) if started or state == "running" else "Nothing has run yet."
        return found

    def _work(self) -> float:
        """Returns the seconds of all finished phases, over all commands that have worked on the run (`metrics.jsonl`)."""
        taken = [row.get("seconds") for row in self.reader.json_lines(METRICS)]
        return round(sum(seconds for seconds in taken if isinstance(seconds, int | float) and 0 <= seconds < 1e9), 1)

    def _finished(self) -> list[int]:
        """Returns a value that changes when a stage begins or ends; only then can another stage become stale."""
        return [len(tail.rows) if tail.complete else -1 for tail in self.tails.values()]

    def _stale(self) -> dict[str, Any] | None:
        stale = self.reader.stale
        return {"sentence": stale.sentence, "stages": stale.because, "mend": stale.mend} if stale else None

    def _progress(self) -> dict[str, Any] | None:
        """Returns the content of `progress.json`; None if it is missing or not valid."""
        try:
            progress = parse_json(self.storage.read_bytes(PROGRESS))
            whole: dict[str, Any] = {key: progress[key] for key in RUN_FIELDS}
            whole["stages"] = [name for name in whole["stages"] if name in STAGES]
            whole["phases"] = [{key: phase[key] for key in PHASE} for phase in whole["phases"] if phase["stage"] in STAGES]
            for part in (whole, *whole["phases"]):
                _ = [seconds_of(part[key]) for key in ("began", "ended") if key == "began" or part[key] is not None]
            _ = [phase[key] + 0 for phase in whole["phases"] for key in ("tasks", "before", "bytes", "bytes_before", "manifest")]
        except (OSError, CorpusmillError, ValueError, KeyError, TypeError):
            return None
        return whole

    def _recipe(self, progress: dict[str, Any] | None) -> list[str]:
        """Returns the stages of the recipe and those that have begun."""
        described = self.reader.description.get("recipe") or (self.reader.json("run.json", dict) or {}).get("recipe")
        wanted = {*(described if isinstance(described, dict) else ()), *(progress["stages"] if progress else ())}
        return [name for name in STAGES if name in wanted or self.reader.stages[name].status != "missing"]

    def _state(self, progress: dict[str, Any] | None, lock: str, recipe: list[str]) -> str:
        if lock == "held":
            return "running"
        if recipe and all(self.tails[name].complete for name in recipe):
            return "complete"
        if progress is None:
            if not any(tail.rows for tail in self.tails.values()):
                return "unknown"
            touched = any(tail.rows and not tail.complete for tail in self.tails.values())
            return "abandoned" if touched and lock in ("free", "expired") else "unknown" if touched else "stopped"
        if progress["ended"] is not None:
            return "failed" if progress["failure"] else "stopped"
        return "abandoned" if lock in ("free", "expired") else "unknown"

    @staticmethod
    def _stage_now(progress: dict[str, Any] | None) -> str | None:
        started = [name for name in STAGES if progress and name in progress["stages_began"]]
        return started[-1] if started else None

    def _stage(self, name: str, progress: dict[str, Any] | None, now: str | None, going: bool) -> dict[str, Any]:
        """Returns the status of one stage. Documents in and out are known for complete data stages."""
        tail = self.tails[name]
        asked = progress["stages"] if progress else []
        if name == now and not tail.complete:
            status = "running"
        elif tail.complete:
            status = "complete"
        elif going and name in asked:
            status = "to come"
        else:
            status = "unfinished" if tail.tasks else "not run"
        found: dict[str, Any] = {"name": name, "status": status, "tasks": len(tail.finished()), "documents_in": None, "documents_out": None}
        if status == "complete" and name in DATA_STAGES:
            rows = [row for row in tail.finished() if row.documents]
            found |= {"documents_in": sum(row.rows_in for row in rows), "documents_out": sum(row.kept for row in rows)}
        return found

    def _last_sign(self, stage: str | None, now: float) -> float | None:
        """Returns the seconds since the last sign of the run in its files; None if a store does not tell."""
        times = self.storage.times()
        signs = [times.get(PROGRESS), *(last_written(self.storage, name, times) for name in (METRICS, ERRORS))]
        for name in [stage] if stage else list(self.tails):
            signs.append(self.tails[name].last_written())
            if not self.storage.remote:
                signs += self.storage.child(name).times("logs").values()
        known = [sign for sign in signs if sign is not None]
        return round(max(0.0, now - max(known)), 1) if known else None


def unit_of(stage: str) -> str:
    """Returns the name of what comes into a data stage."""
    return "records" if stage == "ingest" else "documents"


def _between(progress: dict[str, Any] | None, now: float) -> float | None:
    """Returns the seconds from the run's start to its end, or to now where it still runs."""
    if progress is None:
        return None
    return round(max(0.0, (seconds_of(progress["ended"]) if progress["ended"] else now) - seconds_of(progress["began"])), 1)


def _earlier(phase: dict[str, Any]) -> dict[str, Any]:
    seconds = round(seconds_of(phase["ended"]) - seconds_of(phase["began"]), 1)
    return {"stage": phase["stage"], "phase": phase["phase"], "tasks": phase["tasks"], "seconds": seconds}


def _sentence(status: dict[str, Any]) -> str:
    """Returns the state in words, stale stages first."""
    stale = status["stale"]
    return " ".join(filter(None, [stale and stale["sentence"], _state_sentence(status)]))


def _state_sentence(status: dict[str, Any]) -> str:
    waiting = [stage["name"] for stage in status["stages"] if stage["status"] != "complete"]
    left = f" Not finished: {', '.join(waiting)}." if waiting else ""
    where = f"{status['host']}, process {status['process']}" if status["host"] else "unknown"
    if status["state"] == "running":
        return f"Running ({where})." if status["ended"] is None and status["host"] else "A command is working in this run."
    if status["state"] == "stale":
        return left.strip()
    if status["state"] == "complete":
        if empty := next((stage for stage in status["stages"] if stage["documents_out"] == 0), None):
            return f"Complete, but {empty['name']} has kept none of {empty['documents_in']:,} {unit_of(empty['name'])}."
        return f"Complete, but for tasks that were given up: {len(status['quarantined']):,}." if status["quarantined"] else "Complete."
    if status["state"] == "stopped":
        return f"The requested stages are done.{left}"
    if status["state"] == "failed":
        failure = str(status["failure"]).removesuffix(": ")  # an error without a message
        return "It was interrupted." if failure in ("KeyboardInterrupt", "Terminated") else f"It failed: {failure}"
    if status["state"] == "abandoned":
        return f"Unfinished, and no process works on it: the same command resumes it.{left}"
    age = status["last_sign_seconds"]
    sign = f"its last sign is {age:,.0f} seconds old" if age is not None else "and when it last wrote anything is not known"
    return f"It has not said that it ended; {sign}. Whether it still works can't be told from here ({where})."
