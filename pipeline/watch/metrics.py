"""Counts the events of a run, and passes the counts to Prometheus, to a text file, or to the metrics of a Ray cluster.

The names of the metrics follow OpenTelemetry in Prometheus' form: a unit at the end, and `_total` for counters.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from corpusmill.pipeline.engine import TaskDone
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.extras import require
from corpusmill.pipeline.failures import Event
from corpusmill.pipeline.manifest import Manifest

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
#: The upper bounds of the histogram of task durations, in seconds.
SECONDS = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
#: The method with which a metric of each kind takes a value, in Prometheus' library and in Ray's.
METHODS: dict[Kind, str] = {"counter": "inc", "gauge": "set", "histogram": "observe"}


@dataclass(frozen=True)
class Family:
    """A metric: its name (a counter's ends in `_total`), its kind, its description, and the names of its labels."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]


_PHASE = ("stage", "phase")
FAMILIES = {
    family.name: family
    for family in (
        Family("corpusmill_run_info", "gauge", "1, for the run and the version that works on it", ("run", "version")),
        Family("corpusmill_tasks_total", "counter", "Tasks that this process has finished", _PHASE),
        Family("corpusmill_tasks_taken_over_total", "counter", "Tasks that were finished before and not done again", _PHASE),
        Family("corpusmill_tasks_planned", "gauge", "Tasks of the phase, taken over ones included", _PHASE),
        Family("corpusmill_tasks_left", "gauge", "Tasks of the phase that are neither finished nor given up", _PHASE),
        Family("corpusmill_tasks_in_flight", "gauge", "Tasks that workers have now: at most as many as there are workers", _PHASE),
        Family("corpusmill_rows_total", "counter", "Rows of finished tasks: in, kept, dropped, from the manifest", (*_PHASE, "fate")),
        Family("corpusmill_read_bytes_total", "counter", "Bytes that finished tasks have read", _PHASE),
        Family("corpusmill_task_duration_seconds", "histogram", "Seconds that a finished task took its worker", _PHASE),
        Family("corpusmill_task_peak_memory_bytes", "gauge", "The most memory that a worker of the phase has taken", _PHASE),
        Family("corpusmill_phase_duration_seconds_total", "counter", "Seconds that phases took from begin to end", _PHASE),
        Family("corpusmill_retries_total", "counter", "Tasks tried again, by cause: retry, death, split, alone", (*_PHASE, "cause")),
        Family(
            "corpusmill_failures_total", "counter", "Failures of any kind: those that were tried again, and those that were not", _PHASE
        ),
        Family("corpusmill_tasks_quarantined_total", "counter", "Tasks that were given up", _PHASE),
        Family("corpusmill_documents", "gauge", "Documents of a finished stage: in, kept, dropped, from the report", ("stage", "fate")),
    )
}


class Meter(Protocol):
    """A destination of counts, such as Prometheus."""

    def add(self, family: Family, value: float, labels: Mapping[str, str]) -> None:
        """Adds to a counter, sets a gauge, or adds a value to a histogram. `labels` has a value for each label of the metric."""


# ---- counts ------------------------------------------------------------------------------------------


class Counting:
    """Turns the events of a run into counts, the same for all meters."""

    def __init__(self, meters: Sequence[Meter]):
        self.meters = meters
        self._left = self._peak = 0
        self._workers: int | None = None

    def run(self, run: str, version: str) -> None:
        self._each("corpusmill_run_info", 1, {"run": run, "version": version})

    def phase_begins(self, stage: str, phase: str, planned: int, todo: int, workers: int | None) -> None:
        labels = {"stage": stage, "phase": phase}
        self._left, self._peak, self._workers = todo, 0, workers
        self._each("corpusmill_tasks_planned", planned, labels)
        self._each("corpusmill_tasks_taken_over_total", planned - todo, labels)
        for name in ("corpusmill_tasks_total", "corpusmill_failures_total", "corpusmill_tasks_quarantined_total"):
            self._each(name, 0, labels)  # so that the series exists from the beginning
        self._count_left(labels)

    def phase_ends(self, stage: str, phase: str, seconds: float) -> None:
        labels = {"stage": stage, "phase": phase}
        self._left = 0
        self._count_left(labels)
        self._each("corpusmill_phase_duration_seconds_total", seconds, labels)

    def done(self, stage: str, phase: str, done: TaskDone) -> None:
        labels = {"stage": stage, "phase": phase}
        self._each("corpusmill_tasks_total", 1, labels)
        for fate, rows in (("in", done.rows_in), ("kept", done.kept), ("dropped", done.dropped)):
            self._each("corpusmill_rows_total", rows, {**labels, "fate": fate})
        self._each("corpusmill_read_bytes_total", done.bytes_in, labels)
        self._each("corpusmill_task_duration_seconds", done.seconds, labels)
        if done.peak_mb > self._peak:
            self._peak = done.peak_mb
            self._each("corpusmill_task_peak_memory_bytes", done.peak_mb << 20, labels)
        self._left -= 1
        self._count_left(labels)

    def failed(self, stage: str, phase: str) -> None:
        """Counts a task that has failed for the last time."""
        labels = {"stage": stage, "phase": phase}
        self._each("corpusmill_failures_total", 1, labels)
        self._left -= 1
        self._count_left(labels)

    def event(self, event: Event) -> None:
        labels = {"stage": event.stage, "phase": event.phase}
        if event.kind in ("retry", "death", "split", "alone"):
            self._each("corpusmill_failures_total", 1, labels)
            self._each("corpusmill_retries_total", 1, {**labels, "cause": event.kind})
        if event.kind == "quarantine":
            self._each("corpusmill_tasks_quarantined_total", 1, labels)

    def stage_ends(self, stage: str, documents: Mapping[str, int]) -> None:
        """Sets the documents of a finished stage: `in`, `kept`, `dropped`; empty for a stage that does not decide about documents."""
        for fate, count in documents.items():
            self._each("corpusmill_documents", count, {"stage": stage, "fate": fate})

    def _count_left(self, labels: Mapping[str, str]) -> None:
        self._each("corpusmill_tasks_left", max(self._left, 0), labels)
        if self._workers is not None:
            self._each("corpusmill_tasks_in_flight", max(min(self._left, self._workers), 0), labels)

    def _each(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        for meter in self.meters:
            meter.add(FAMILIES[name], value, labels)


def documents_of(manifest: Manifest) -> dict[str, int]:
    """Returns the documents that came into a finished stage (`in`), and those that it `kept` and `dropped`. Empty for an unfinished stage
    and for one that writes no documents."""
    sums: Counter[str] = Counter()
    for row in manifest.rows():
        if any(output.path.startswith("data/") for output in row.outputs):
            sums.update({"in": row.rows_in, "kept": row.kept, "dropped": row.dropped})
    return dict(sums)


# ---- Prometheus --------------------------------------------------------------------------------------


class Prometheus:
    """Keeps counts for Prometheus, in a registry of its own, so that several runs in one process do not mix."""

    def __init__(self) -> None:
        require("metrics", "prometheus_client")
        from prometheus_client import CollectorRegistry

        self.registry = CollectorRegistry()
        self._made: dict[str, Any] = {}

    def add(self, family: Family, value: float, labels: Mapping[str, str]) -> None:
        import prometheus_client as client

        if family.name not in self._made:
            kind = {"counter": client.Counter, "gauge": client.Gauge, "histogram": client.Histogram}[family.kind]
            more: dict[str, Any] = {"buckets": SECONDS} if family.kind == "histogram" else {}
            self._made[family.name] = kind(family.name, family.help, family.labels, registry=self.registry, **more)
        getattr(self._made[family.name].labels(**labels), METHODS[family.kind])(value)

    @contextmanager
    def served(self, host: str, port: int) -> Iterator[int]:
        """Answers `GET /metrics` during the block. Yields the port, a free one where `port` is 0. Raises InputError."""
        from prometheus_client import start_http_server

        try:
            server, thread = start_http_server(port, host, self.registry)
        except (OSError, OverflowError) as error:
            raise InputError(f"--metrics-port {port}: {host} can't be listened to there ({error}).") from error
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class TextFile:
    """Writes the file for the node exporter's textfile collector. Each write replaces the whole file.

    Raises InputError if the file can't be written at the beginning. Of later failures only the first is reported; the run goes on.
    """

    def __init__(self, prometheus: Prometheus, path: str, on_message: Callable[[str], None]):
        check_writable(path)
        self.prometheus, self.path, self.on_message = prometheus, path, on_message
        self._failed = False

    def write(self) -> None:
        from prometheus_client import write_to_textfile

        try:
            write_to_textfile(self.path, self.prometheus.registry)
        except OSError as error:
            if not self._failed:
                self.on_message(f"{self.path}: metrics can't be written there ({error.strerror}); the run goes on.")
            self._failed = True


def check_writable(path: str) -> None:
    """Raises InputError if no file can be written at `path`. Called before the run, so that the user learns it at once."""
    folder = Path(path).parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"--metrics-file {path}: the folder {folder} is not there, or can't be written.")


# ---- Ray ---------------------------------------------------------------------------------------------


class RayMeter:
    """Passes counts to a Ray cluster, with the run's name as a label. They appear on the metrics port of the node on which the run was
    started. Counts that come before Ray is initialized wait for it."""

    def __init__(self, run: str):
        self.run = run
        self._made: dict[str, Any] = {}
        self._waiting: list[tuple[Family, float, Mapping[str, str]]] = []

    def add(self, family: Family, value: float, labels: Mapping[str, str]) -> None:
        self._waiting.append((family, value, labels))
        ray = sys.modules.get("ray")  # not imported here: the engine first sets the variables that Ray reads
        if ray is None or not ray.is_initialized():
            return
        for family, value, labels in self._waiting:
            if value or family.kind != "counter":  # Ray's counters refuse 0
                getattr(self._metric(family), METHODS[family.kind])(value, tags={**labels, "run": self.run})
        self._waiting.clear()

    def _metric(self, family: Family) -> Any:
        """Returns Ray's metric for a family. Ray itself puts `ray_` before each name and `_total` after that of a counter."""
        from ray.util import metrics

        if family.name not in self._made:
            kind = {"counter": metrics.Counter, "gauge": metrics.Gauge, "histogram": metrics.Histogram}[family.kind]
            more: dict[str, Any] = {"boundaries": list(SECONDS)} if family.kind == "histogram" else {}
            tags = tuple(dict.fromkeys((*family.labels, "run")))
            self._made[family.name] = kind(family.name.removesuffix("_total"), family.help, tag_keys=tags, **more)
        return self._made[family.name]
