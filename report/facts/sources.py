"""What deduplication takes from each crawl file, the worst first, and which of them raise an alarm."""

from dataclasses import dataclass, field

import pyarrow as pa

from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.shards import read_table
from corpusmill.report.read import RunReader

SOURCES_FILE = "clusters/sources.parquet"
NEEDED = {"source", "documents", "share"}
#: Crawl files that a table shows.
SHOWN = 25


@dataclass(frozen=True)
class Source:
    """A crawl file: `counts` are the documents removed, in the order of the table's columns (exact, near, ...)."""

    name: str
    documents: int
    counts: tuple[int, ...]
    share: float  # of its documents that is removed
    alarm: bool


@dataclass(frozen=True)
class Sources:
    """`names` are those of the counts; `rows` have the alarms first, then the largest shares. `limit` is the share that alarms
    where a file has at least `least` documents."""

    names: tuple[str, ...] = ()
    rows: list[Source] = field(default_factory=list)
    limit: float | None = None
    least: int = 0

    @property
    def documents(self) -> int:
        return sum(row.documents for row in self.rows)

    @property
    def alarms(self) -> int:
        return sum(row.alarm for row in self.rows)

    @property
    def folder(self) -> str:
        """The folder that all names begin with, as they have it (`crawl/`); empty where there is none."""
        low, high = min((row.name for row in self.rows), default=""), max((row.name for row in self.rows), default="")
        common = next((place for place, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
        return low[: low.rfind("/", 0, common) + 1]

    def total(self, name: str) -> int:
        """How many documents of all crawl files were removed in this way; 0 where the table does not know it."""
        return sum(row.counts[self.names.index(name)] for row in self.rows) if name in self.names else 0


def read_sources(reader: RunReader) -> Sources:
    """The table by source of the dedup stage; empty where it has written none. Memory grows with the number of crawl files."""
    files = reader.stages["dedup"].outputs(SOURCES_FILE)
    if not files:
        return Sources()
    try:
        table = read_table(reader.storage.child("dedup"), files[0])
    except (CorpusmillError, OSError, pa.ArrowException) as error:
        reader.warn(f"dedup: its table by source can't be read: {error}")
        return Sources()
    if not set(table.column_names) >= NEEDED:
        return Sources()
    settings = reader.settings("dedup")
    limit, least = settings.get("alarm_share"), settings.get("alarm_documents") or 0
    names = tuple(f.name for f in table.schema if pa.types.is_integer(f.type) and f.name != "documents")
    rows = [
        Source(
            row["source"], row["documents"], tuple(row[name] or 0 for name in names), row["share"],
            limit is not None and row["share"] > limit and row["documents"] >= least,
        )
        for row in table.to_pylist()
    ]  # fmt: skip
    return Sources(names, sorted(rows, key=lambda r: (not r.alarm, -r.share, -r.documents, r.name)), limit, least)
