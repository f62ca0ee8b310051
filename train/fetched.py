"""Copies of what lies on a store, for libraries that read files: single files, and model folders in the cache."""

import shutil
from pathlib import Path

from corpusmill.pipeline.cache import alone, cache_folder
from corpusmill.pipeline.config import digest
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.ingest.files import file_ref
from corpusmill.pipeline.storage import Storage, is_remote
from corpusmill.train.files import new_folder

#: In the cache: the model folders that came from stores.
MODELS = "model-folders"
CHUNK = 1 << 22


def local_model(folder: str | Path) -> Path:
    """A model folder itself; of one on a store a copy in the cache, made anew when the store says that a file has changed.

    Raises InputError where it can't be read, or copied.
    """
    if not is_remote(str(folder)):
        return Path(str(folder).removeprefix("file://"))
    storage = Storage(str(folder))
    names = sorted(storage.times())  # asks the store anew, unlike a list
    if not names:
        raise InputError(f"{folder}: no such model folder.")
    known = digest([(name, file_ref(storage.path(name)).fingerprint) for name in names])[:16]
    base = cache_folder() / MODELS / digest(storage.root)[:16]
    copy = base / known / storage.root.rpartition("/")[2]
    with alone(copy):
        if not copy.is_dir():
            with new_folder(copy) as temporary:
                for name in names:
                    fetch_file(storage, name, temporary / name)
            for other in base.iterdir():  # what the folder held before
                if other.name != known:
                    shutil.rmtree(other, ignore_errors=True)
    return copy


def fetch_file(storage: Storage, relative: str, path: Path) -> None:
    """Copies a file of a store to `path`. FileNotFoundError where there is none; InputError where it can't be read or written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with storage.open_read(relative) as source, open(path, "wb") as target:
            while chunk := source.read(CHUNK):
                target.write(chunk)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"{storage.path(relative)}: can't be copied to {path} ({error.strerror or error}).") from error
