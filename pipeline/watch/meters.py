"""What is counted while a run works, and where the counts go.

Names are OpenTelemetry's in the form that Prometheus gives them: a unit at the end, `_total` for what only grows. A meter is a place that
keeps counts: Prometheus' registry (prometheus.py), Ray's own metrics on a cluster.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from corpusmill.pipeline.engine import Done
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.watch.events import Event

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
#: Seconds of a task, the upper ends of a histogram's bins.
SECONDS = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)


@dataclass(frozen=True)
class Family:
    """A metric: its name (a counter's ends in `_total`), what it counts, and the names of its labels."""

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
        Family(
            "corpusmill_rows_total", "counter", "Rows of finished tasks: in, kept, dropped, as their manifest has them", (*_PHASE, "fate")
        ),
        Family("corpusmill_read_bytes_total", "counter", "Bytes that finished tasks have read", _PHASE),
        Family("corpusmill_task_duration_seconds", "histogram", "Seconds that a finished task took its worker", _PHASE),
        Family("corpusmill_task_peak_memory_bytes", "gauge", "The most memory that a worker of the phase has taken", _PHASE),
        Family("corpusmill_phase_duration_seconds_total", "counter", "Seconds that phases took from begin to end", _PHASE),
        Family("corpusmill_retries_total", "counter", "Tasks begun again, by cause: retry, death, halves, alone", (*_PHASE, "cause")),
        Family(
            "corpusmill_failures_total", "counter", "Failures of any kind: those that were tried again, and those that were not", _PHASE
        ),
        Family("corpusmill_tasks_quarantined_total", "counter", "Tasks that were given up", _PHASE),
        Family(
            "corpusmill_documents", "gauge", "Documents of a finished stage: in, kept, dropped, as the report has them", ("stage", "fate")
        ),
    )
}


class Meter(Protocol):
    """`name` is one of FAMILIES, `labels` has a value for each of its labels."""

    def count(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Adds to a counter."""

    def gauge(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Sets a gauge."""

    def observe(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Adds a value to a histogram."""


class Counting:
    """Turns what happens in a run into counts, the same for all meters."""

    def __init__(self, meters: Sequence[Meter]):
        self.meters = meters
        self._left = self._peak = 0
        self._workers: int | None = None

    def run(self, run: str, version: str) -> None:
        self._each("gauge", "corpusmill_run_info", 1, {"run": run, "version": version})

    def phase_begins(self, stage: str, phase: str, planned: int, todo: int, workers: int | None) -> None:
        labels = {"stage": stage, "phase": phase}
        self._left, self._peak, self._workers = todo, 0, workers
        self._each("gauge", "corpusmill_tasks_planned", planned, labels)
        self._each("count", "corpusmill_tasks_taken_over_total", planned - todo, labels)
        for name in ("corpusmill_tasks_total", "corpusmill_failures_total", "corpusmill_tasks_quarantined_total"):
            self._each("count", name, 0, labels)  # a series that is there can be asked for
        self._tell_left(labels)

    def phase_ends(self, stage: str, phase: str, seconds: float) -> None:
        labels = {"stage": stage, "phase": phase}
        self._left = 0
        self._tell_left(labels)
        self._each("count", "corpusmill_phase_duration_seconds_total", seconds, labels)

    def done(self, stage: str, phase: str, done: Done) -> None:
        labels = {"stage": stage, "phase": phase}
        self._each("count", "corpusmill_tasks_total", 1, labels)
        for fate, rows in (("in", done.rows_in), ("kept", done.kept), ("dropped", done.dropped)):
            self._each("count", "corpusmill_rows_total", rows, {**labels, "fate": fate})
        self._each("count", "corpusmill_read_bytes_total", done.bytes_in, labels)
        self._each("observe", "corpusmill_task_duration_seconds", done.seconds, labels)
        if done.peak_mb > self._peak:
            self._peak = done.peak_mb
            self._each("gauge", "corpusmill_task_peak_memory_bytes", done.peak_mb << 20, labels)
        self._left -= 1
        self._tell_left(labels)

    def failed(self, stage: str, phase: str) -> None:
        """A task has failed for the last time."""
        labels = {"stage": stage, "phase": phase}
        self._each("count", "corpusmill_failures_total", 1, labels)
        self._left -= 1
        self._tell_left(labels)

    def event(self, event: Event) -> None:
        labels = {"stage": event.stage, "phase": event.phase}
        if event.kind in ("retry", "death", "halves", "alone"):
            self._each("count", "corpusmill_failures_total", 1, labels)
            self._each("count", "corpusmill_retries_total", 1, {**labels, "cause": event.kind})
        if event.kind == "quarantine":
            self._each("count", "corpusmill_tasks_quarantined_total", 1, labels)

    def stage_ends(self, stage: str, documents: Mapping[str, int]) -> None:
        """`documents`: `in`, `kept`, `dropped` of a stage that decides about documents; empty for another."""
        for fate, count in documents.items():
            self._each("gauge", "corpusmill_documents", count, {"stage": stage, "fate": fate})

    def _tell_left(self, labels: Mapping[str, str]) -> None:
        self._each("gauge", "corpusmill_tasks_left", max(self._left, 0), labels)
        if self._workers is not None:
            self._each("gauge", "corpusmill_tasks_in_flight", max(min(self._left, self._workers), 0), labels)

    def _each(self, what: str, name: str, value: float, labels: Mapping[str, str]) -> None:
        for meter in self.meters:
            call: Callable[..., Any] = getattr(meter, what)
            call(name, value, labels)


def documents_of(manifest: Manifest) -> dict[str, int]:
    """Documents that came into a finished stage, that go on and that do not: of the tasks that wrote documents."""
    sums: Counter[str] = Counter()
    for row in manifest.rows():
        if any(output.path.startswith("data/") for output in row.outputs):
            sums.update({"in": row.rows_in, "kept": row.kept, "dropped": row.dropped})
    return dict(sums)
