"""Reads the content of runs that must be equal in equal runs."""

import hashlib
from pathlib import Path

from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.storage import TEMPORARY, Storage

#: Files that differ between equal runs: times, memory, traces, the lock. Manifests are compared by their rows, see `tree`.
VOLATILE = {"metrics.jsonl", "progress.json", "errors.log", ".lock", "lease.json", "log.jsonl", "report.html"}


def tree(folder: Path) -> dict[str, str]:
    """Returns path to content hash of everything in a run that must be equal in equal runs."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or path.name in VOLATILE or "/checkpoints/" in name or "/logs/" in name:
            continue
        content = path.read_bytes()
        if path.name == "manifest.jsonl":  # rows are in the order of completion; after a crash some are there twice
            manifest = Manifest(Storage(str(path.parent)))
            content = repr(manifest.rows()).encode()
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def leftovers(folder: Path) -> set[str]:
    """Returns files with temporary names, and the names of working state (`checkpoints/`, `logs/`), of which a run keeps a fixed number."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in names if TEMPORARY in name or "/checkpoints/" in name or "/logs/" in name}
