"""Takedowns: a list of documents, addresses and domains that stay out of a run, also where the run has read them already.

The list is a file of JSON lines that belongs to no run and only grows: `{"url": "https://example.org/a", "ticket": "2026-17"}`, or `domain`
or `id` in place of `url`. `ingest` leaves these documents out by the rule RULE. What it has written before is written again without them,
from its own files, since the crawl may be gone; the bytes are those that a new run with this list has.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.guard import RowBatch
from corpusmill.ingest.rows import TAKEDOWN as RULE
from corpusmill.ingest.shard import filled
from corpusmill.ingest.urls.lists import is_domain, read_url, same_address
from corpusmill.pipeline.config import canonical_json, parse_json, reason_of
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.formats.sites import SITES
from corpusmill.pipeline.manifest import TaskRow, read_row
from corpusmill.pipeline.names import counted
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import OutputFile, publish, read_table
from corpusmill.pipeline.storage import Storage

Kind: TypeAlias = Literal["id", "url", "domain"]
#: In the stage's folder: new files of tasks, until all files of a task are there.
FOLDER = "takedown/"
#: Tasks that are looked through at a time; each holds a shard in memory.
THREADS = 2


@dataclass(frozen=True)
class Takedowns:
    """What is to stay out, each with its ticket: documents by their ids, pages by their addresses (`same_address`), and domains with all
    below them."""

    id: dict[str, str] = field(default_factory=dict)
    url: dict[str, str] = field(default_factory=dict)
    domain: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.id) + len(self.url) + len(self.domain)

    def add(self, kind: Kind, value: str, ticket: str) -> bool:
        """Adds an entry; returns False where it is there already. Raises ValueError with what is wrong about the value."""
        if not value.strip():
            raise ValueError(f"an empty {kind}")
        if kind == "url":
            read = read_url(value)
            if ("." not in read.host and read.host != "localhost") or any(sign.isspace() for sign in value):
                raise ValueError(f"{value!r} is no address of a page")
            value = same_address(read)
        elif kind == "domain":
            value = value.lower().removeprefix("*.").rstrip(".")
            if not is_domain(value):
                raise ValueError(f"{value!r} is no domain, or one under which anybody has pages")
        entries: dict[str, str] = getattr(self, kind)
        new = value not in entries
        entries.setdefault(value, ticket)
        return new

    def beyond(self, other: "Takedowns") -> list[dict[str, str]]:
        """Returns the entries that `other` lacks, as lines of a list."""
        return [
            {kind: value, "ticket": ticket}
            for kind in get_args(Kind)
            for value, ticket in getattr(self, kind).items()
            if value not in getattr(other, kind)
        ]

    def ticket(self, id_: str | None, url: str | None) -> str | None:
        """Returns the ticket by which a document stays out; None if it does not."""
        if id_ in self.id or not url or not (self.url or self.domain):
            return self.id.get(id_ or "")
        read = read_url(url)
        if (found := self.url.get(same_address(read))) is not None or not self.domain:
            return found
        host = read.host
        while host and host not in self.domain:
            host = host.partition(".")[2]
        return self.domain.get(host)

    def tickets(self, rows: pa.Table) -> list[str | None]:
        """Returns `ticket` of each row of a table with `id` and `url`."""
        if not self.url and not self.domain:
            listed = pc.is_in(rows["id"], pa.array(self.id, pa.string()))
            if not pc.any(listed).as_py():
                return [None] * len(rows)
        return [self.ticket(id_, url) for id_, url in zip(rows["id"].to_pylist(), rows["url"].to_pylist(), strict=True)]


def takedowns_of(config: IngestConfig) -> Takedowns:
    """Returns the list that a section names, or an empty one. Raises InputError."""
    return read_takedowns(config.takedown) if config.takedown else Takedowns()


def read_takedowns(path: str) -> Takedowns:
    """Reads a list. Raises InputError that names the file and the line."""
    folder, name = _split(path)
    if not folder.exists(name):
        raise InputError(f"{path}: no such list of takedowns.")
    found = Takedowns()
    for number, line in enumerate(folder.read_bytes(name).splitlines(), 1):
        if line.strip():
            try:
                row = parse_json(line)
                kinds = [kind for kind in get_args(Kind) if isinstance(row.get(kind), str)]
                if len(kinds) != 1:
                    raise ValueError("it has none, or several, of id, url and domain")
                found.add(kinds[0], row[kinds[0]], str(row.get("ticket") or ""))
            except (ValueError, TypeError, AttributeError) as error:
                raise InputError(f"{path}:{number}: not a takedown: {reason_of(error)}.") from error
    return found


def extend_takedowns(path: str, rows: Iterable[Mapping[str, str]]) -> None:
    """Adds rows (`{"url": ..., "ticket": ...}`) to a list, which is made if it is missing."""
    folder, name = _split(path)
    before = folder.read_bytes(name) if folder.exists(name) else b""
    folder.write_bytes(name, before + b"".join(canonical_json(dict(row)).encode() + b"\n" for row in rows))


def _split(path: str) -> tuple[Storage, str]:
    folder, _, name = (path if "://" in path else str(Path(path).absolute())).rpartition("/")
    return Storage(folder), name


# ---- documents that are being read, and those that were read before ------------------------------------------------


def leave_out(batch: RowBatch, takedowns: Takedowns) -> RowBatch:
    """Returns the batch without the documents that are taken down; their report rows stay, with the rule and the ticket."""
    tickets = takedowns.tickets(batch.report)
    kept = _mask(batch.report["kept"])
    gone = np.array([ticket is not None for ticket in tickets], bool) & kept
    if not gone.any():
        return batch
    columns: dict[str, list[Any]] = {
        "kept": (kept & ~gone).tolist(),
        "failed": [[RULE] if out else failed for out, failed in zip(gone, batch.report["failed"].to_pylist(), strict=True)],
        "chars_out": [0 if out else chars for out, chars in zip(gone, batch.report["chars_out"].to_pylist(), strict=True)],
        "reason": [
            f"taken down{f' ({ticket})' if ticket else ''}" if out else reason
            for out, ticket, reason in zip(gone, tickets, batch.report["reason"].to_pylist(), strict=True)
        ],
    }
    report = batch.report
    for name, values in columns.items():
        place = report.schema.get_field_index(name)
        report = report.set_column(place, report.schema.field(place), pa.array(values, report.schema.field(place).type))
    return replace(batch, documents=batch.documents.filter(pa.array(~gone[kept])), report=report)


def _mask(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    return np.asarray(column.to_numpy(), bool)


def forget(run: StageRun, takedowns: Takedowns) -> int:
    """Takes documents out of the finished tasks of the stage `ingest`, and returns how many. `run` holds the lease.

    A task's new files are first written beside the old ones, with the row for the manifest last. So a process that is killed leaves either
    the old files, or all new ones, which the next call puts in their place. Raises InputError if a document was taken down by an entry that
    the list no longer has: its text is gone.
    """
    for name in run.storage.list_files(FOLDER):
        if name.endswith(".json"):
            _put_in_place(run, name)
    rows = [row for task, row in run.manifest.tasks.items() if task not in run.manifest.doubtful and _reports(row)]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda row: _affected(run.storage, row, takedowns), rows))
        if missing := sum(missing for _, missing in found):
            raise InputError(
                f"{run.storage.root}: {counted(missing, 'document')} of this run {'was' if missing == 1 else 'were'} taken down by entries "
                f"that the list no longer has; their texts are gone, so put the entries back, or read the crawl again in a new run."
            )
        affected = [row for row, (gone, _) in zip(rows, found, strict=True) if gone]
        for name in pool.map(lambda row: _write_beside(run, row, takedowns), affected):
            _put_in_place(run, name)
    return sum(gone for gone, _ in found)


def _reports(row: TaskRow) -> list[str]:
    return [output.path for output in row.outputs if output.path.startswith("report/")]


def _affected(storage: Storage, row: TaskRow, takedowns: Takedowns) -> tuple[int, int]:
    """Returns how many documents of a task are to be taken down, and how many were and are not on the list."""
    gone = missing = 0
    for path in _reports(row):
        report = read_table(storage, path, ["id", "url", "kept", "failed"])
        listed = np.array([ticket is not None for ticket in takedowns.tickets(report)], bool)
        gone += int((listed & _mask(report["kept"])).sum())
        if row.failed.get(RULE):
            missing += sum(RULE in failed for failed in report.filter(pa.array(~listed))["failed"].to_pylist())
    return gone, missing


def _write_beside(run: StageRun, row: TaskRow, takedowns: Takedowns) -> str:
    """Writes the files of a task again without what is taken down, below FOLDER; returns the name of the file with the task's new row."""
    config = run.stage.config
    assert isinstance(config, IngestConfig)
    made, kept, failed = list[OutputFile](), 0, Counter[str]()
    for key, shard, _ in filled(row.task, (leave_out(batch, takedowns) for batch in _batches(run.storage, row, config)), config):
        output = shard.output(key)
        made += [replace(publish(run.storage, FOLDER + path, content), path=path) for path, content in output.files.items()]
        kept += output.kept
        failed.update(output.failed)
    others = [output for output in row.outputs if not output.path.startswith(("data/", "report/"))]
    new = replace(
        row, outputs=sorted([*made, *others], key=lambda output: output.path), kept=kept, dropped=row.rows_in - kept, failed=dict(failed)
    )
    name = f"{FOLDER}{row.task}.json"
    run.storage.write_bytes(name, canonical_json({"kind": "task", **asdict(new)}).encode())
    return name


def _batches(storage: Storage, row: TaskRow, config: IngestConfig) -> Iterator[RowBatch]:
    for path in _reports(row):
        report = read_table(storage, path)
        documents = read_table(storage, f"data/{path.removeprefix('report/')}")
        yield RowBatch(documents.cast(config.documents), report, SITES.empty_table(), {}, [])


def _put_in_place(run: StageRun, name: str) -> None:
    row: TaskRow = read_row(run.storage.read_bytes(name))[1]
    beside = [output.path for output in row.outputs if run.storage.exists(FOLDER + output.path)]
    for path in beside:
        publish(run.storage, path, run.storage.read_bytes(FOLDER + path))
    run.manifest.append(row)
    run.storage.remove(name)
    for path in beside:
        run.storage.remove(FOLDER + path)
