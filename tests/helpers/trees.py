"""What has to be equal in equal runs."""

import hashlib
from pathlib import Path

from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.storage import TEMPORARY, Storage

#: What differs between equal runs: times, memory, traces, the lock. Manifests are compared by their rows, see `tree`.
VOLATILE = {"metrics.jsonl", "progress.json", "errors.log", ".lock", "lease.json", "log.jsonl", "report.html"}


def tree(folder: Path) -> dict[str, str]:
    """Path to content hash of everything in a run that has to be equal in equal runs."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or path.name in VOLATILE or "/checkpoints/" in name or "/logs/" in name:
            continue
        content = path.read_bytes()
        if path.name == "manifest.jsonl":  # rows in the order of completion; after a crash some are there twice
            manifest = Manifest(Storage(str(path.parent)))
            content = repr(manifest.rows()).encode()
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def leftovers(folder: Path) -> set[str]:
    """Files under temporary names, and the names of all working state (`checkpoints/`, `logs/`), of which a run keeps a fixed number."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in names if TEMPORARY in name or "/checkpoints/" in name or "/logs/" in name}
