"""Finds out how far a run is and whether a process works on it, from its manifests, its lease, `progress.json` and its logs.

Nothing is written.
"""

import re
import statistics
import time
from datetime import datetime
from typing import Any

from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.lease import look
from corpusmill.pipeline.manifest import MANIFEST, OBJECTS
from corpusmill.pipeline.names import counted
from corpusmill.pipeline.recipe import STAGES
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.log import APPENDED, METRICS
from corpusmill.pipeline.watch.progress_file import PROGRESS
from corpusmill.report.queries.training import as_number
from corpusmill.report.read import DATA_STAGES, TRAINED, RunReader

#: The sentences that end a command which a user or the system has interrupted: no failures.
INTERRUPTED = ("KeyboardInterrupt", "Terminated")


def read_failures(progress: dict[str, Any] | None) -> dict[str, Any]:
    """Returns the failures of the present or last command: their number, the last ones, and the sentence that ended it."""
    told: dict[str, Any] = progress["failures"] if progress else {"count": 0, "last": []}
    last = progress["failure"] if progress else None
    failures = [{name: safe_line(str(one.get(name)), 400) for name in ("stage", "task", "message")} for one in told["last"]]
    ended_by = int(last is not None and last.removesuffix(": ") not in INTERRUPTED)
    return {"count": max(told["count"], ended_by), "last": failures, "sentence": last}


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


def seconds_of(time: str) -> float:
    """Converts ISO 8601 to seconds since 1970."""
    return datetime.fromisoformat(time).timestamp()


def read_phase(phase: dict[str, Any], now: float) -> dict[str, Any]:
    """Returns the state of the run's present phase. Its `planned` tasks are those `before` (by an earlier process), those `done` since, and
    the rest.

    Speeds are None until a task is done. `seconds_left`: the rest, weighted by the bytes that tasks read where known, at the speed so far.
    """
    seconds = max(now - seconds_of(phase["began"]), 1e-3)
    planned, before, done = phase["tasks"] + phase["taken_over"], phase["taken_over"], phase["done"]
    by_bytes = phase["size"] > 0 and (not done or phase["size_done"] > 0)
    earlier, whole, finished = (phase["size_taken_over"], phase["size"], phase["size_done"]) if by_bytes else (before, phase["tasks"], done)
    return {
        **{name: phase[name] for name in ("stage", "phase", "began", "workers", "rows", "bytes")}, "seconds": round(seconds, 3),
        "tasks": {"planned": planned, "before": before, "done": done, "left": phase["tasks"] - done},
        "share": min(1.0, (earlier + finished) / (earlier + whole)) if earlier + whole else 0.0,
        "share_of": "bytes" if by_bytes else "tasks",
        "rows_per_second": round(phase["rows"] / seconds, 3) if done else None,
        "mb_per_second": round(phase["bytes"] / seconds / 1e6, 6) if phase["bytes"] else None,
        "seconds_left": round(seconds * max(0, whole - finished) / finished, 3) if finished else None,
    }  # fmt: skip


#: The folder of a state that a training has saved, and the file that makes it whole: as in train/checkpoint.py, which imports torch.
_STATE, WHOLE = re.compile(r"step-(\d+)"), "state.json"


def saved_steps(run: Storage) -> dict[str, list[int]]:
    """Returns the steps after which the trainings of each stage have saved a state (`corpusmill export --step`)."""
    found: dict[str, set[int]] = {}
    for stage in TRAINED:
        folder = run.child(f"{stage}/checkpoints")
        for name in (state for training in folder.folders() for state in folder.folders(f"{training}/state")):
            if (step := _STATE.search(name)) and folder.exists(f"{name}/{WHOLE}"):
                found.setdefault(stage, set()).add(int(step[1]))
    return {stage: sorted(steps) for stage, steps in found.items()}


#: The fields read from `progress.json`, and from each phase in it.
RUN_FIELDS = ("host", "process", "began", "ended", "failure", "failures", "stages", "stages_began", "phases")
COUNTS = ("tasks", "taken_over", "done", "rows", "bytes", "size", "size_taken_over", "size_done")
PHASE = ("stage", "phase", *COUNTS, "workers", "began", "ended")
#: States in which a run makes no more progress by itself, and those among them that are failures.
BAD = ("stale", "interrupted", "failed", "abandoned")
ENDED = ("complete", "stopped", *BAD)


def read_status(folder: str) -> dict[str, Any]:
    """Returns the status of a run for JSON (docs/guides/looking.md). Raises InputError if `folder` is not a run."""
    return Status(folder).read()


def unfinished(folder: str) -> dict[str, Any] | None:
    """Returns the status of a run that has not finished; None if all its stages are complete, stale or not."""
    found = read_status(folder)
    return None if found["state"] in ("complete", "stale") and all(stage["status"] == "complete" for stage in found["stages"]) else found


