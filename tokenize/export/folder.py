"""A folder that appears whole or not at all."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import TEMPORARY, fsync_folder, is_remote


@contextmanager
def new_folder(output: str, may_replace: Callable[[Path], bool]) -> Iterator[Path]:
    """A temporary folder beside `output` that takes its name, fsynced, when the block ends without an exception.

    Raises InputError where `output` holds anything that `may_replace` does not let go, where somebody else is writing it,
    or where it can't be written (no room, no permission).
    """
    if is_remote(output):
        raise InputError(f"{output}: an export is written to a local folder; copy it from there.")
    target = Path(output.removeprefix("file://")).resolve()
    if not target.name:
        raise InputError(f"{target}: this is not an empty folder.")
    temporary, old = (target.with_name(f"{TEMPORARY}{target.name}{end}") for end in ("", "-old"))
    try:
        if old.exists() and not target.exists():  # killed between the two renames below
            old.rename(target)
        _check_free(target, may_replace)
        with _locked(temporary, target):
            try:
                yield temporary
                _fsync_all(temporary)
                _take_place(temporary, target, old, may_replace)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
    except OSError as error:
        raise InputError(f"{target}: can't be written ({error.strerror or error}).") from error


def _check_free(target: Path, may_replace: Callable[[Path], bool]) -> None:
    if os.path.lexists(target) and not may_replace(target):
        raise InputError(f"{target}: this is not an empty folder.")


def _take_place(temporary: Path, target: Path, old: Path, may_replace: Callable[[Path], bool]) -> None:
    """Renames; what lies at `target` goes only after the new folder has its name."""
    _check_free(target, may_replace)  # again: somebody may have put something there
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    temporary.rename(target)
    fsync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _locked(folder: Path, target: Path) -> Iterator[None]:
    """Makes the folder and holds a lock on it for the time of the block; what a killed process left in it goes."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = folder.stat().st_ino == os.fstat(descriptor).st_ino
        except (BlockingIOError, FileNotFoundError):
            mine = False
        if not mine:
            raise InputError(f"{target}: another corpusmill is writing this folder right now.")
        for left in folder.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield
    finally:
        os.close(descriptor)


def _fsync_all(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        fsync_folder(path)  # a file's descriptor is as good
