"""What a run with an index has to do with earlier runs: copies of their documents that it removed, and what it changes about theirs."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.shards import iter_tables
from corpusmill.report.read import Place, RunReader

CHANGES_FILE = "earlier/changes.parquet"
NEEDED = {"entry", "id", "kept", "kept_id", "kept_in"}
#: Examples of removed copies, of replaced documents, and of documents that stay again.
EXAMPLES = 4


@dataclass
class EarlierRun:
    """An entry of the index: copies of its documents that this run lost, its documents that are replaced, and those that stay again."""

    copies: int = 0
    replaced: int = 0
    restored: int = 0


@dataclass(frozen=True)
class Copy:
    """A document that was removed for one that the earlier run `kept_in` keeps."""

    id: str
    kept_id: str
    kept_in: str
    similarity: float | None
    verified: str | None


@dataclass
class Earlier:
    """By entry; examples of `copies`, and of rows of the table of changes (`replaced`, `restored`); URLs of this run's documents by id."""

    runs: dict[str, EarlierRun] = field(default_factory=dict)
    copies: list[Copy] = field(default_factory=list)
    replaced: list[dict[str, Any]] = field(default_factory=list)
    restored: list[dict[str, Any]] = field(default_factory=list)
    urls: dict[str, str] = field(default_factory=dict)

    def total(self) -> EarlierRun:
        runs = self.runs.values()
        return EarlierRun(sum(r.copies for r in runs), sum(r.replaced for r in runs), sum(r.restored for r in runs))

    def sorted(self) -> list[tuple[str, EarlierRun]]:
        return sorted(self.runs.items())


def read_earlier(reader: RunReader, examples: bool = True) -> Earlier | None:
    """None where the run has no index. What it says is there after a dry run too. Memory grows with the number of earlier runs."""
    files = reader.stages["dedup"].outputs(CHANGES_FILE)
    if not files:
        return None
    found = Earlier()
    for table in _tables(reader, files[0]):
        for kept, count, rows in ((False, "replaced", found.replaced), (True, "restored", found.restored)):
            some = table.filter(pc.equal(table["kept"], kept))
            for name, number in _counted(some["entry"]).items():
                run = found.runs.setdefault(name, EarlierRun())
                setattr(run, count, getattr(run, count) + number)
            rows += some.slice(0, max(0, EXAMPLES - len(rows))).to_pylist()
    places: list[Place] = []
    for place, table in reader.groups("dedup", "clusters", ["kept_in"]):
        if "kept_in" in table.column_names:
            for name, number in _counted(table["kept_in"].drop_null()).items():
                found.runs.setdefault(name, EarlierRun()).copies += number
            rows_here = pc.indices_nonzero(table["kept_in"].is_valid())[: max(0, EXAMPLES - len(places))].to_pylist()
            places += [Place(place.stage, place.shard, place.group, row) for row in rows_here]
    if examples:
        found.copies = [Copy(**row) for row in reader.rows(places, [f.name for f in fields(Copy)])]
        here = [row["kept_id"] for row in found.replaced if row["kept_in"] is None]
        found.urls = reader.urls("dedup", [*here, *(copy.id for copy in found.copies)])
    return found


def _counted(column: pa.ChunkedArray) -> Counter[str]:
    return Counter({pair["values"]: pair["counts"] for pair in pc.value_counts(column).to_pylist()})


def _tables(reader: RunReader, file: str) -> Iterator[pa.Table]:
    try:
        for table in iter_tables(reader.storage.child("dedup"), file):
            if set(table.column_names) >= NEEDED:
                yield table
    except (CorpusmillError, OSError, pa.ArrowException) as error:
        reader.warn(f"dedup: its table of what it changes about earlier runs can't be read: {error}")
