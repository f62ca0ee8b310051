"""Forks a run: a new run with other thresholds of the filter, in which the stages before the filter and all measured values are taken over.

No file of a stage is copied through this machine. On a disk the new run has hard links: a file of a stage is published under its name by a
rename and never written in place, so neither run can change the other's. On a store the store copies its objects itself; references to the
objects of another run would need a manifest that may name files outside of its run, and a run that breaks when the other one is removed.
Manifests and labels, which grow or are replaced, are copied.

The new run gets its `run.json` last. A folder that a kill leaves without one is no run, and the same command makes it anew.
"""

import errno
import os
import re
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path

from corpusmill.filters.labels import LABELS
from corpusmill.filters.whatif import Retuned, plans, retune_held
from corpusmill.pipeline.engine import Engine
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.events import Event
from corpusmill.pipeline.lease import holding
from corpusmill.pipeline.manifest import MANIFEST, OBJECTS, Manifest
from corpusmill.pipeline.recipe import STAGES, stage_command
from corpusmill.pipeline.run import RUN_FILE, foreign
from corpusmill.pipeline.storage import UNFINISHED_FORK, Storage
from corpusmill.pipeline.watch.log import RunLog
from corpusmill.pipeline.watch.progress import Progress


def fork(
    folder: str,
    new: str | None,
    overrides: list[str],
    engine: Engine,
    progress: Progress,
    on_decided: Callable[[Retuned], None] = lambda _: None,
    on_message: Callable[[str], None] = lambda _: None,
) -> tuple[str, Retuned]:
    """Makes the run `new` from a finished filter stage, with `--set filter.thresholds.RULE=VALUE` applied. None: the next free name.

    Returns the new run's folder, and what the thresholds change. `on_decided` and `on_message` are as for `retune`. The source run stays
    as it is, but for a line in its log. Raises InputError if a stage up to the filter is not finished, if `new` is a run or holds something
    else, or if it lies on another disk or store; else as `retune`.
    """
    if not overrides:
        raise InputError("fork: say what is to differ, with --set filter.thresholds.RULE=VALUE.")
    before, now = plans(folder, overrides, "fork")
    stages = [name for name in STAGES if name in before.sections]
    stages = stages[: stages.index("filter") + 1]
    source, new = Storage(folder), new or next_name(folder)
    target = Storage(new)
    for name in stages:
        if not Manifest(source.child(name), read_only=True).complete:
            raise InputError(f"{folder}: its stage {name} is not finished; finish it first ({stage_command(folder, name)}).")
    _require_new(source, target)
    with closing(engine), holding(target, on_message) as lease:
        _require_new(source, target)  # another process may have made it meanwhile
        target.write_bytes(UNFINISHED_FORK, b"")
        try:
            for name in stages:
                target.remove_folder(name)
                _take_over(source.child(name), target.child(name))
            if source.exists(LABELS):
                target.write_bytes(LABELS, source.read_bytes(LABELS))
            retuned = retune_held(before, now, target, lease, engine, progress, on_decided, measured=folder)
        finally:
            if target.exists(RUN_FILE):
                target.remove(UNFINISHED_FORK)
                _log(target, "forked", f"made from {folder}", overrides, parent=os.path.relpath(source.absolute, target.absolute))
                _log(source, "fork", f"{new} was made from this run", overrides)
            else:
                for name in stages:
                    target.remove_folder(name)
                target.remove(LABELS)
                target.remove(UNFINISHED_FORK)
    return new, retuned


def next_name(folder: str) -> str:
    """Returns the first free name of a fork: `runs/demo-2` for `runs/demo`. A folder that a killed fork has left is free."""
    named = folder if Path(folder).name not in ("", "..") else str(Path(folder).resolve())
    base = re.sub(r"-\d+$", "", named.rstrip("/"))
    for number in count(2):
        found = Storage(f"{base}-{number}")
        if not found.exists(RUN_FILE) and (found.exists(UNFINISHED_FORK) or foreign(found) is None):
            return found.root
    raise AssertionError


def _require_new(source: Storage, target: Storage) -> None:
    """Raises InputError if `target` is a run, holds something else, or can't have `source`'s files."""
    if target.exists(RUN_FILE):
        raise InputError(f"{target.root}: is a run already; a fork needs a new name.")
    if not target.exists(UNFINISHED_FORK) and (found := foreign(target)):
        raise InputError(f"{target.root}: holds something other than a run (it has {found}); a fork needs a new name.")
    if (source.remote or target.remote) and source.root.split("/")[:3] != target.root.split("/")[:3]:
        raise _elsewhere(source, target)


def _elsewhere(source: Storage, target: Storage) -> InputError:
    return InputError(f"{target.root}: lies on another disk or store than {source.root}, so its files can't be taken over without copies.")


def _take_over(source: Storage, target: Storage) -> None:
    """Takes over the finished tasks of a stage: their files, then its manifest."""
    names = [name for name in source.list_files(OBJECTS) if source.remote] or [MANIFEST]
    manifest = {name: source.read_bytes(name) for name in names}
    for row in Manifest(source, read_only=True).rows():
        for output in row.outputs:
            try:
                _take_file(source, target, output.path)
            except FileNotFoundError as error:
                raise InputError(
                    f"{source.path(output.path)}: this file of the manifest is missing; corpusmill verify says more."
                ) from error
    if any(source.read_bytes(name) != content for name, content in manifest.items()):
        raise InputError(f"{source.root}: another process works on this stage; fork the run when it has ended.")
    for name, content in manifest.items():
        target.write_bytes(name, content)


def _take_file(source: Storage, target: Storage, path: str) -> None:
    if source.remote:
        source.store.copy(path, target.store)
        return
    place = Path(target.path(path))
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.path(path), place)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EPERM, errno.ENOTSUP):  # another disk, or one that has no hard links
            raise _elsewhere(source, target) from error
        raise


def _log(run: Storage, event: str, message: str, overrides: list[str], **more: str) -> None:
    log = RunLog(run)
    log(Event(event, "filter", message=message, fields={"set": overrides, **more}))
    log.flush()
