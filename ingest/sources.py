"""From the inputs that a user gives (files, folders, globs, URLs) to the files that can be read, in sorted order."""

import fnmatch
import glob
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corpusmill.ingest.commoncrawl import files_of, is_crawl
from corpusmill.ingest.files import OWN_READERS, file_ref, local_path
from corpusmill.ingest.formats import KNOWN, Ignored, Refused, Source, examine
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.storage import is_remote, printable
from corpusmill.pipeline.store_requests import asked, filesystem

MAGIC_CHARACTERS = "*?["


@dataclass
class Discovery:
    """What the inputs hold: files to read, files that promise data and can't be read, and files left out."""

    sources: list[Source] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)


def discover(inputs: list[str], run: str = "", look: Callable[[FileRef], Source | Refused | Ignored] = examine) -> Discovery:
    """Looks at every file of the inputs by `look`, but for those in the folder of the run itself. Raises InputError where an input does not
    exist or none can be read."""
    if not inputs:
        raise InputError("ingest: no input was given; name a file, a folder or a glob.")
    found = Discovery()
    seen: set[str] = set()
    for given in inputs:
        paths = [path for path in expand(given) if not (run and _inside(path, run))]
        if not paths:
            raise InputError(f"{given}: there is nothing in it.")
        for path in paths:
            if path not in seen:
                seen.add(path)
                _take(found, path, look, explicit=paths == [given])
    if not found.sources:
        raise InputError(_nothing(inputs, found))
    return found


def _inside(path: str, folder: str) -> bool:
    """Whether a file lies in a folder; both local paths, or both URLs."""
    path, folder = (given if is_remote(given) else str(Path(local_path(given)).absolute()) for given in (path, folder))
    return path.startswith(folder.rstrip("/") + "/")


def _take(found: Discovery, path: str, look: Callable[[FileRef], Source | Refused | Ignored], explicit: bool) -> None:
    if (shown := printable(path)) != path:
        reason = f"{shown}: its name is not UTF-8, so no report could name it; rename it to have it read."
        found.refused.append(Refused(FileRef(shown, "", 0), "unreadable", reason))
        return
    if not explicit and Path(path).name.startswith((".", "_")):
        found.ignored.append(Ignored(path))
        return
    result = look(file_ref(path))
    if isinstance(result, Source):
        found.sources.append(result)
    elif isinstance(result, Refused):
        found.refused.append(result)
    elif explicit:
        reason = f"{path}: not a {KNOWN} file." if file_ref(path).bytes else f"{path}: there is nothing in it."
        found.refused.append(Refused(file_ref(path), "wrong_format" if file_ref(path).bytes else "empty_file", reason))
    else:
        found.ignored.append(result)


def _nothing(inputs: list[str], found: Discovery) -> str:
    if len(found.refused) == 1:
        return found.refused[0].reason
    where = ", ".join(map(printable, inputs[:3])) + (", ..." if len(inputs) > 3 else "")
    if found.refused:
        return f"{where}: none of {len(found.refused)} files can be read; the first: {found.refused[0].reason}"
    return f"{where}: no {KNOWN} file in it ({len(found.ignored)} other files)."


def expand(given: str) -> list[str]:
    """The files of one input, sorted. A path that exists is taken as it is, whatever characters it has."""
    if is_crawl(given):
        return files_of(given)
    return _expand_remote(given) if is_remote(given) else _expand_local(given)


def _expand_local(given: str) -> list[str]:
    path = local_path(given)
    if Path(path).is_dir():
        return _below(path)
    if Path(path).exists():
        return [path]
    if any(character in path for character in MAGIC_CHARACTERS):
        files = _below_pattern(path) if "**" in path else _matching(path)
        if not files:
            raise InputError(f"{given}: no file matches.")
        return files
    raise InputError(f"{given}: no such file or folder.")


def _matching(pattern: str) -> list[str]:
    """The files that a pattern without `**` matches, and those below the folders that it matches."""
    return sorted({file for match in glob.glob(pattern) for file in (_below(match) if Path(match).is_dir() else [match])})


def _below_pattern(pattern: str) -> list[str]:
    """The same for a pattern with `**`. Python's own `glob` would follow a folder that links to itself without end."""
    steps = pattern.split("/")
    place = next(number for number, step in enumerate(steps) if glob.has_magic(step))
    root = "/".join(steps[:place]) or ("/" if place else ".")
    files = [file for file in _below(root) if _fits(steps[place:], os.path.relpath(file, root).split("/"))]
    return files if place else [file.removeprefix("./") for file in files]


def _fits(steps: list[str], names: list[str]) -> bool:
    """Whether a pattern matches a file, or a folder in which it lies. As for a shell, no wildcard begins a hidden name."""
    if not steps:
        return True
    if steps[0] == "**" and _fits(steps[1:], names):
        return True
    if not names or (names[0].startswith(".") and not steps[0].startswith(".")):
        return False
    if steps[0] == "**":
        return _fits(steps, names[1:])
    return fnmatch.fnmatchcase(names[0], steps[0]) and _fits(steps[1:], names[1:])


def _below(folder: str) -> list[str]:
    """All files below a folder, as `folder/relative`. A link that leads back to a folder in which it lies is not followed."""
    root = folder.rstrip("/") or "/"
    files: list[str] = []
    above = {root: {os.path.realpath(root)}}  # for each folder to come: where it and those in which it lies really are
    for parent, folders, names in os.walk(root, followlinks=True):
        files += [os.path.join(parent, name) for name in names]
        places = above.pop(parent)
        for name in list(folders):
            if (real := os.path.realpath(below := os.path.join(parent, name))) in places:
                folders.remove(name)
            else:
                above[below] = places | {real}
    return sorted(files)


def _expand_remote(given: str) -> list[str]:
    fs, name = filesystem(given)
    protocol = given.split("://", 1)[0]
    look = _look_by_kind if given.startswith(OWN_READERS) else _look
    try:
        files = asked(given, lambda: look(given, fs, name))
    except CorpusmillError:
        raise
    except Exception as error:  # each store has exceptions of its own; the user needs one sentence
        raise InputError(
            f"{given}: can't be listed ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})."
        ) from error
    if files is None:
        return [given]
    return sorted(
        {str(file) if "://" in str(file) else f"{protocol}://{str(file).lstrip('/') if protocol != 'file' else file}" for file in files}
    )


def _look(given: str, fs: Any, name: str) -> list[str] | None:
    """The files that a URL means; None: it is one. What a store fails to answer is raised, so that it is asked again."""
    try:
        info = fs.info(name)
    except FileNotFoundError as error:
        if not any(character in name for character in MAGIC_CHARACTERS):
            raise InputError(f"{given}: no such file or folder.") from error
        matches = fs.glob(name, detail=True)
        files = [file for match in sorted(matches) for file in (fs.find(match) if matches[match]["type"] == "directory" else [match])]
        if not files:
            raise InputError(f"{given}: no file matches.") from error
        return files
    return None if info["type"] == "file" else list(fs.find(name))


def _look_by_kind(given: str, fs: Any, name: str) -> list[str] | None:
    """The same for servers that know no folders and answer as they like."""
    if any(character in name for character in MAGIC_CHARACTERS) and not fs.exists(name):
        matches = sorted(str(match) for match in fs.glob(name))
        files = [file for match in matches for file in (fs.find(match) if fs.isdir(match) else [match])]
        if not files:
            raise InputError(f"{given}: no file matches.")
        return files
    if fs.isfile(name):
        return None
    if fs.isdir(name):
        return list(fs.find(name))
    raise InputError(f"{given}: no such file or folder.")
