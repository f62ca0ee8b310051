"""A model's file by URL, kept in the user's cache under the sha256 of its content.

    CACHE/models/files/SHA256/NAME       the file
    CACHE/models/urls/DIGEST.json        which content a URL had when it was fetched: {url, sha256, name}

A file that is there stands for its URL: nothing is asked of the network. Where a recipe names the sha256, the content is found by that.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from corpusmill.pipeline.cache import alone, cache_folder
from corpusmill.pipeline.cached import cached, forget, place_of
from corpusmill.pipeline.config import digest
from corpusmill.pipeline.download import download
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import open_file
from corpusmill.pipeline.storage import Storage

CHUNK = 1 << 22


def sha256_of(path: str | Path) -> str:
    """Of a file's content, read once as long as size and time stay. Raises InputError where it can't be read."""
    try:
        status = Path(path).stat()
        return _sha256(str(path), status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}).") from error


@lru_cache(64)
def _sha256(path: str, size: int, time: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: str | Path, found: str, wanted: str | None) -> None:
    """Raises InputError where a file is another one than the recipe says."""
    if wanted is not None and found != wanted:
        raise InputError(f"{path}: it is another file than the recipe means (its sha256 is {found}, expected {wanted}).")


def fetch(url: str, sha256: str | None = None) -> Path:
    """The local path of a URL's file, fetched where need be. Safe when several processes call it at once.

    Raises InputError where it can't be read or has another sha256.
    """
    root = cache_folder() / "models"
    note = root / "urls" / f"{digest(url)[:32]}.json"
    with alone(note):
        known = _known(note, url)
        wanted = sha256 or known
        if wanted and (here := _file(root, wanted, url)).is_file():
            return here
        content, found = _download(url, root)
        try:
            check_sha256(url, found, sha256)
            target = _file(root, found, url)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(content, target)
        finally:
            content.unlink(missing_ok=True)
        told = {"url": url, "sha256": found, "name": target.name}
        Storage(str(note.parent)).write_bytes(note.name, json.dumps(told).encode())
        return target


def _file(root: Path, sha256: str, url: str) -> Path:
    return root / "files" / sha256 / _name(url)


def _name(url: str) -> str:
    """The last part of a URL's path, as a name that any file system takes."""
    last = urlsplit(url).path.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^\w.-]", "_", last)[-100:].lstrip(".") or "model"


def _known(note: Path, url: str) -> str | None:
    """The sha256 that the URL's content had."""
    try:
        told = json.loads(note.read_bytes())
        return str(told["sha256"]) if told["url"] == url else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _download(url: str, root: Path) -> tuple[Path, str]:
    """The content under a temporary name in the cache, and its sha256."""
    handle, name = tempfile.mkstemp(dir=root, prefix=".tmp-")
    target = Path(name)
    os.close(handle)
    try:
        if place_of(url) is not None:  # of a web server: goes on where it stopped
            download([url])
            if (file := cached(url)) is not None:
                os.replace(file.path, target)
                forget(url)
        else:
            with open_file(url) as source, open(target, "wb") as sink:
                shutil.copyfileobj(source, sink, CHUNK)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise InputError(f"{url}: can't be fetched ({error.strerror or error}).") from error
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return target, sha256_of(target)
