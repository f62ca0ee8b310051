"""Files of the web that are kept on this machine: where each lies, and what its server said of it.

A cached file lies below the cache's folder under its host and path, with a JSON file beside it. It stands for its URL
wherever one is opened: sources, offsets and fingerprints are the same with and without it.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from corpusmill.pipeline.cache import cache_folder
from corpusmill.pipeline.storage import Storage

FOLDER = "web"
SIDECAR = ".json"


@dataclass(frozen=True)
class Cached:
    """A whole file: its place, its size, and the tags by which its server knows its content."""

    path: Path
    bytes: int
    tags: dict[str, str] = field(default_factory=dict)


def place_of(url: str) -> Path | None:
    """Where the file of a URL lies or would lie; None where a URL is no plain file of a web server."""
    parts = urlsplit(url)
    steps = [step for step in parts.path.split("/") if step]
    if parts.scheme not in ("http", "https") or not parts.netloc or not steps or parts.query or {".", ".."} & set(steps):
        return None
    return cache_folder().joinpath(FOLDER, quote(parts.netloc, safe=""), *[quote(step) for step in steps])


def cached(url: str) -> Cached | None:
    """The file of a URL, where all of it is here."""
    place = place_of(url)
    if place is None:
        return None
    try:
        told = json.loads(_sidecar(place).read_bytes())
        found = Cached(place, int(told["bytes"]), dict(told["tags"]))
        return found if place.stat().st_size == found.bytes else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def describe(place: Path, size: int, tags: dict[str, str]) -> None:
    """Writes what is known of a file, before it is put in its place."""
    told = asdict(Cached(place, size, tags)) | {"path": place.name}
    Storage(str(place.parent)).write_bytes(_sidecar(place).name, json.dumps(told).encode())


def forget(url: str) -> None:
    """Removes the file of a URL: it is not what it should be."""
    place = place_of(url)
    if place is not None:
        place.unlink(missing_ok=True)
        _sidecar(place).unlink(missing_ok=True)


def _sidecar(place: Path) -> Path:
    return place.with_name(place.name + SIDECAR)