def read_questions(run: Storage) -> list[dict[str, Any]]:
    """Returns what each step `llm` has asked of its server so far, over all commands and processes; answers that were kept do not count."""
    sums: dict[tuple[str, str], dict[str, Any]] = {}
    for path in run.list_files("filter/logs"):
        if not path.startswith("filter/logs/llm-"):
            continue
        try:
            row = run.read_json(path, dict)
            key = (str(row["step"]), str(row["model"]))
            found = sums.setdefault(key, {"step": key[0], "model": key[1], "questions": 0, "tokens_in": 0, "tokens_out": 0, "dollars": 0.0})
            found |= {name: found[name] + row[name] for name in ("questions", "tokens_in", "tokens_out", "dollars")}
        except (OSError, CorpusmillError, KeyError, TypeError):
            continue  # it is being written, or is no such file
    return [sums[key] for key in sorted(sums)]


class Status:
    """Reads the status of one run repeatedly. Its manifests are read again only where a stage or phase has begun or ended, and where no
    process is at work."""

    def __init__(self, folder: str):
        self.storage = Storage(folder)
        self._seen = self._marks(self._progress(), look(self.storage)["state"])
        self.reader = RunReader(folder)

    def read(self) -> dict[str, Any]:
        """Returns the present status of the run."""
        progress, lease = self._progress(), look(self.storage)
        if progress and not progress["ended"] and lease["state"] == "free":  # the run may have ended between the two calls
            progress, lease = self._progress(), look(self.storage)
        if (marks := self._marks(progress, lease["state"])) != self._seen:
            self.reader, self._seen = RunReader(self.storage.root), marks
        lock, now, recipe = lease["state"], time.time(), self._recipe(progress)
        state = self._state(progress, lock, recipe)
        if self.reader.stale and state in ("complete", "stopped"):
            state = "stale"
        going = progress is not None and progress["ended"] is None and state in ("running", "unknown")
        current = progress["phases"][-1] if progress and going and progress["phases"] and progress["phases"][-1]["ended"] is None else None
        stage = list(progress["stages_began"])[-1] if progress and going and progress["stages_began"] else None
        stages, stale = self.reader.stages, self.reader.stale
        found = {
            "run": self.storage.root, "state": state, "sentence": "", "lock": lock, "lease": lease,
            "stale": {"sentence": stale.sentence, "stages": stale.because, "mend": stale.mend} if stale else None,
            **{name: progress[name] if progress else None for name in ("host", "process", "began", "ended", "failure")},
            "seconds": None if state == "abandoned" else _between(progress, now), "last_sign_seconds": self._last_sign(stage, now),
            "stages": [self._stage(name, progress, stage, current) for name in recipe], "phase": None, "training": None,
            "earlier_phases": [_earlier(phase) for phase in progress["phases"] if phase["ended"]] if progress else [],
            "failures": read_failures(progress),
            "warnings": sum(len(task.warnings) for name in recipe for task in stages[name].tasks),
            "quarantined": [
                {"stage": name, "task": row.task, "inputs": [ref.path for ref in row.inputs], "message": row.message, "tries": row.tries}
                for name in recipe
                for row in stages[name].quarantined
            ],
            "work_seconds": None if going else self._work(), "questions": read_questions(self.storage),
        }  # fmt: skip
        if current is not None:
            found["phase"] = read_phase(current, now)
            found["training"] = read_training(self.storage, self.reader.settings(current["stage"]), current, now)
        started = progress is not None or any(stages[name].tasks for name in recipe) or self.storage.exists(PROGRESS)
        found["sentence"] = _sentence(found) if started or state == "running" else "Nothing has run yet."
        return found

    def _marks(self, progress: dict[str, Any] | None, lock: str) -> Any:
        """Returns a value that changes when a stage or phase begins or ends, and when manifests change while no process is at work."""
        if progress is not None and progress["ended"] is None and lock in ("held", "unknown"):
            ended = [(phase["stage"], phase["phase"], phase["ended"]) for phase in progress["phases"]]
            return progress["began"], progress["stages_began"], ended
        folders = [self.storage.child(name) for name in STAGES]
        return [sorted(of.stamps(OBJECTS).items()) if of.remote else (of.size(MANIFEST), of.times().get(MANIFEST)) for of in folders]

    def _work(self) -> float:
        """Returns the seconds of all phases, over all commands that have worked on the run (`metrics.jsonl`)."""
        taken = [row.get("seconds") for row in self.reader.json_lines(METRICS)]
        return round(sum(seconds for seconds in taken if isinstance(seconds, int | float) and 0 <= seconds < 1e9), 1)

    def _progress(self) -> dict[str, Any] | None:
        """Returns the content of `progress.json`; None if it is missing or not valid."""
        try:
            progress = parse_json(self.storage.read_bytes(PROGRESS))
            whole: dict[str, Any] = {key: progress[key] for key in RUN_FIELDS}
            whole["stages"] = [name for name in whole["stages"] if name in STAGES]
            whole["stages_began"] = [name for name in STAGES if name in whole["stages_began"]]
            whole["phases"] = [{key: phase[key] for key in PHASE} for phase in whole["phases"] if phase["stage"] in STAGES]
            whole["failures"] = {"count": whole["failures"]["count"] + 0, "last": [dict(one) for one in whole["failures"]["last"]]}
            for part in (whole, *whole["phases"]):
                _ = [seconds_of(part[key]) for key in ("began", "ended") if key == "began" or part[key] is not None]
            _ = [phase[key] + 0 for phase in whole["phases"] for key in COUNTS]
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
        states = [self.reader.stages[name].status for name in recipe]
        if recipe and all(state == "complete" for state in states):
            return "complete"
        if progress is None:
            if all(state == "missing" for state in states):
                return "unknown"
            touched = "unfinished" in states
            return "abandoned" if touched and lock in ("free", "expired") else "unknown" if touched else "stopped"
        if progress["ended"] is not None:
            failure = str(progress["failure"] or "").removesuffix(": ")  # an error without a message
            return "stopped" if not failure else "interrupted" if failure in INTERRUPTED else "failed"
        return "abandoned" if lock in ("free", "expired") else "unknown"

    def _stage(self, name: str, progress: dict[str, Any] | None, now: str | None, phase: dict[str, Any] | None) -> dict[str, Any]:
        """Returns the status of one stage. Documents in and out are known for complete data stages. `now`: the stage at work."""
        stage = self.reader.stages[name]
        tasks = max(len(stage.tasks), phase["taken_over"] + phase["done"] if phase and phase["stage"] == name else 0)
        complete = stage.status == "complete"
        to_come = now is not None and progress is not None and name in progress["stages"]
        status = "complete" if complete else "running" if name == now else "to come" if to_come else "unfinished" if tasks else "not run"
        found: dict[str, Any] = {"name": name, "status": status, "tasks": tasks, "documents_in": None, "documents_out": None}
        if complete and name in DATA_STAGES:
            rows = [row for row in stage.tasks if any(output.path.startswith("data/") for output in row.outputs)]
            found |= {"documents_in": sum(row.rows_in for row in rows), "documents_out": sum(row.kept for row in rows)}
        return found

    def _last_sign(self, stage: str | None, now: float) -> float | None:
        """Returns the seconds since the last sign of the run in its files; None if a store does not tell. `stage`: the one at work."""
        times = self.storage.times()
        signs = [times.get(name) for name in (PROGRESS, *APPENDED)]
        if not self.storage.remote:
            signs += [time for name in ([stage] if stage else STAGES) for time in self.storage.child(name).times("logs").values()]
        known = [sign for sign in signs if sign is not None]
        return round(max(0.0, now - max(known)), 1) if known else None


