"""Logs of a training: one JSON line a step. What takes time stands in a file of its own, so equal runs have equal logs beside it."""

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
        self.file.write(json.dumps(_finite(line)).encode() + b"\n")
        self.file.flush()

    def sync(self) -> None:
        """Makes the lines durable: to be called before the state that follows them is saved."""
        os.fsync(self.file.fileno())


def _finite(value: Any) -> Any:
    """NaN and infinity as text, which JSON does not have as numbers."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
