"""The log of a training: one JSON line a step, without times, so that equal runs have equal logs."""

import json
import math
import os
from pathlib import Path
from typing import IO, Any

from corpusmill.pipeline.errors import InputError


class StepLog:
    """Appends lines; on opening, the lines of steps from `begin` on (which will be redone) are taken away."""

    def __init__(self, path: Path, begin: int):
        self.path, self.begin = path, begin

    def __enter__(self) -> "StepLog":
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file: IO[bytes] = open(self.path, "ab+")
        except OSError as error:
            raise InputError(f"{self.path}: can't be written ({error.strerror}).") from error
        self.file.truncate(self._kept())
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def _kept(self) -> int:
        """Bytes of the whole lines before step `begin`."""
        kept = 0
        self.file.seek(0)
        for line in self.file:
            try:
                if not line.endswith(b"\n") or json.loads(line)["step"] >= self.begin:
                    break
            except (ValueError, KeyError, TypeError):
                break
            kept += len(line)
        return kept

    def write(self, line: dict[str, Any]) -> None:
        finite = {key: str(value) if isinstance(value, float) and not math.isfinite(value) else value for key, value in line.items()}
        self.file.write(json.dumps(finite).encode() + b"\n")
        self.file.flush()

    def sync(self) -> None:
        """Makes the lines durable: to be called before the state that follows them is saved."""
        os.fsync(self.file.fileno())
