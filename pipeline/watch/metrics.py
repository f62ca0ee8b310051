"""Counts the events of a run for Prometheus: on a port, or in a file for the node exporter.

The names of the metrics follow OpenTelemetry in Prometheus' form: a unit at the end, and `_total` for counters.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.events import Event
from corpusmill.pipeline.extras import require

#: The upper bounds of the histogram of task durations, in seconds.
SECONDS = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
_PHASE = ("stage", "phase")
#: The kind, description and labels of each metric.
METRICS = {
    "corpusmill_run_info": ("Gauge", "1, for the run and the version that works on it", ("run", "version")),
    "corpusmill_tasks_total": ("Counter", "Tasks that this process has finished", _PHASE),
    "corpusmill_tasks_taken_over_total": ("Counter", "Tasks that were finished before and not done again", _PHASE),
    "corpusmill_tasks_planned": ("Gauge", "Tasks of the phase, reused ones included", _PHASE),
    "corpusmill_tasks_left": ("Gauge", "Tasks of the phase that are neither finished nor given up", _PHASE),
    "corpusmill_tasks_in_flight": ("Gauge", "Tasks that workers have now: at most as many as there are workers", _PHASE),
    "corpusmill_rows_total": ("Counter", "Rows of finished tasks: in, kept, dropped, from the manifest", (*_PHASE, "fate")),
    "corpusmill_read_bytes_total": ("Counter", "Bytes that finished tasks have read", _PHASE),
    "corpusmill_task_duration_seconds": ("Histogram", "Seconds that a finished task took its worker", _PHASE),
    "corpusmill_task_peak_memory_bytes": ("Gauge", "The most memory that a worker of the phase has taken", _PHASE),
    "corpusmill_phase_duration_seconds_total": ("Counter", "Phase duration in seconds", _PHASE),
    "corpusmill_retries_total": ("Counter", "Tasks tried again, by cause: retry, death, split, alone", (*_PHASE, "cause")),
    "corpusmill_failures_total": ("Counter", "Failures of any kind: those that were tried again, and those that were not", _PHASE),
    "corpusmill_tasks_quarantined_total": ("Counter", "Tasks that were given up", _PHASE),
    "corpusmill_documents": ("Gauge", "Documents of a finished stage: in, kept, dropped, from the report", ("stage", "fate")),
}


class Prometheus:
    """A listener that keeps counts in a registry of its own, so that several runs in one process do not mix.

    `file`: where they are written at the end of each phase and stage; each write replaces the whole file. Raises InputError if it can't be
    written at the beginning. Of later failures `on_message` gets the first; the run goes on.
    """

    def __init__(self, run: str, file: str | None = None, on_message: Callable[[str], None] = print):
        require("metrics", "prometheus_client")
        import prometheus_client

        if file:
            check_writable(file)
        self.run, self.file, self.on_message = run, file, on_message
        self.registry = prometheus_client.CollectorRegistry()
        self._metrics: dict[str, Any] = {}
        self._left = self._peak = 0
        self._workers: int | None = None
        self._failed = False

    def __call__(self, event: Event) -> None:
        of, fields = {"stage": event.stage, "phase": event.phase}, event.fields
        match event.kind:
            case "run_begin":
                self._of("corpusmill_run_info", run=self.run, version=fields["version"]).set(1)
            case "phase_begin":
                self._left, self._peak, self._workers = fields["tasks"], 0, fields["workers"]
                self._of("corpusmill_tasks_planned", **of).set(fields["tasks"] + fields["taken_over"])
                self._of("corpusmill_tasks_taken_over_total", **of).inc(fields["taken_over"])
                for name in ("corpusmill_tasks_total", "corpusmill_failures_total", "corpusmill_tasks_quarantined_total"):
                    self._of(name, **of)  # so that the series exists from the beginning
            case "task":
                self._left, self._peak = self._left - 1, max(self._peak, fields["peak_mb"])
                self._of("corpusmill_tasks_total", **of).inc()
                for fate, rows in (("in", "rows_in"), ("kept", "kept"), ("dropped", "dropped")):
                    self._of("corpusmill_rows_total", **of, fate=fate).inc(fields[rows])
                self._of("corpusmill_read_bytes_total", **of).inc(fields["bytes_in"])
                self._of("corpusmill_task_duration_seconds", **of).observe(fields["seconds"])
                self._of("corpusmill_task_peak_memory_bytes", **of).set(self._peak << 20)
            case "retry" | "death" | "split" | "alone":
                self._of("corpusmill_failures_total", **of).inc()
                self._of("corpusmill_retries_total", **of, cause=event.kind).inc()
            case "failure":
                self._left -= 1
                self._of("corpusmill_failures_total", **of).inc()
            case "quarantine":
                self._of("corpusmill_tasks_quarantined_total", **of).inc()
            case "phase_end" | "phase_broken_off":
                self._left = 0
                self._of("corpusmill_phase_duration_seconds_total", **of).inc(fields["seconds"])
            case "stage_end":
                for fate, documents in fields["documents"].items():
                    self._of("corpusmill_documents", stage=event.stage, fate=fate).set(documents)
        if event.kind in ("phase_begin", "task", "failure", "phase_end", "phase_broken_off"):
            self._of("corpusmill_tasks_left", **of).set(self._left)
            if self._workers is not None:
                self._of("corpusmill_tasks_in_flight", **of).set(min(self._left, self._workers))
        if self.file and event.kind in ("phase_end", "phase_broken_off", "stage_end"):
            self.write()

    def _of(self, name: str, **labels: str) -> Any:
        """Returns the metric with these labels."""
        import prometheus_client

        if name not in self._metrics:
            kind, help_, names = METRICS[name]
            more: dict[str, Any] = {"buckets": SECONDS} if kind == "Histogram" else {}
            self._metrics[name] = getattr(prometheus_client, kind)(name, help_, names, registry=self.registry, **more)
        return self._metrics[name].labels(**labels)

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

    def write(self) -> None:
        """Writes the file."""
        from prometheus_client import write_to_textfile

        try:
            write_to_textfile(str(self.file), self.registry)
        except OSError as error:
            if not self._failed:
                self.on_message(f"{self.file}: metrics can't be written there ({error.strerror}); the run goes on.")
            self._failed = True


def check_writable(path: str) -> None:
    """Raises InputError if no file can be written at `path`. Called before the run, so that the user learns it at once."""
    folder = Path(path).parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"--metrics-file {path}: the folder {folder} is not there, or can't be written.")
