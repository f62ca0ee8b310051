"""Fixtures that all tests share."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.storage import Storage

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside a checkout; tests that need it are skipped where it is not there."""
    if not SHARED.is_dir():
        pytest.skip(f"real test data is not there ({SHARED})")
    return SHARED


#: What differs between equal runs: times, memory, traces, the lock. Manifests are compared by their rows, see `tree`.
VOLATILE = {"metrics.jsonl", "errors.log", ".lock", "report.html"}


def _tree(folder: Path) -> dict[str, str]:
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


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, str]]:
    return _tree
