"""From the inputs that a user gives (files, folders, globs, URLs) to the files that can be read, in sorted order."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from corpusmill.ingest.commoncrawl import files_of, is_crawl
from corpusmill.ingest.frames import examine
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import expand, file_ref, local_path
from corpusmill.pipeline.formats.detect import KNOWN, Ignored, InputFile, Refused
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.storage import is_remote, printable


@dataclass
class Discovery:
    """What the inputs hold: files to read, files that promise data and can't be read, and files left out."""

    sources: list[InputFile] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)


def discover(inputs: list[str], run: str = "", look: Callable[[FileRef], InputFile | Refused | Ignored] = examine) -> Discovery:
    """Looks at every file of the inputs by `look`, but for those in the folder of the run itself. Raises InputError where an input does not
    exist or none can be read."""
    if not inputs:
        raise InputError("ingest: no input was given; name a file, a folder or a glob.")
    found = Discovery()
    seen: set[str] = set()
    for given in inputs:
        paths = [path for path in (files_of(given) if is_crawl(given) else expand(given)) if not (run and _inside(path, run))]
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


def _take(found: Discovery, path: str, look: Callable[[FileRef], InputFile | Refused | Ignored], explicit: bool) -> None:
    if (shown := printable(path)) != path:
        reason = f"{shown}: its name is not UTF-8, so no report could name it; rename it to have it read."
        found.refused.append(Refused(FileRef(shown, "", 0), "unreadable", reason))
        return
    if not explicit and Path(path).name.startswith((".", "_")):
        found.ignored.append(Ignored(path))
        return
    result = look(file_ref(path))
    if isinstance(result, InputFile):
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
