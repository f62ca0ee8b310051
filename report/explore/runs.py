"""The list of the runs below a path. Of each run it reads what `status` reads: run.json, the manifests and the event files."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from corpusmill.pipeline.config import digest
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.manifest import MANIFEST
from corpusmill.pipeline.recipe import STAGES
from corpusmill.pipeline.storage import Storage
from corpusmill.report import machine
from corpusmill.report.live.status import Status
from corpusmill.report.read import NO_PAGE, RunReader

#: Folders are searched down to this depth below the path. A run's own folders are not searched.
DEPTH = 3
#: Questions to a store at the same time.
THREADS = 16
#: Seconds for which the names of runs are not searched again: local, on a store.
LOCAL, REMOTE = 2.0, 60.0
#: Seconds that an answer reads runs. The others come with the next answer.
BUDGET = 0.2
#: Characters of a name or sentence in a row, and inputs that it names.
SHORT, INPUTS = 300, 5
#: States in which a run may change at any time.
LIVE = ("running", "unknown")

Row = dict[str, Any]


def find_runs(storage: Storage) -> list[str]:
    """Returns the paths of the folders below a path that hold a `run.json`, sorted. Links and hidden folders are left out."""
    found, level = [], [""]
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(DEPTH):
            below = [name for names in pool.map(storage.folders, level) for name in names]
            are_runs = list(pool.map(lambda name: storage.exists(f"{name}/run.json"), below))
            found += [name for name, is_run in zip(below, are_runs, strict=True) if is_run]
            level = [name for name, is_run in zip(below, are_runs, strict=True) if not is_run]
    return sorted(found)


class RunList:
    """The rows of the list. A row is read again when the run's files have changed."""

    def __init__(self, storage: Storage):
        self.storage = storage
        self._names: tuple[float, list[str]] = (-REMOTE, [])
        self._rows: dict[str, tuple[Any, Row]] = {}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """Returns the names of all runs, from a search that is a few seconds old at most (on a store: a minute)."""
        searched, names = self._names
        if time.monotonic() - searched > (REMOTE if self.storage.remote else LOCAL):
            names = find_runs(self.storage)
            self._names = (time.monotonic(), names)
        return names

    def read(self) -> tuple[list[Row], int]:
        """Returns the rows of all runs after `BUDGET` seconds, and the number of runs that are not read yet: their rows have only names."""
        names, deadline = self.names(), time.monotonic() + BUDGET
        with self._lock:
            for name in sorted(names, key=lambda name: name in self._rows):  # new runs first
                if time.monotonic() > deadline and self._rows:
                    break
                self._update(name)
            self._rows = {name: self._rows[name] for name in names if name in self._rows}
            rows = [self._rows[name][1] if name in self._rows else _row(name, "not read yet") for name in names]
            return rows, len(names) - len(self._rows)

    def _update(self, name: str) -> None:
        stamp = run_stamp(self.storage.child(name))
        known = self._rows.get(name)
        if known is None or known[0] != stamp or known[1]["state"] in LIVE:
            self._rows[name] = (stamp, read_row(self.storage.path(name), name))


def run_stamp(run: Storage) -> str:
    """Returns a value that changes with the files from which a row is made. On a store only the files in the run's own folder count: one of
    them is written whenever a phase begins or ends."""
    manifests = () if run.remote else (run.size(f"{stage}/{MANIFEST}") for stage in STAGES)
    try:
        return str([sorted(run.times().items()), *manifests])
    except (CorpusmillError, OSError) as error:
        return str(error)


def _row(name: str, state: str) -> Row:
    figures: Row = {"kept": {}, **dict.fromkeys(("pages", "tokens", "began", "seconds", "stage", "share"))}
    return {"name": name, "state": state, "sentence": "", "recipe": "", "recipe_digest": "", "inputs": [], "more_inputs": 0, **figures}


def read_row(folder: str, name: str) -> Row:
    """Returns a run's row. That of a run that can't be read has a sentence and no figures. `kept`: by each data
    stage that is complete. `seconds`: of the work so far."""
    row = _row(name, "damaged")
    run = Storage(folder)
    try:
        described = _described(run)
        recipe, inputs = described["recipe"], [str(path) for path in described["inputs"]]
        row |= {
            "recipe": str(described.get("recipe_name") or "") or _words(recipe), "recipe_digest": digest(recipe)[:8],
            "inputs": inputs[:INPUTS], "more_inputs": max(0, len(inputs) - INPUTS), "tokens": _tokens(run),
        }  # fmt: skip
        status = Status(folder)
        found = status.read()
        phase, data = found["phase"], [stage for stage in found["stages"] if stage["documents_out"] is not None]
        row |= {
            "state": found["state"], "sentence": found["sentence"], "began": found["began"],
            "pages": _pages(status.reader, data[0]) if data else None, "kept": {stage["name"]: stage["documents_out"] for stage in data},
            "seconds": found["seconds"] if found["work_seconds"] is None else found["work_seconds"],
            "stage": phase and phase["stage"], "share": phase and phase["share"],
        }  # fmt: skip
    except (CorpusmillError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        row["sentence"] = f"It can't be read: {' '.join(str(error).split())}"
    shown: Row = machine.plain(row, SHORT)
    return shown


def _described(run: Storage) -> dict[str, Any]:
    """Returns the content of a run's `run.json`, which has a recipe and inputs. Raises InputError."""
    described: dict[str, Any] = run.read_json("run.json", dict)
    if not isinstance(described.get("recipe"), dict) or not isinstance(described.get("inputs"), list):
        raise InputError("run.json has no recipe and inputs.")
    return described


def _pages(reader: RunReader, first: dict[str, Any]) -> int:
    """Returns the pages that came into the run. `first`: the status of its first data stage, which counts all records."""
    return int(first["documents_in"]) - sum(task.failed.get(NO_PAGE, 0) for task in reader.stages[first["name"]].tasks)


def _words(recipe: dict[str, Any]) -> str:
    """Describes a recipe without a name, as one from Python, by the filter's steps."""
    return ", ".join(str(next(iter(step))) for step in (recipe.get("filter") or {}).get("steps") or [])


def _tokens(run: Storage) -> int | None:
    """Returns the tokens of all splits; None without any."""
    paths = [f"tokens/{split}/shards.json" for split in ("train", "validation")]
    counts = [run.read_json(path)["tokens"] for path in paths if run.exists(path)]
    return sum(counts) if counts else None
