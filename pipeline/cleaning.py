"""Removing what is in a stage's folder and no finished task names: what killed processes left, and what an earlier plan wrote."""

import os
from collections.abc import Iterable, Iterator

from xxhash import xxh3_64_intdigest

from corpusmill.pipeline.storage import TEMPORARY, Storage


def remove_unnamed(storage: Storage, named: Iterable[str], spared: tuple[str, ...]) -> None:
    """Removes all files but the `named` ones and those whose paths begin with one of `spared`. Among these go the files that a process was
    killed over while it wrote them (`Storage.write_atomic`): whoever comes next has another number, and would not overwrite them.

    Of each name only 8 bytes are kept, for there may be very many: a file whose name has the hash of a named one would stay, no other goes.
    """
    hashes = {xxh3_64_intdigest(path) for path in named}
    for path in [path for path in _files(storage) if _goes(path, hashes, spared)]:
        storage.remove(path)


def _goes(path: str, hashes: set[int], spared: tuple[str, ...]) -> bool:
    if path.startswith(spared):
        return path.rpartition("/")[2].startswith(TEMPORARY)
    return xxh3_64_intdigest(path) not in hashes


def _files(storage: Storage) -> Iterator[str]:
    """All files of a folder, relative to it, in any order; of a local one none is kept."""
    if storage.remote:
        yield from storage.list_files()
        return
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(storage.path(folder)) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{folder}{entry.name}/")
                else:
                    yield folder + entry.name
