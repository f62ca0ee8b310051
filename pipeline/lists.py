"""Lists of files. Files that many tasks read are named once, in a list file that is an input of each of these tasks.

If each task of a phase named all files of another phase, plans and manifests would grow with the square of the corpus. A list's
fingerprint is the sha256 of its content, which holds the fingerprints of its files, so the identity of a task that reads the list
depends on all of them. The task that writes a list has these files as its inputs.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from corpusmill.pipeline.config import Config, canonical_json
from corpusmill.pipeline.errors import Damaged, InputError
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.stage import Output
from corpusmill.pipeline.storage import Storage, located

if TYPE_CHECKING:
    from corpusmill.pipeline.runner import StageRun

FOLDER, SUFFIX = "lists", ".files.json"
#: The most lists that a process keeps in memory.
KEPT = 16


@dataclass(frozen=True)
class FileList:
    """The files of a list in the order of the plan, and parameters for all tasks that read it."""

    files: list[FileRef]
    params: dict[str, Any]


def write_list(run: "StageRun", name: str, files: Sequence[FileRef], params: dict[str, Any] | None = None) -> FileRef:
    """Returns the stage's list of this name, as an input of tasks. A task of its own writes it, unless it is finished."""
    path, params = f"{FOLDER}/{name}{SUFFIX}", params or {}

    def output(_: str) -> Output:
        content = {"files": [[ref.path, ref.fingerprint, ref.bytes, ref.xxh3] for ref in files], "params": params}
        return Output({path: canonical_json(content).encode() + b"\n"})

    return run.once(f"{FOLDER}/{name}", files, output, params, Config(), reads=False).ref(run.stage.name, path)


def is_list(ref: FileRef) -> bool:
    return ref.path.endswith(SUFFIX)


def read_list(run: Storage, ref: FileRef) -> FileList:
    """Returns the content of a list; a process reads it once. Raises Damaged if its sha256 is not that of `ref`."""
    return _read(run.root, ref)


def input_paths(run: Storage, inputs: Iterable[FileRef]) -> list[str]:
    """Returns the paths of a task's inputs. Each list is replaced by the paths of its files."""
    return [file.path for ref in inputs for file in (read_list(run, ref).files if is_list(ref) else [ref])]


@lru_cache(maxsize=KEPT)
def _read(root: str, ref: FileRef) -> FileList:
    run = Storage(root)
    content = run.read_bytes(ref.path)
    if hashlib.sha256(content).hexdigest() != ref.fingerprint:
        raise Damaged(f"{run.path(ref.path)}: this list is not the one that was written (its sha256 differs).", run.path(ref.path))
    try:
        found = from_json(content)
        if type(found["params"]) is not dict or any([type(value) for value in entry] != [str, str, int, str] for entry in found["files"]):
            raise ValueError("a value is of another kind")
        return FileList([FileRef(*entry) for entry in found["files"]], found["params"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{run.path(ref.path)}: not a list of files ({error}).") from error


def check_inputs(run: Storage, inputs: Iterable[FileRef], batches: bool = True) -> None:
    """Compares files that runs have written with their manifests: those among a task's inputs, and those of its lists. A process reads a
    file again only where it has changed. Raises Damaged.

    Without `batches`, Arrow files are left out: each of their batches is compared when it is read (`shards.Batches`).
    """
    for ref in inputs:
        if is_list(ref):
            check_inputs(run, read_list(run, ref).files, batches)
        elif ref.xxh3 and (batches or not ref.path.endswith(".arrow")):
            storage, name = located(run, ref.path)
            _check(storage.root, name, ref.xxh3, 0 if storage.remote else _written(storage.path(name)))


def _written(path: str) -> int:
    """Returns when a local file was written, in nanoseconds."""
    try:
        return Path(path).stat().st_mtime_ns
    except FileNotFoundError as error:
        raise Damaged(f"{path}: no such file.", path) from error
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}).") from error


@lru_cache(maxsize=1 << 16)
def _check(root: str, name: str, wanted: str, written: int) -> None:
    """Raises Damaged where the file has another hash; then nothing is kept."""
    storage = Storage(root)
    if storage.xxh3(name) != wanted:
        raise Damaged(f"{storage.path(name)}: this file is not the one that was written (its xxh3 differs).", storage.path(name))
