"""A run's folder and its JSON files, finished, half written or damaged; what can't be read is said."""

import json
from collections.abc import Iterator
from typing import Any

from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.log import APPENDED, objects, read_appended


class RunFiles:
    """`warnings`: a sentence for each thing that can't be read, and so is left out."""

    def __init__(self, folder: str):
        self.storage = Storage(folder)
        self.warnings: list[str] = []

    def warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def json(self, path: str, kind: type = object) -> Any:
        """A JSON file of the run, or None (with a warning where it is there but not usable)."""
        if not self.storage.exists(path):
            return None
        try:
            value = json.loads(self.storage.read_bytes(path))
        except (OSError, ValueError) as error:
            self.warn(f"{path}: not readable JSON ({error}).")
            return None
        if not isinstance(value, kind):
            self.warn(f"{path}: expected a JSON {kind.__name__}, so it is left out.")
            return None
        return value

    def has_lines(self, path: str) -> bool:
        """Whether the run has this file of lines, be it as objects of a store (watch/log.py)."""
        return self.storage.exists(path) or (path in APPENDED and bool(objects(self.storage, path)))

    def _lines(self, path: str) -> Iterator[bytes]:
        if path in APPENDED:
            yield from read_appended(self.storage, path).splitlines()
        elif self.storage.exists(path):
            with self.storage.open_read(path) as file:
                yield from file

    def json_lines(self, path: str) -> list[dict[str, Any]]:
        """The objects of a JSON Lines file; lines that are none are counted in one warning (the last may be half written)."""
        rows, bad = [], 0
        for line in self._lines(path):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if isinstance(row, dict):
                rows.append(row)
            elif line.strip():
                bad += 1
        if bad:
            self.warn(f"{path}: {bad} lines are not JSON objects and are left out.")
        return rows