def unit_of(stage: str) -> str:
    """Returns the name of one of what comes into a data stage."""
    return "record" if stage == "ingest" else "document"


def _between(progress: dict[str, Any] | None, now: float) -> float | None:
    """Returns the seconds from the run's start to its end, or to now where it still runs."""
    if progress is None:
        return None
    return round(max(0.0, (seconds_of(progress["ended"]) if progress["ended"] else now) - seconds_of(progress["began"])), 1)


def _earlier(phase: dict[str, Any]) -> dict[str, Any]:
    seconds = round(seconds_of(phase["ended"]) - seconds_of(phase["began"]), 1)
    return {"stage": phase["stage"], "phase": phase["phase"], "tasks": phase["tasks"], "seconds": seconds}


def _sentence(status: dict[str, Any]) -> str:
    """Returns the state in words, stale stages first, on a line of their own: it ends with a command."""
    stale = status["stale"]
    return "\n".join(filter(None, [stale and stale["sentence"], _state_sentence(status)]))


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
            return f"Complete, but {empty['name']} has kept none of {counted(empty['documents_in'], unit_of(empty['name']))}."
        return f"Complete, but for tasks that were given up: {len(status['quarantined']):,}." if status["quarantined"] else "Complete."
    if status["state"] == "stopped":
        return f"The requested stages are done.{left}"
    if status["state"] == "interrupted":
        return f"It was interrupted; the same command goes on.{left}"
    if status["state"] == "failed":
        return f"It failed: {status['failure']}"
    if status["state"] == "abandoned":
        return f"Unfinished, and no process works on it: the same command resumes it.{left}"
    age = status["last_sign_seconds"]
    sign = f"its last sign is {age:,.0f} seconds old" if age is not None else "and when it last wrote anything is not known"
    return f"It has not said that it ended; {sign}. Whether it still works can't be told from here ({where})."
