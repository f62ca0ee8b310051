"""Which files a run may make a command open. A run's folder may come from a stranger, and its tables name files and URLs.

What is opened for the sake of a document is a file that the run says it has read; and of another server than the run's own store only
where the user asks for it, since to ask a server for anything tells it who asks.
"""

from urllib.parse import urlsplit

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.storage import Storage, is_remote
from corpusmill.pipeline.web import cached
from corpusmill.report.read import RunReader


def check_source(reader: RunReader, source: str, fetch: bool) -> None:
    """Raises InputError where `source`, of which a report of the run tells, may not be opened. `fetch`: the user has asked
    for it; what ingest has downloaded lies on this machine."""
    shown = safe_line(source, 300)
    if not any(ref.path == source for task in reader.stages["ingest"].tasks for ref in task.inputs):
        raise InputError(f"{shown}: a report names this file, but the run has not read it, so it is not opened.")
    if not fetch and leaves(reader.storage.root, source) and cached(source) is None:
        raise InputError(f"{shown}: lies on another server, which is asked for it only with --fetch.")


def other_run(root: Storage, run: str) -> Storage:
    """The run that a set of token shards at `root` names as the one that documents were appended from. Raises InputError where it lies on
    another server than the set."""
    if leaves(root.root, run):
        raise InputError(f"{safe_line(run, 300)}: {root.root} names this run on another server, which is not asked for it.")
    return Storage(run)


def leaves(root: str, path: str) -> bool:
    """Whether to open `path` asks another server than the one on which `root` lies."""
    return is_remote(path) and urlsplit(path)[:2] != urlsplit(root)[:2]
