"""The phases of a run that has an index: which entries it is compared with, what it changes about them, and its own entry."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from corpusmill.dedup.config import DedupConfig
from corpusmill.dedup.corpus import Shard
from corpusmill.dedup.index import CrawlIndex, Entry
from corpusmill.dedup.phases import files
from corpusmill.pipeline.config import digest
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.failures import Event
from corpusmill.pipeline.lease import holding
from corpusmill.pipeline.manifest import FileRef, TaskRow
from corpusmill.pipeline.runner import StageRun

CHANGES_TASK, INDEX_TASK = "earlier", "index"


@contextmanager
def held(run: StageRun, config: DedupConfig, dry_run: bool) -> Iterator[Callable[[], None]]:
    """The lease of the index, which another run must not extend between what is read of it and what is written; gives what checks it."""
    if config.index is None or not config.index.extend or dry_run:
        yield lambda: None
        return

    def say(sentence: str) -> None:
        run.observer.event(Event("waiting", run.stage.name, "", "", sentence))

    with holding(CrawlIndex(config.index.path).storage, say) as lease:
        yield lease.check


def read_entries(run: StageRun, config: DedupConfig, columns: list[str]) -> list[Entry]:
    """The entries of other runs in the index; `columns`: what the policies compare."""
    if config.index is None:
        return []
    index = CrawlIndex(config.index.path)
    index.check(config)
    every, name = index.entries(), _entry_name(run, config)
    own = next((entry for entry in every if entry.name == name), None)
    if own and own.documents != _documents_digest(run):
        raise InputError(
            f"{index.storage.path(name)}: this entry of the index is of a run with other documents; give this one a dedup.index.name "
            f"of its own, or remove that folder if it is to be replaced."
        )
    entries = [entry for entry in every if own is None or entry.number < own.number]  # done again, a run sees what it saw before
    for entry in entries:
        missing = [column for column in columns if column not in entry.columns]
        if missing:
            raise InputError(f"{index.storage.path(entry.name)}: this entry has no column {missing[0]!r}, which dedup.keep needs.")
    return entries


def find_changes(run: StageRun, config: DedupConfig, entries: list[Entry], clusters: Sequence[TaskRow]) -> FileRef | None:
    """The table of what became of documents of earlier runs; None where there is no index."""
    if config.index is None:
        return None
    from corpusmill.dedup.index_entry import CHANGES_FILE, changes_output

    tables = files(clusters, "earlier/")
    inputs = [*tables, *(entry.decisions for entry in entries)]
    row = run.once(CHANGES_TASK, inputs, lambda _: changes_output(run.run, entries, [ref.path for ref in tables]))
    return row.ref("dedup", CHANGES_FILE)


def extend_index(
    run: StageRun,
    config: DedupConfig,
    columns: list[str],
    own: list[Shard],
    entries: list[Entry],
    clusters: list[FileRef],
    changes: FileRef,
) -> None:
    """Puts the run into the index. `clusters`: for each of its shards what has its rows of the cluster tables."""
    from corpusmill.dedup.index_entry import MARK_FILE, entry_output

    assert config.index is not None
    index, name, number = CrawlIndex(config.index.path), _entry_name(run, config), 1 + max((e.number for e in entries), default=-1)
    if not index.has(name) and run.storage.exists(MARK_FILE):
        run.storage.remove(MARK_FILE)  # the run has put itself into an index that is gone
    new = Entry(name, number, _documents_digest(run), columns, own, changes)
    inputs = [file for shard in own for file in (shard.texts, shard.signatures, *shard.keys.values()) if file]
    run.once(
        INDEX_TASK,
        [*inputs, *dict.fromkeys(clusters), changes],
        lambda _: entry_output(run.run, config, index, new, clusters, changes.path),
        {"name": name, "number": number},
    )


def summary(run: StageRun) -> dict[str, str]:
    """A line for the terminal, where the run changes something about earlier ones."""
    if CHANGES_TASK not in run.plan:
        return {}
    counts = run.task(CHANGES_TASK).counts
    found = f"{counts['replaced']:,} documents are replaced by better copies, {counts['restored']:,} stay again"
    return {"earlier runs": found} if counts["replaced"] or counts["restored"] else {}


def _entry_name(run: StageRun, config: DedupConfig) -> str:
    root = run.run.root if run.run.remote else str(Path(run.run.root).absolute())
    name = (config.index and config.index.name) or PurePosixPath(root).name
    if not name or "/" in name or name.startswith("."):
        raise InputError(f"dedup.index.name: {name!r} can't be the name of a folder.")
    return name


def _documents_digest(run: StageRun) -> str:
    return digest([ref.fingerprint for ref in run.documents()])
