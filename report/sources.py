"""Decides which files a run may make a command open. A run folder may come from a stranger, and its tables name files and URLs.

To show a document, a command opens only files that the run itself has read. It contacts a server other than that of the run's own store
only where the user asks for it, since every request reveals who asks.
"""

from urllib.parse import urlsplit

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.storage import Storage, is_remote
from corpusmill.pipeline.web import cached
from corpusmill.report.read import RunReader


def check_source(reader: RunReader, source: str, fetch: bool) -> None:
    """Raises InputError if `source`, a file that a report names, may not be opened. `fetch`: the user allows requests to other servers;
    files that ingest has already downloaded need none."""
    shown = safe_line(source, 300)
    if not any(ref.path == source for task in reader.stages["ingest"].tasks for ref in task.inputs):
        raise InputError(f"{shown}: a report names this file, but the run has not read it, so it is not opened.")
    if not fetch and leaves(reader.storage.root, source) and cached(source) is None:
        raise InputError(f"{shown}: lies on another server; --fetch allows the request.")


def other_run(root: Storage, run: str) -> Storage:
    """Returns the run from which documents were appended to the token shards at `root`. Raises InputError if it lies on another server
    than the shards."""
    if leaves(root.root, run):
        raise InputError(f"{safe_line(run, 300)}: {root.root} names this run on another server, so it is not opened.")
    return Storage(run)


def leaves(root: str, path: str) -> bool:
    """Whether opening `path` sends a request to a server other than the one of `root`."""
    return is_remote(path) and urlsplit(path)[:2] != urlsplit(root)[:2]
