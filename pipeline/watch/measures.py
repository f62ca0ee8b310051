"""What a phase took, for `metrics.jsonl`: sums over its tasks, so that nothing is kept of any of them."""

from dataclasses import dataclass
from typing import Any

from corpusmill.pipeline.engine import Done


@dataclass
class Measures:
    tasks: int = 0
    worker_seconds: float = 0.0
    rows_in: int = 0
    bytes_in: int = 0
    peak_mb: int = 0
    beside_mb: int = 0

    def add(self, done: Done) -> None:
        self.tasks += 1
        self.worker_seconds += done.seconds
        self.rows_in += done.rows_in
        self.bytes_in += done.bytes_in
        self.peak_mb = max(self.peak_mb, done.peak_mb)
        self.beside_mb = max(self.beside_mb, done.beside_mb)

    def row(self, stage: str, phase: str, seconds: float, workers: int) -> dict[str, Any]:
        """The line of `metrics.jsonl`. `seconds` are of the clock."""
        return {
            "stage": stage, "phase": phase, "seconds": round(seconds, 3), "worker_seconds": round(self.worker_seconds, 3),
            "tasks": self.tasks, "rows_in": self.rows_in, "bytes_in": self.bytes_in, "workers": workers, "peak_mb": self.peak_mb,
            "beside_mb": self.beside_mb,
        }  # fmt: skip
